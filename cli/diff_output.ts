/**
 * What a diff found, for people: as text, or as Markdown for a mail or a pull
 * request.
 *
 * @module
 */
import {
  type DiffResult,
  type FieldDifference,
  fieldText,
  type Finding,
  type FindingField,
  partedText,
  type RunDifference,
  type RunRef,
  shortTexts,
  valueTexts,
} from "../engine/diff/mod.ts";
import { explainCommand } from "../engine/diff/wording.ts";
import { SUBJECTS } from "../engine/diff/subjects.ts";
import type { Option } from "./command.ts";
import { plural } from "../engine/plural.ts";
import { type Colour, type Paint, painter } from "./paint.ts";

/** How many fields of a finding are printed. */
export const FIELDS = 8;

/** The options of output and exit status. */
export const DIFF_OUTPUT = [
  { name: "limit", kind: "number", doc: `So many fields of a finding (${FIELDS})` },
  {
    name: "format",
    kind: "text",
    value: "FORMAT",
    choices: ["text", "markdown"],
    doc: "What to print: text, or Markdown for a mail or a pull request (text)",
  },
  {
    name: "fail-on",
    kind: "text",
    value: "WHAT",
    choices: ["any", "outcome", "none", ...SUBJECTS.map(({ id }) => id)],
    doc:
      "Which findings end with status 1: any, those where one enters L2 and the other does not " +
      "(outcome), none, or those about one subject (any)",
  },
] as const satisfies readonly Option[];

/** What is printed. */
export interface DiffOutput {
  /** Counts. */
  readonly result: DiffResult;
  /** What was found. */
  readonly findings: readonly Finding[];
  /** Name of the trace, for the commands that show a finding. */
  readonly trace: string;
  /** How the policies were named on the command line, in the order of `result.policies`. */
  readonly policies: readonly string[];
  /** So many fields of a finding. */
  readonly limit?: number | undefined;
  /** Of two recordings: the command that shows a finding, which no steps explain. */
  readonly show?: (finding: Finding) => string;
}

/**
 * Whether findings are what a diff is to fail on; runs that cannot be compared always are.
 *
 * @param output What was found.
 * @param on The option's value; `any` when left out.
 */
export function failsOn({ result, findings }: DiffOutput, on = "any"): boolean {
  if (on !== "none" && Object.keys(result.unmodelled).length > 0) return true;
  switch (on) {
    case "any":
      return result.different.some((count) => count > 0);
    case "none":
      return false;
    case "outcome":
      return findings.some((finding) => finding.kind === "outcome");
    default:
      return findings.some(({ id }) => id.split("|").includes(on));
  }
}

function named({ scenario, spec }: RunRef): string {
  return scenario === undefined ? "" : ` (${[scenario, spec].filter(Boolean).join(" ")})`;
}

/** The command that shows a finding's first run. */
function commandOf(finding: Finding, { trace, policies, result, show }: DiffOutput): string {
  return show?.(finding) ??
    explainCommand(finding, trace, (name) => policies[result.policies.indexOf(name)] ?? name);
}

/** How many runs end differently, policy by policy. */
function* summaryLines({ result }: DiffOutput): Generator<string> {
  const [first, ...others] = result.policies;
  for (const [i, other] of others.entries()) {
    const unsettled = result.unsettled[i] ?? 0;
    const more = unsettled > 0 ? `, of ${unsettled} more too little was recorded to tell` : "";
    const runs = plural(result.runs, "run ends", "runs end");
    yield `${first} and ${other}: ${result.different[i]} of ${runs} differently${more}`;
  }
  for (const [what, runs] of Object.entries(result.unmodelled)) {
    yield `Not modelled: ${what}: ${plural(runs, "run")} cannot be compared`;
  }
  if (result.skipped > 0) {
    yield plural(result.skipped, "run lacks its inputs", "runs lack their inputs");
  }
}

function findingField(field: FindingField, all: number): string {
  const { a, b, bits } = shortTexts(field);
  const notes = [
    ...(bits.length > 0 ? [bits.join(" ")] : []),
    ...(field.runs < all ? [plural(field.runs, "run")] : []),
  ];
  return `${fieldText(field)}: ${a} / ${b}${notes.length > 0 ? ` (${notes.join(", ")})` : ""}`;
}

function checksText({ checks }: Finding, limit: number): string {
  const ids = Object.entries(checks).map(([id, n]) => `${id} ${n}`);
  return ids.slice(0, limit).join(", ") + (ids.length > limit ? ", …" : "");
}

/** What a follow-on comes from. */
function causeText({ cause }: Finding): string | undefined {
  if (cause === undefined) return undefined;
  return `Comes from event ${cause.run.event}${named(cause.run)}: ${cause.title}`;
}

/**
 * The output as text.
 *
 * @param output What was found.
 * @param color Whether it may be coloured.
 */
export function* diffLines(output: DiffOutput, color: boolean): Generator<string> {
  const paint = painter(color);
  if (output.show === undefined) yield* summaryLines(output);
  for (const [i, finding] of output.findings.entries()) {
    yield "";
    yield* findingLines(finding, i + 1, output, paint);
  }
}

