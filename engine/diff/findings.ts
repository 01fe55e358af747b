/**
 * Grouping the differences of many runs by their cause, so that one mechanism
 * is one finding however many runs it shows in.
 *
 * @module
 */
import { type Check, CHECK_SETS } from "../svm/checks.ts";
import type { FieldDifference, RunDifference } from "./differ.ts";

/** A field as a finding shows it: the first pair of values that was seen. */
export interface FindingField {
  /** Part of the state and field, such as `vmcb12 control.event_inj`. */
  readonly field: string;
  /** Value under the first policy in the first run. */
  readonly a: string;
  /** Value under the other. */
  readonly b: string;
  /** Bits that differ in any run, by name. */
  readonly bits: readonly string[];
  /** Runs in which it differs. */
  readonly runs: number;
}

/** One mechanism by which two policies differ. */
export interface Finding {
  /** What happens, in the field's words. */
  readonly title: string;
  /** Names of the two policies. */
  readonly policies: readonly [string, string];
  /** `outcome`: one enters L2 and the other refuses. `state`: both do the same, and leave different state. `carried`: an earlier run's difference is still there. */
  readonly kind: "outcome" | "state" | "carried";
  /** The step that writes the fields under the first policy, and under the other. */
  readonly steps: readonly [string | undefined, string | undefined];
  /** Where the steps part in the first run. */
  readonly parted: string;
  /** Runs that show it. */
  readonly runs: number;
  /** Fields, the most frequent first. */
  readonly fields: readonly FindingField[];
  /** Checks that failed in these runs, by id, with their counts. */
  readonly checks: Readonly<Record<string, number>>;
  /** The first run that shows it. */
  readonly first: {
    /** Number of its event. */
    readonly event: number;
    /** Name of its scenario, when the trace names it. */
    readonly scenario: string | undefined;
    /** Its spec. */
    readonly spec: string | undefined;
  };
}

interface Group {
  readonly kind: Finding["kind"];
  readonly first: RunDifference;
  readonly steps: readonly [string | undefined, string | undefined];
  readonly outcome: readonly [string, string];
  readonly fields: Map<string, { a: string; b: string; bits: Set<string>; runs: number }>;
  readonly checks: Map<string, number>;
  runs: number;
}

/** Collects run differences into findings. */
export class Findings {
  readonly #groups = new Map<string, Group>();

  /** Takes the differences of one run. */
  add(difference: RunDifference): void {
    const outcome = outcomesOf(difference);
    if (outcome[0] !== outcome[1]) {
      this.#put(difference, "outcome", [undefined, undefined], outcome, difference.fields);
      return;
    }
    const causes = new Map<string, FieldDifference[]>();
    for (const field of difference.fields) {
      const key = field.carried ? "carried" : `${field.stepA ?? ""}|${field.stepB ?? ""}`;
      const same = causes.get(key);
      if (same === undefined) causes.set(key, [field]);
      else same.push(field);
    }
    for (const [key, fields] of causes) {
      const [head] = fields;
      if (head === undefined) continue;
      const steps = [head.stepA, head.stepB] as const;
      this.#put(difference, key === "carried" ? "carried" : "state", steps, outcome, fields);
    }
    if (causes.size === 0) this.#put(difference, "state", [undefined, undefined], outcome, []);
  }

  /** The findings, those with the most runs first. */
  list(): Finding[] {
    return [...this.#groups.values()].sort((a, b) => b.runs - a.runs).map((group) => ({
      title: titleOf(group),
      policies: group.first.policies,
      kind: group.kind,
      steps: group.steps,
      parted: partedText(group.first),
      runs: group.runs,
      fields: [...group.fields].sort((a, b) => b[1].runs - a[1].runs).map(([field, row]) => ({
        field,
        a: row.a,
        b: row.b,
        bits: [...row.bits],
        runs: row.runs,
      })),
      checks: Object.fromEntries([...group.checks].sort((a, b) => b[1] - a[1])),
      first: {
        event: group.first.event,
        scenario: group.first.scenario,
        spec: group.first.spec,
      },
    }));
  }

  #put(
    difference: RunDifference,
    kind: Finding["kind"],
    steps: readonly [string | undefined, string | undefined],
    outcome: readonly [string, string],
    fields: readonly FieldDifference[],
  ): void {
    const shape = kind === "outcome"
      ? `${difference.parting.way}|${outcome.map(mechanism).join("|")}`
      : steps.join("|");
    const key = `${difference.policies.join("|")}|${kind}|${shape}`;
    let group = this.#groups.get(key);
    if (group === undefined) {
      group = {
        kind,
        first: difference,
        steps,
        outcome,
        fields: new Map(),
        checks: new Map(),
        runs: 0,
      };
      this.#groups.set(key, group);
    }
    group.runs++;
    const { check } = difference.parting;
    if (check !== undefined) group.checks.set(check, (group.checks.get(check) ?? 0) + 1);
    for (const field of fields) {
      const name = `${field.area} ${field.field}`;
      const row = group.fields.get(name) ??
        { a: field.a, b: field.b, bits: new Set<string>(), runs: 0 };
      row.runs++;
      for (const bit of field.bits) row.bits.add(bit);
      group.fields.set(name, row);
    }
  }
}

