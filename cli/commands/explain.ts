/**
 * The subcommand `explain`.
 *
 * @module
 */
import {
  type ExplainedRow,
  type ExplainedStep,
  Explainer,
  type Explanation,
  fieldText,
  partedText,
  plainExplanation,
  shortTexts,
  type StateChange,
  valueTexts,
} from "../../engine/diff/mod.ts";
import { unicodeWidth } from "@std/cli/unicode-width";
import { plural } from "../../engine/plural.ts";
import { defineCommand, EXIT } from "../command.ts";
import type { Context } from "../context.ts";
import { EVENT, POLICIES_OPTION, policiesOf, PROCESSOR } from "../policy_options.ts";
import { STEP_LIMIT } from "../step_limit.ts";
import { UsageError } from "../errors.ts";
import { openTrace } from "../inputs.ts";
import { type Colour, type Paint, painter } from "../paint.ts";

/** Columns of output that goes to no terminal. */
const WIDTH = 140;
/** Fewest columns that one policy gets. */
const NARROWEST = 30;

/** A line of one policy's column. */
interface Line {
  readonly text: string;
  readonly colour?: Colour;
}

function changeText(change: StateChange): string {
  const { a, b, bits } = shortTexts(change);
  return `${fieldText(change)}: ${a} → ${b}${bits.length > 0 ? ` (${bits.join(" ")})` : ""}`;
}

/** Cuts a line into pieces of at most `width` columns, at blanks where there are some. */
function* wrap(text: string, width: number): Generator<string> {
  const indent = /^ */.exec(text)![0] + "  ";
  let line = text;
  while (unicodeWidth(line) > width) {
    const at = line.lastIndexOf(" ", width);
    const cut = at > indent.length ? at : width;
    yield line.slice(0, cut).trimEnd();
    line = indent + line.slice(cut).trimStart();
  }
  yield line;
}

function linesOf(step: ExplainedStep | undefined, width: number, other: boolean): Line[] {
  if (step === undefined) return [];
  const lines: Line[] = [];
  const add = (text: string, colour?: Colour) => {
    for (const piece of wrap(text, width)) lines.push({ text: piece, ...(colour && { colour }) });
  };
  const indent = "  ".repeat(step.depth);
  add(indent + step.name, other ? "yellow" : "bold");
  for (const { kind, id, text } of step.reports) {
    add(`${indent}  ${kind === "check" ? `FAILED ${id}: ${text}` : `ASSERTION ${text}`}`, "red");
  }
  for (const change of step.changes) add(`${indent}  ${changeText(change)}`, "dim");
  return lines;
}

function* rowLines(
  row: ExplainedRow,
  width: number,
  paint: Paint,
  alone: boolean,
): Generator<string> {
  const other = !alone && (row.a?.name !== row.b?.name || row.a?.way !== row.b?.way);
  const left = linesOf(row.a, width, other), right = linesOf(row.b, width, other);
  const mark = row.parts ? ">" : other ? "|" : " ";
  for (let i = 0; i < Math.max(left.length, right.length); i++) {
    const a = left[i]?.text ?? "", b = right[i]?.text ?? "";
    const blanks = b === "" ? "" : " ".repeat(width - unicodeWidth(a) + 2);
    const side = (line: Line | undefined) =>
      line?.colour === undefined ? line?.text ?? "" : paint(line.colour, line.text);
    yield `${i === 0 ? mark : " "} ${side(left[i])}${blanks}${side(right[i])}`.trimEnd();
  }
}

/** The way that a row is part of, to be announced when it changes. */
function wayOf({ a, b }: ExplainedRow): string {
  return (a ?? b)?.way ?? "";
}

const WAYS: Readonly<Record<string, string>> = {
  vmrun: "VMRUN",
  rsm: "RSM",
  setstate: "KVM_SET_NESTED_STATE",
  pages: "fetch L2's pages",
  vmexit: "#VMEXIT",
};

