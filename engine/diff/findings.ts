/**
 * Grouping the differences of many runs by their cause, so that one mechanism
 * is one finding however many runs it shows in.
 *
 * @module
 */
import { checkById } from "../checks/sets.ts";
import type { FieldDifference, Moment, RunDifference, RunRef } from "./run_difference.ts";
import type { Report } from "./transitions.ts";
import { MOMENTS, oddSide, type Subject, subjectOf, SUBJECTS } from "./subjects.ts";

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
  /** Stable id of the mechanism, the same in every trace. */
  readonly id: string;
  /** What happens, in the field's words. */
  readonly title: string;
  /** Names of the two policies. */
  readonly policies: readonly [string, string];
  /**
   * `outcome`: one enters L2 and the other refuses. `state`: both do the same, and leave different
   * state. `carried`: a follow-on of an earlier run. `unsettled`: too little was recorded to tell.
   */
  readonly kind: "outcome" | "state" | "carried" | "unsettled";
  /** What was not recorded and decides whether it is so, of a finding of kind `unsettled`. */
  readonly needs: readonly string[];
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
  readonly first: RunRef;
  /** Of a follow-on: the run that caused the first one, and the title of what it did. */
  readonly cause: { readonly run: RunRef; readonly title: string } | undefined;
}

interface Group {
  readonly id: string;
  readonly kind: Finding["kind"];
  readonly first: RunDifference;
  readonly steps: readonly [string | undefined, string | undefined];
  readonly moment: Moment | undefined;
  readonly subject: Subject | undefined;
  readonly outcome: readonly [string, string];
  readonly lead: FieldDifference | undefined;
  readonly cause: { readonly run: RunRef; readonly group: string } | undefined;
  readonly fields: Map<string, FieldRow>;
  readonly checks: Map<string, number>;
  readonly needs: Set<string>;
  runs: number;
}

type FieldRow = { a: string; b: string; bits: Set<string>; runs: number };

/** Where the differences of a run went, for when they come again. */
interface Sorted {
  readonly keys: string[];
  readonly reports: RunDifference["reports"];
  readonly parting: RunDifference["parting"];
  readonly ends: RunDifference["ends"];
  readonly follows: boolean;
  /** What the owners were afterwards. */
  readonly owners: number;
  readonly groups: readonly { readonly group: Group; readonly rows: readonly FieldRow[] }[];
}

/** A part of a run's differences that has one cause. */
interface Part {
  readonly id: string;
  readonly kind: Finding["kind"];
  readonly subject?: Subject;
  readonly fields: FieldDifference[];
  readonly cause?: { readonly run: RunRef; readonly group: string };
}

/**
 * Collects run differences into findings.
 *
 * @example
 * ```ts
 * import { builtinScenarios, recordScenarios } from "@vmtape/vmtape/traces";
 * import { Differ, EARLY_EXIT, Findings, UPSTREAM } from "@vmtape/vmtape/engine";
 * const findings = new Findings();
 * const differ = new Differ([EARLY_EXIT, UPSTREAM], (difference) => findings.add(difference));
 * for await (const event of recordScenarios(builtinScenarios("gif-left-set"), EARLY_EXIT)) {
 *   differ.feed(event);
 * }
 * differ.finish();
 * const gif = findings.list().find(({ id }) => id === "gif|failed check|early-exit");
 * if (gif?.title !== "GIF stays set after a failed consistency check under early-exit") throw new Error();
 * ```
 */
export class Findings {
  readonly #groups = new Map<string, Group>();
  /** The group that a field's own difference last went to, to trace follow-ons. */
  readonly #owners = new Map<string, string>();
  /** How often an owner was another than before. */
  #moves = 0;
  // A replay that takes over a run that comes again hands out the same list of fields.
  readonly #sortedBefore = new WeakMap<readonly FieldDifference[], Sorted>();