/** What became of the run under each policy: the check that refused it, or nothing. */
function outcomesOf(difference: RunDifference): readonly [string, string] {
  const { reports } = difference;
  if (reports === undefined) return ["", ""];
  const [a, b] = reports.map((list) =>
    list.map((report) => report.kind === "check" ? report.id : `assertion ${report.text}`).join(
      ", ",
    )
  );
  return [a ?? "", b ?? ""];
}

/** Consistency checks of vmcb12 refuse alike, whichever of them fails; those of CR3 are each their own. */
function mechanism(ids: string): string {
  return ids.split(", ").map((id) => checkById(id)?.group === "cr3" ? id : id && "vmcb12").join();
}

function checkById(id: string): Check | undefined {
  for (const set of Object.values(CHECK_SETS)) {
    const row = set.find((check) => check.id === id);
    if (row !== undefined) return row;
  }
  return undefined;
}

function docOf(ids: string): string {
  const [first = ""] = ids.split(", ");
  const row = checkById(first);
  return row === undefined ? first : `${row.doc} (${row.id})`;
}

const WAYS: Readonly<Record<string, string>> = {
  rsm: " on RSM",
  setstate: " on restoring nested state",
};

/** Fields that have a name of their own in talk about nested SVM. */
const WORDS: Readonly<Record<string, string>> = {
  "nested gif": "GIF",
  "nested msrpm01": "vmcb01's MSR bitmap",
  "nested msrpm02": "vmcb02's MSR bitmap",
  "nested msrpm_recalc": 'the MSR bitmap\'s "recalculate" flag',
  "nested vmcb12_gpa": "the address of the current vmcb12",
  "nested guest_mode": "guest mode",
  "vmcb12 control.event_inj": "EVENTINJ in vmcb12",
  "vmcb12 control.exit_code": "the exit code in vmcb12",
};

function titleOf(group: Group): string {
  const [a, b] = group.first.policies;
  if (group.kind === "outcome") {
    const [x, y] = group.outcome;
    const way = WAYS[group.first.parting.way] ?? "";
    const what = (ids: string) =>
      group.checks.size > 1 ? "a vmcb12 that fails its checks" : docOf(ids);
    if (x !== "" && y === "") return `${b} lets in${way} what ${a} refuses: ${what(x)}`;
    if (x === "" && y !== "") return `${a} lets in${way} what ${b} refuses: ${what(y)}`;
    return `Both refuse${way}, ${a} with ${x}, ${b} with ${y}`;
  }
  const [main = ""] = [...group.fields].sort((p, q) => q[1].runs - p[1].runs).map(([name]) => name);
  const known = [...group.fields.keys()].find((name) => name in WORDS);
  const what = known === undefined ? main : WORDS[known] as string;
  const context = group.checks.size > 0 && sum(group.checks) === group.runs
    ? " after a failed check"
    : "";
  if (group.kind === "carried") return `${what} still differs from an earlier run`;
  const [stepA, stepB] = group.steps;
  if (stepA === undefined && stepB === undefined) {
    return `${what} differs${context}: what ran between the transitions left it so`;
  }
  if (stepA === stepB) return `${what} differs${context}: both write it in "${stepA}"`;
  if (stepA === undefined) return `${what}${context}: ${b} sets it in "${stepB}", ${a} leaves it`;
  if (stepB === undefined) return `${what}${context}: ${a} sets it in "${stepA}", ${b} leaves it`;
  return `${what}${context}: ${a} sets it last in "${stepA}", ${b} in "${stepB}"`;
}

function sum(counts: ReadonlyMap<string, number>): number {
  let total = 0;
  for (const count of counts.values()) total += count;
  return total;
}

/** Where two policies' steps part, in one line. */
export function partedText(difference: RunDifference): string {
  const { after, a, b } = difference.parting;
  const [first, other] = difference.policies;
  const step = (name: string) => name === "" ? "is done" : `goes on with "${name}"`;
  if (a === b) return "The steps are the same";
  return `After "${after}" ${first} ${step(a)}, ${other} ${step(b)}`;
}