function* explanationLines(
  explanation: Explanation,
  width: number,
  paint: Paint,
  alone: boolean,
): Generator<string> {
  const { event, scenario, spec, policies: [a, b], rows, difference } = explanation;
  const name = [scenario, spec].filter(Boolean).join(" ");
  yield paint("bold", `Event ${event}${name && ` (${name})`}`);
  if (!alone) {
    yield difference === undefined
      ? `${a} and ${b} end alike`
      : `${partedText(difference)}; ${plural(difference.fields.length, "field")} ${
        difference.fields.length === 1 ? "differs" : "differ"
      } at the end`;
  }
  yield "";
  const blanks = " ".repeat(width - unicodeWidth(a) + 2);
  yield alone ? `  ${paint("cyan", a)}` : `  ${paint("cyan", a)}${blanks}${paint("cyan", b)}`;
  let way = "";
  for (const row of rows) {
    const now = wayOf(row);
    if (now !== way && now !== "") yield `  ${paint("cyan", `── ${WAYS[now] ?? now}`)}`;
    way = now;
    if (row.parts) yield paint("yellow", "> The policies part here");
    yield* rowLines(alone ? { ...row, b: undefined } : row, width, paint, alone);
  }
  if (difference === undefined) return;
  yield "";
  yield paint("bold", "At the end:");
  for (const field of difference.fields) {
    const { origin } = field;
    const { a: x, b: y, bits } = valueTexts(field);
    const named = bits.length > 0 ? ` (${bits.join(" ")})` : "";
    const from = origin === undefined
      ? ""
      : `, left by event ${origin.event}${origin.scenario ? ` (${origin.scenario})` : ""}`;
    yield `  ${fieldText(field)}: ${a} ${x}, ${b} ${y}${named}${from}`;
  }
}

function columns(): number {
  if (!Deno.stdout.isTerminal()) return WIDTH;
  try {
    return Deno.consoleSize().columns;
  } catch {
    return WIDTH;
  }
}

function print(context: Context, explanation: Explanation, alone: boolean): void {
  const width = Math.max(NARROWEST, Math.floor((columns() - 5) / (alone ? 1 : 2)));
  for (const line of explanationLines(explanation, width, painter(context.color), alone)) {
    context.out.line(line);
  }
}

/** Shows one run under two policies, step by step. */
export const explain = defineCommand({
  name: "explain",
  summary: "Show one VMRUN step by step, under two policies side by side or under one",
  details: "Under each step is what it changed. The first step that is not the same is marked " +
    "with >, others with |. Of a log, a step's changes are those that do not depend on what was not " +
    "recorded. Ends with 1 when the policies end differently.",
  operands: { usage: "TRACE", min: 1, max: 1 },
  options: [
    EVENT,
    { ...POLICIES_OPTION, required: true },
    PROCESSOR,
    STEP_LIMIT,
  ],
  examples: [
    {
      line: "explain run.vmtape --event 7 --policies early-exit,unified",
      doc: "Which step parts them, and what it leaves",
    },
    {
      line: "explain run.vmtape --event 7 --policies linux-7.3",
      doc: "What a kernel does, in order",
    },
  ],
  async run(context, { options, operands: [path = ""] }) {
    const { event } = options;
    const policies = await policiesOf(options.policies, 1, options.processor);
    const alone = policies.length === 1;
    if (policies.length > 2) throw new UsageError("One policy or two are explained at a time");
    const trace = await openTrace(path);
    const explainer = new Explainer([policies[0]!, policies[1] ?? policies[0]!], event);
    using progress = context.progress("events");
    let events = 0;
    for await (const block of trace.blocks()) {
      for (const next of block.shared()) {
        explainer.feed(next);
        events++;
        if (explainer.done) break;
      }
      progress.update(events);
      if (explainer.done) break;
    }
    progress.done();
    const explanation = explainer.finish();
    if (explanation === undefined) {
      throw new UsageError(
        event >= events
          ? `There is no event ${event}: the trace has ${events}`
          : `Event ${event} belongs to no VMRUN with its inputs; vmtape dump shows which events do`,
      );
    }
    if (context.json) context.out.json(plainExplanation(explanation));
    else print(context, explanation, alone);
    return explanation.difference === undefined ? EXIT.ok : EXIT.differs;
  },
});