  /**
   * Takes the differences of one run.
   *
   * @param difference The run's differences.
   * @param times How many runs end differently in this way, one after the other.
   * @returns Keys of the findings it is part of; see {@linkcode Findings.indexOf}.
   */
  add(difference: RunDifference, times = 1): string[] {
    const { fields, reports, parting, ends, reportsOrigin } = difference;
    const known = this.#sortedBefore.get(fields);
    const follows = reportsOrigin !== undefined;
    if (
      known !== undefined && known.owners === this.#moves && known.reports === reports &&
      known.parting === parting && known.ends === ends && known.follows === follows
    ) {
      for (const { group, rows } of known.groups) countRuns(group, rows, difference, times);
      return known.keys;
    }
    const outcome = outcomesOf(difference);
    const pair = difference.policies.join("|");
    const keys: string[] = [];
    const groups = this.#partsOf(difference, outcome).map((part) => {
      const key = `${pair}|${part.id}`;
      keys.push(key);
      return this.#put(key, difference, part, outcome, times);
    });
    const owners = this.#moves;
    this.#sortedBefore.set(fields, { keys, reports, parting, ends, follows, owners, groups });
    return keys;
  }

  /**
   * Place of a finding in {@linkcode Findings.list}.
   *
   * @param key A key from {@linkcode Findings.add}.
   * @returns Its index; -1 when there is no such finding.
   */
  indexOf(key: string): number {
    return this.#sorted().findIndex(([name]) => name === key);
  }

  /**
   * The findings, those with the most runs first, follow-ons last.
   *
   * @returns The findings.
   */
  list(): Finding[] {
    return this.#sorted().map(([, group]) => this.#finding(group));
  }

  #sorted(): [string, Group][] {
    const late = ({ kind }: Group) => kind === "carried" ? 2 : kind === "unsettled" ? 1 : 0;
    const rank = ({ subject }: Group) => subject === undefined ? 0 : SUBJECTS.indexOf(subject);
    return [...this.#groups].sort(([, a], [, b]) =>
      late(a) - late(b) || b.runs - a.runs || rank(a) - rank(b)
    );
  }

  #finding(group: Group): Finding {
    const { id, kind, steps, runs, first, cause } = group;
    const titled = cause && this.#groups.get(cause.group);
    return {
      id,
      title: this.#titleOf(group),
      policies: first.policies,
      kind,
      steps,
      needs: [...group.needs],
      parted: partedText(first),
      runs,
      fields: [...group.fields].sort((a, b) => b[1].runs - a[1].runs).map(([field, row]) => ({
        field,
        a: row.a,
        b: row.b,
        bits: [...row.bits],
        runs: row.runs,
      })),
      checks: Object.fromEntries([...group.checks].sort((a, b) => b[1] - a[1])),
      first: refOf(first),
      cause: cause && { run: cause.run, title: titled === undefined ? "" : this.#titleOf(titled) },
    };
  }

  /** The parts of a run's differences, each with one cause. */
  #partsOf(difference: RunDifference, outcome: readonly [string, string]): Part[] {
    const pair = difference.policies.join("|");
    const parts = new Map<string, Part>();
    const put = (part: Omit<Part, "fields">, field?: FieldDifference) => {
      let found = parts.get(part.id);
      if (found === undefined) parts.set(part.id, found = { ...part, fields: [] });
      if (field !== undefined) found.fields.push(field);
      return `${pair}|${part.id}`;
    };
    const { reportsOrigin } = difference;
    const { ends } = difference;
    const differs = outcome[0] !== outcome[1] || ends[0] !== ends[1];
    if (differs && reportsOrigin === undefined) {
      const id = outcomeId(difference, outcome);
      const owner = put({ id, kind: "outcome" });
      for (const field of difference.fields) {
        put({ id, kind: "outcome" }, field);
        this.#own(`${pair}|${nameOf(field)}`, owner);
      }
      return [...parts.values()];
    }
    const minor: FieldDifference[] = [];
    const own = (subject: Subject, field: FieldDifference, id: string) => {
      this.#own(`${pair}|${nameOf(field)}`, put({ id, kind: "state", subject }, field));
    };
    const certainty = (field: FieldDifference) => Math.min(1, field.needs.length);
    for (const field of difference.fields.toSorted((x, y) => certainty(x) - certainty(y))) {
      const origin = field.origin ?? reportsOrigin;
      if (origin !== undefined) {
        const owner = this.#ownerOf(pair, field);
        const id = `carried|${owner.slice(pair.length + 1)}`;
        put({ id, kind: "carried", cause: { run: origin, group: owner } }, field);
        continue;
      }
      const subject = subjectOf(field);
      if (field.needs.length > 0) {
        // It goes with what is certain of its subject, where anything is.
        const certain = stateId(subject, field, difference);
        if (parts.has(certain)) put({ id: certain, kind: "state", subject }, field);
        else put({ id: `unsettled|${certain}`, kind: "unsettled", subject }, field);
      } else if (subject.minor) minor.push(field);
      else own(subject, field, stateId(subject, field, difference));
    }
    for (const field of minor) {
      const subject = subjectOf(field);
      const major = [...parts.values()].find((part) =>
        part.kind === "state" && part.fields[0]?.when === field.when
      );
      own(major?.subject ?? subject, field, major?.id ?? stateId(subject, field, difference));
    }
    if (parts.size === 0 && reportsOrigin !== undefined) {
      const owner = this.#ownerOf(pair, undefined);
      put({
        id: `carried|${owner.slice(pair.length + 1)}`,
        kind: "carried",
        cause: { run: reportsOrigin, group: owner },
      });
    }
    return [...parts.values()];
  }

  #own(field: string, owner: string): void {
    if (this.#owners.get(field) === owner) return;
    this.#owners.set(field, owner);
    this.#moves++;
  }

  /** The finding that a follow-on field comes from: the one its subject went to last, or the most recent. */
  #ownerOf(pair: string, field: FieldDifference | undefined): string {
    const own = field && this.#owners.get(`${pair}|${nameOf(field)}`);
    if (own !== undefined) return own;
    const [last] = [...this.#owners].filter(([name]) => name.startsWith(`${pair}|`)).slice(-1);
    return last?.[1] ?? "";
  }

  #put(
    key: string,
    difference: RunDifference,
    part: Part,
    outcome: readonly [string, string],
    times: number,
  ): Sorted["groups"][number] {
    const [lead] = part.fields;
    let group = this.#groups.get(key);
    if (group === undefined) {
      group = {
        id: part.id,
        kind: part.kind,
        first: difference,
        steps: part.kind === "outcome" ? [undefined, undefined] : [lead?.stepA, lead?.stepB],
        moment: lead?.when,
        subject: part.subject,
        outcome,
        lead,
        cause: part.cause,
        fields: new Map(),
        checks: new Map(),
        needs: new Set(),
        runs: 0,
      };
      this.#groups.set(key, group);
    }
    const { fields, needs } = group;
    const rows = part.fields.map((field) => {
      const name = nameOf(field);
      const row = fields.get(name) ?? { a: field.a, b: field.b, bits: new Set<string>(), runs: 0 };
      for (const bit of field.bits) row.bits.add(bit);
      for (const need of field.needs) needs.add(need);
      fields.set(name, row);
      return row;
    });
    countRuns(group, rows, difference, times);
    return { group, rows };
  }

  #titleOf(group: Group): string {
    if (group.kind === "outcome") return outcomeTitle(group);
    const fields = [...group.fields].sort((p, q) => q[1].runs - p[1].runs).map(([name]) => name);
    if (group.kind === "carried") {
      const owner = this.#groups.get(group.cause?.group ?? "");
      const nouns = owner?.subject?.noun ?? "what an earlier run left";
      return `Follow-on of an earlier run: ${nouns}`;
    }
    const { subject, lead, first, moment } = group;
    if (subject === undefined || lead === undefined) return "The reports differ";
    const side = oddSide(subject, lead);
    const title = subject.title({
      odd: first.policies[side],
      other: first.policies[1 - side] as string,
      when: moment === undefined ? "" : MOMENTS[moment],
      first: lead,
      fields,
    });
    return group.kind === "unsettled"
      ? `Cannot tell without ${[...group.needs].join(", ")}: ${title}`
      : title;
  }
}