/** How many runs show a finding; and of which policies, where there are more than two. */
function scope({ runs, policies }: Finding, { result }: DiffOutput): string {
  const of = result.policies.length > 2 ? `, ${policies.join(" and ")}` : "";
  return `${plural(runs, "run")}${of}`;
}

const KIND_COLOURS = {
  outcome: "red",
  state: "yellow",
  carried: "dim",
  unsettled: "dim",
} as const satisfies Record<Finding["kind"], Colour>;

function* findingLines(
  finding: Finding,
  number: number,
  output: DiffOutput,
  paint: Paint,
): Generator<string> {
  const { title, kind, policies, runs, fields, parted, first } = finding;
  const { limit = FIELDS } = output;
  yield `${paint("bold", `${number}.`)} ${paint(KIND_COLOURS[kind], title)} (${
    scope(finding, output)
  })`;
  const cause = causeText(finding);
  if (cause !== undefined || output.show === undefined) yield `   ${cause ?? parted}`;
  const checks = checksText(finding, limit);
  if (checks !== "") yield `   Failed checks: ${checks}`;
  if (fields.length > 0) yield `   ${policies.join(" / ")}:`;
  for (const field of fields.slice(0, limit)) yield `     ${findingField(field, runs)}`;
  if (fields.length > limit) yield `     and ${plural(fields.length - limit, "more field")}`;
  yield `   First: event ${first.event}${named(first)}`;
  yield `   ${paint("cyan", commandOf(finding, output))}`;
}

/** Text as Markdown shows it, on one line. */
function markdown(text: string): string {
  return text.replace(/\s+/g, " ").replace(/[\\`*_{}[\]<>|~#&]/g, (character) => `\\${character}`);
}

/** Text as Markdown code, in a table or out of it. */
function code(text: string): string {
  const body = text.replace(/\s+/g, " ").replaceAll("|", "\\|");
  const ticks = "`".repeat(
    1 + Math.max(0, ...[...body.matchAll(/`+/g)].map(([run]) => run.length)),
  );
  const pad = body.startsWith("`") || body.endsWith("`") ? " " : "";
  return body === "" ? "" : `${ticks}${pad}${body}${pad}${ticks}`;
}

/**
 * The output as Markdown.
 *
 * @param output What was found.
 */
export function* markdownLines(output: DiffOutput): Generator<string> {
  if (output.show === undefined) {
    for (const line of summaryLines(output)) yield `- ${markdown(line)}`;
  }
  for (const [i, finding] of output.findings.entries()) {
    yield "";
    yield* findingMarkdown(finding, output, i + 1);
  }
}

/**
 * One finding as Markdown.
 *
 * @param finding The finding.
 * @param output What it is one of.
 * @param number Its number, for its heading.
 */
export function* findingMarkdown(
  finding: Finding,
  output: DiffOutput,
  number?: number,
): Generator<string> {
  const { limit = FIELDS } = output;
  const { title, policies, fields, parted, first } = finding;
  const place = number === undefined ? "" : `${number}. `;
  yield `### ${place}${markdown(title)} (${markdown(scope(finding, output))})`;
  yield "";
  const cause = causeText(finding) ?? (output.show === undefined ? parted : undefined);
  if (cause !== undefined) yield `${markdown(cause)}.`;
  const checks = checksText(finding, limit);
  if (checks !== "") yield `Failed checks: ${markdown(checks)}.`;
  if (fields.length > 0) {
    yield "";
    yield `| Field | ${policies.map(markdown).join(" | ")} | Bits | Runs |`;
    yield "| --- | --- | --- | --- | ---: |";
    for (const field of fields.slice(0, limit)) {
      const { a, b, bits } = shortTexts(field);
      const cells = [fieldText(field), a, b, bits.join(" ")].map(code);
      yield `| ${cells.join(" | ")} | ${field.runs} |`;
    }
    if (fields.length > limit) {
      yield "";
      yield `and ${plural(fields.length - limit, "more field")}.`;
    }
  }
  yield "";
  yield `First: event ${first.event}${markdown(named(first))}. Shown by ${
    code(commandOf(finding, output))
  }.`;
}

/**
 * The differences of one run, field by field.
 *
 * @param difference The run's differences.
 */
export function* runLines(difference: RunDifference): Generator<string> {
  const { event, policies: [a, b], fields, reports } = difference;
  const { after, a: stepA, b: stepB } = difference.parting;
  // Two recordings have no steps.
  const parted = after + stepA + stepB === "" ? "" : `: ${partedText(difference)}`;
  yield `event ${event}${named(difference)}${parted}`;
  const texts = (side: 0 | 1) => reports?.[side].map((report) => report.text).join("; ") || "none";
  if (reports) yield `  failed checks and assertions: ${a} ${texts(0)}, ${b} ${texts(1)}`;
  for (const field of fields) yield `  ${fieldLine(field, a, b)}`;
}

function fieldLine(field: FieldDifference, a: string, b: string): string {
  const { origin } = field;
  const cause = origin === undefined ? "" : ` (left by event ${origin.event}${named(origin)})`;
  const { a: x, b: y } = valueTexts(field);
  return `${fieldText(field)}: ${a} ${x}, ${b} ${y}${cause}`;
}
