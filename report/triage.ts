/**
 * Findings as the first screen shows them: a line a mechanism, a column a policy.
 *
 * @module
 */
import { fieldText, type Finding, shortTexts } from "../engine/diff/mod.ts";
import type { ReportData } from "./data.ts";

/** What one policy does where a mechanism shows first. */
export interface MechanismCell {
  /** In few words; empty when it is not known. */
  readonly text: string;
  /** How it is marked: L2 is entered, it is refused, or neither is what this is about. */
  readonly mark: "enters" | "refuses" | "value";
}

/** One mechanism by which policies differ, whatever the pair that shows it. */
export interface Mechanism {
  /** What happens, as the first of its findings says it. */
  readonly title: string;
  /** As in {@linkcode Finding.kind}. */
  readonly kind: Finding["kind"];
  /** The field that the columns show; empty of an outcome. */
  readonly field: string;
  /** Its findings, by their place in {@linkcode ReportData.findings}. */
  readonly findings: readonly number[];
  /** Runs that show it between the two policies that part most often. */
  readonly runs: number;
  /** What each policy does. */
  readonly cells: readonly MechanismCell[];
}

/** What it means, the most telling first. */
const KINDS: readonly Finding["kind"][] = ["outcome", "state", "unsettled", "carried"];

/** What findings of several pairs have in common when they are one mechanism. */
function mechanismOf({ kind, id, first }: Finding): string {
  // Who refuses what is told in columns, so that all pairs of one run are one line.
  if (kind === "outcome") return `outcome|${first.run}`;
  // The last part of an id is the policy whose value is the odd one.
  return kind === "carried" ? id : id.slice(0, id.lastIndexOf("|"));
}

/**
 * The findings of all pairs as mechanisms.
 *
 * @param data What was gathered.
 * @returns Outcomes first, those with the most runs first among them; then state, then the rest.
 * @example
 * ```ts
 * import { builtinScenarios, EARLY_EXIT, recordScenarios, UPSTREAM } from "@vmtape/vmtape";
 * import { mechanismsOf, ReportCollector } from "@vmtape/vmtape/report";
 * const collector = new ReportCollector([EARLY_EXIT, UPSTREAM]);
 * for await (const event of recordScenarios(builtinScenarios("gif-left-set"), EARLY_EXIT)) {
 *   collector.feed(event);
 * }
 * const gif = mechanismsOf(collector.finish("t")).find(({ field }) => field === "nested gif");
 * if (gif?.cells.map(({ text }) => text).join() !== "0x1,0x0") throw new Error();
 * ```
 */
export function mechanismsOf(data: ReportData): Mechanism[] {
  const groups = new Map<string, number[]>();
  data.findings.forEach((finding, i) => {
    const key = mechanismOf(finding);
    const group = groups.get(key);
    if (group === undefined) groups.set(key, [i]);
    else group.push(i);
  });
  const all = [...groups.values()].map((findings) => mechanism(data, findings));
  return all.sort((a, b) =>
    KINDS.indexOf(a.kind) - KINDS.indexOf(b.kind) || Number(parts(b)) - Number(parts(a)) ||
    b.runs - a.runs
  );
}

/** Whether one policy enters L2 and another does not. */
function parts({ kind, cells }: Mechanism): boolean {
  return kind === "outcome" && new Set(cells.map(({ mark }) => mark)).size > 1;
}

function mechanism(data: ReportData, indexes: readonly number[]): Mechanism {
  const findings = indexes.map((i) => data.findings[i] as Finding);
  const [lead] = findings as [Finding, ...Finding[]];
  const [field] = lead.fields;
  const values = lead.kind === "outcome" ? undefined : valuesOf(findings);
  return {
    title: lead.title,
    kind: lead.kind,
    field: values === undefined || field === undefined ? "" : fieldText(field),
    findings: indexes,
    runs: Math.max(...findings.map(({ runs }) => runs)),
    cells: data.policies.map((name, policy) =>
      values === undefined
        ? outcomeCell(data, policy, lead.first.run)
        : { text: values.get(name) ?? "", mark: "value" }
    ),
  };
}

/** What each policy leaves in the field that most of its runs show. */
function valuesOf(findings: readonly Finding[]): Map<string, string> {
  const values = new Map<string, string>();
  const [lead] = findings;
  const name = lead?.fields[0] && fieldText(lead.fields[0]);
  // The values of one run are told where there are any.
  const same = (finding: Finding) => finding.first.run === lead?.first.run ? 0 : 1;
  for (const finding of findings.toSorted((a, b) => same(a) - same(b))) {
    const field = finding.fields.find((one) => fieldText(one) === name);
    if (field === undefined) continue;
    const { a, b } = shortTexts(field);
    [a, b].forEach((text, side) => {
      const policy = finding.policies[side as 0 | 1];
      if (!values.has(policy)) values.set(policy, text);
    });
  }
  return values;
}

function outcomeCell(data: ReportData, policy: number, run: number): MechanismCell {
  const outcome = data.outcomes[data.outcomeOf[policy]?.[run] ?? -1] ?? "";
  const reports = data.reportLists[data.reportsOf[policy]?.[run] ?? -1] ?? [];
  const [first] = reports.map((text) => data.texts[text] ?? "");
  // A report begins with the check's id.
  const what = first?.replace(/^([\w-]+): .*$/s, "$1");
  if (outcome === "entered L2") {
    return { text: what === undefined ? "lets L2 in" : `lets L2 in (${what})`, mark: "enters" };
  }
  const refuses = ["failed check", "late failure", "refused"].includes(outcome);
  const text = refuses ? "refuses" : outcome;
  return { text: what === undefined ? text : `${text}: ${what}`, mark: "refuses" };
}