function countRuns(
  group: Group,
  rows: readonly FieldRow[],
  { parting: { check } }: RunDifference,
  times: number,
): void {
  group.runs += times;
  for (let i = 0; i < rows.length; i++) rows[i]!.runs += times;
  if (check !== undefined) group.checks.set(check, (group.checks.get(check) ?? 0) + times);
}

function nameOf(field: FieldDifference): string {
  return `${field.area} ${field.field}`;
}

function stateId(subject: Subject, field: FieldDifference, difference: RunDifference): string {
  const when = subject.timeless ? "any" : field.when ?? "between";
  return `${subject.id}|${when}|${difference.policies[oddSide(subject, field)]}`;
}

function refOf({ event, run, scenario, spec }: RunRef): RunRef {
  return { event, run, scenario, spec };
}

/** The checks and assertions that only one of the policies met. */
function outcomesOf(difference: RunDifference): readonly [string, string] {
  // A VMRUN that is tried again and again meets the same each time.
  const text = (list: readonly Report[]) =>
    [
      ...new Set(
        list.map((report) => report.kind === "check" ? report.id : `assertion ${report.text}`),
      ),
    ].join(", ");
  const [x, y] = onlyOf(difference);
  return [text(x), text(y)];
}

/** What each policy reported, less what both reported first. */
function onlyOf({ reports }: RunDifference): readonly [readonly Report[], readonly Report[]] {
  const [x = [], y = []] = reports ?? [];
  let same = 0;
  while (same < x.length && same < y.length && x[same]?.text === y[same]?.text) same++;
  return [x.slice(same), y.slice(same)];
}

