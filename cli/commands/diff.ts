import {
  Differ,
  type DiffResult,
  type FieldDifference,
  type Finding,
  type FindingField,
  Findings,
  partedText,
  type RunDifference,
} from "../../engine/diff/mod.ts";
import { defineCommand, EXIT } from "../command.ts";
import type { Context } from "../context.ts";
import { POLICIES_OPTION, policiesOf } from "../emulation.ts";
import { openTrace } from "../inputs.ts";

const FIELDS = 8;

function plural(n: number, word: string): string {
  return `${n} ${word}${n === 1 ? "" : "s"}`;
}

function named(name: string | undefined, spec: string | undefined): string {
  return name === undefined ? "" : ` (${[name, spec].filter(Boolean).join(" ")})`;
}

/** The differences of one run, field by field. */
function* runLines(difference: RunDifference): Generator<string> {
  const { event, scenario, spec, policies: [a, b], fields, reports } = difference;
  yield `event ${event}${named(scenario, spec)}: ${partedText(difference)}`;
  const texts = (side: 0 | 1) => reports?.[side].map((report) => report.text).join("; ") || "none";
  if (reports) yield `  failed checks and assertions: ${a} ${texts(0)}, ${b} ${texts(1)}`;
  for (const field of fields) yield `  ${fieldLine(field, a, b)}`;
}

function fieldLine(field: FieldDifference, a: string, b: string): string {
  const cause = field.carried ? " (left by an earlier run)" : "";
  return `${field.area} ${field.field}: ${a} ${field.a}, ${b} ${field.b}${cause}`;
}

/** A value without the names of its bits, which only say much where they differ. */
function plain(text: string): string {
  return text.replace(/ \[.*\]$/s, "");
}

function findingField({ field, a, b, bits, runs }: FindingField, all: number): string {
  const some = runs < all ? `, ${plural(runs, "run")}` : "";
  const values = bits.length > 0
    ? `${plain(a)} / ${plain(b)} (${bits.join(" ")}${some})`
    : `${a} / ${b}${some && ` (${some.slice(2)})`}`;
  return `${field}: ${values}`;
}

function* findingLines(finding: Finding, number: number, limit: number): Generator<string> {
  const { title, policies, runs, fields, checks, parted, first } = finding;
  yield `${number}. ${title} (${plural(runs, "run")})`;
  yield `   ${parted}`;
  const ids = Object.entries(checks).map(([id, n]) => `${id} ${n}`);
  const more = ids.length > limit ? ", …" : "";
  if (ids.length > 0) yield `   Failed checks: ${ids.slice(0, limit).join(", ")}${more}`;
  if (fields.length > 0) yield `   ${policies.join(" / ")}:`;
  for (const field of fields.slice(0, limit)) yield `     ${findingField(field, runs)}`;
  if (fields.length > limit) yield `     and ${plural(fields.length - limit, "more field")}`;
  yield `   First: event ${first.event}${named(first.scenario, first.spec)}`;
}

function print(
  context: Context,
  result: DiffResult,
  findings: readonly Finding[],
  limit: number,
): void {
  const { out } = context;
  const [first, ...others] = result.policies;
  others.forEach((other, i) => {
    const unsettled = result.unsettled[i] ?? 0;
    const more = unsettled > 0 ? `, of ${unsettled} more too little was recorded to tell` : "";
    out.line(
      `${first} and ${other}: ${result.different[i]} of ${
        plural(result.runs, "run")
      } end differently${more}`,
    );
  });
  if (result.skipped > 0) out.line(`${plural(result.skipped, "run")} lack their inputs`);
  findings.forEach((finding, i) => {
    out.line();
    const [title = "", ...rest] = findingLines(finding, i + 1, limit);
    out.line(context.bold(title));
    for (const line of rest) out.line(line);
  });
}

/** Re-executes a trace under several policies and says what differs. */
export const diff = defineCommand({
  name: "diff",
  summary: "Re-execute a trace under several policies, and say what they leave different and why",
  details:
    "Each policy is compared with the first. Differences of one mechanism are one finding, with " +
    "the step that parted the policies, the fields and their values in the first run that shows it. " +
    "Ends with 1 when anything differs.",
  operands: { usage: "TRACE", min: 1, max: 1 },
  options: [
    { ...POLICIES_OPTION, required: true },
    { name: "runs", kind: "flag", doc: "Every run that ends differently, with all its fields" },
    { name: "limit", kind: "number", doc: `So many fields of a finding (${FIELDS})` },
  ],
  examples: [
    { line: "diff run.vmtape --policies early-exit,unified", doc: "What the patch changes" },
    {
      line: "diff run.vmtape --policies upstream,./mine.ts --runs",
      doc: "What a policy of your own does otherwise, VMRUN by VMRUN",
    },
  ],
  async run(context, { options, operands: [path = ""] }) {
    const policies = await policiesOf(options.policies, 2);
    const trace = await openTrace(path);
    const findings = new Findings();
    const differ = new Differ(policies, (difference) => {
      findings.add(difference);
      if (!options.runs) return;
      if (context.json) context.out.json(difference);
      else for (const line of runLines(difference)) context.out.line(line);
    });
    using progress = context.progress("events");
    let events = 0;
    for await (const block of trace.blocks()) {
      for (const event of block.shared()) {
        differ.feed(event);
        events++;
      }
      progress.update(events);
    }
    progress.done();
    const result = differ.finish();
    const list = findings.list();
    if (context.json) context.out.json({ ...result, findings: list });
    else print(context, result, list, options.limit ?? FIELDS);
    return result.different.some((count) => count > 0) ? EXIT.differs : EXIT.ok;
  },
});