/** The way in which the outcomes come to differ. */
function outcomeWay(difference: RunDifference): string {
  const [x, y] = onlyOf(difference);
  return (x[0] ?? y[0])?.way || difference.parting.way;
}

function outcomeId(difference: RunDifference, outcome: readonly [string, string]): string {
  const [a, b] = difference.policies;
  const way = outcomeWay(difference);
  // A step that goes wrong is one mechanism, whatever the other policy does meanwhile.
  const wrong = outcome.findIndex((text) => text.startsWith("assertion Step "));
  if (wrong >= 0) return `outcome|${way}|${difference.policies[wrong]}|${outcome[wrong]}`;
  const [x, y] = outcome.map(mechanism);
  // A check that fails or does not says all; how the run ends then follows from it.
  const ends = x === y ? `|${difference.ends.join("|")}` : "";
  return `outcome|${way}|${a}:${x}|${b}:${y}${ends}`;
}

/** Consistency checks of vmcb12 refuse alike, whichever of them fails; those of CR3 are each their own. */
function mechanism(ids: string): string {
  if (ids === "") return "";
  return ids.split(", ").map((id) => {
    const group = checkById(id)?.group;
    return group === undefined || group === "cr3" ? id : "vmcb12";
  }).join();
}

function docOf(ids: string): string {
  return ids.split(", ").map((id) => {
    const row = checkById(id);
    return row === undefined ? id : `${row.doc.replace(/^[AT]he? /, (word) => word.toLowerCase())}`;
  }).join("; ");
}

const WAYS: Readonly<Record<string, string>> = {
  rsm: " on RSM",
  setstate: " on restoring nested state",
};

function outcomeTitle({ first, outcome: [x, y], checks }: Group): string {
  const [a, b] = first.policies;
  const way = WAYS[outcomeWay(first)] ?? "";
  const what = (ids: string) =>
    checks.size > 1 ? "a vmcb12 that fails its consistency checks" : docOf(ids);
  const checked = ([0, 1] as const).map((side) =>
    (first.reports?.[side] ?? []).some((report) => report.kind === "check")
  );
  const entered = checked[0] === checked[1] ? undefined : checked[0] ? b : a;
  if (entered === b && !y.includes("assertion")) {
    return `${b} lets L2 in${way} where ${a} refuses: ${what(x)}`;
  }
  if (entered === a && !x.includes("assertion")) {
    return `${a} lets L2 in${way} where ${b} refuses: ${what(y)}`;
  }
  const [endA, endB] = first.ends;
  if (x === "" && y === "") {
    const [odd, other, end, usual] = endA.startsWith("goes on")
      ? [b, a, endB, endA]
      : [a, b, endA, endB];
    return `The vCPU ${end} under ${odd}, where it ${usual} under ${other}`;
  }
  const [odd, other, more] = x === "" || y.startsWith("assertion ") ? [b, a, y] : [a, b, x];
  if (more.startsWith("assertion Step ")) return `${odd} goes wrong${way}: ${more.slice(10)}`;
  if (x === "" || y === "") {
    return more.startsWith("assertion ")
      ? `${odd} breaks an assertion${way} that ${other} keeps: ${more.slice(10)}`
      : `${odd} meets a second failure${way}, ${other} does not: ${docOf(more)}`;
  }
  return `Both refuse${way}, for other reasons. ${a}: ${docOf(x)}. ${b}: ${docOf(y)}`;
}

/**
 * Where two policies' steps part, in one line.
 *
 * @param difference The run's differences.
 * @returns The line.
 * @example
 * ```ts
 * import { builtinScenarios, recordScenarios } from "@vmtape/vmtape/traces";
 * import { Differ, EARLY_EXIT, partedText, UPSTREAM } from "@vmtape/vmtape/engine";
 * const lines: string[] = [];
 * const differ = new Differ([EARLY_EXIT, UPSTREAM], (difference) => lines.push(partedText(difference)));
 * for await (const event of recordScenarios(builtinScenarios("gif-left-set"), EARLY_EXIT)) {
 *   differ.feed(event);
 * }
 * differ.finish();
 * if (!lines[0]?.endsWith('upstream goes on with "clear EVENTINJ"')) throw new Error(lines[0]);
 * ```
 */
export function partedText(difference: RunDifference): string {
  const { after, a, b } = difference.parting;
  const [first, other] = difference.policies;
  const step = (name: string) => name === "" ? "is done" : `goes on with "${name}"`;
  if (a === b) return "The steps are the same";
  const where = after === "" ? "At the beginning" : `After "${after}"`;
  return `${where} ${first} ${step(a)}, ${other} ${step(b)}`;
}
