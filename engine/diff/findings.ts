/**
 * Grouping the differences of many runs by their cause, so that one mechanism
 * is one finding however many runs it shows in.
 *
 * @module
 */
import { alikeOf } from "./explained_runs.ts";
import { outcomeWay, type Own, ownOf, type Part, partsOf } from "./finding_parts.ts";
import type { GatheredRuns, OwnerSetting } from "./gathered_runs.ts";
import { asBefore, makeAgain, Owners, type OwnerUse, pairOf } from "./owners.ts";
import type {
  FieldDifference,
  Moment,
  RunDifference,
  RunRef,
  TwoValues,
} from "./run_difference.ts";
import { oddSide, type Subject, SUBJECTS } from "./subjects.ts";
import {
  fieldText,
  followOnTitle,
  outcomeTitle,
  partedText,
  stateTitle,
  unsettledTitle,
} from "./wording.ts";

/**
 * A field as a finding shows it: the values are those of the first run that shows it, the bits
 * those that differ in any run.
 */
export interface FindingField extends TwoValues {
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
  readonly own: Own;
  readonly lead: FieldDifference | undefined;
  readonly cause: { readonly run: RunRef; readonly group: string } | undefined;
  readonly fields: Map<string, FieldRow>;
  readonly checks: Map<string, number>;
  readonly needs: Set<string>;
  runs: number;
}

/** A field of a group: the first difference of it, the bits that differ in any, and how many there are. */
interface FieldRow {
  readonly first: FieldDifference;
  differing: bigint;
  runs: number;
}

/** Where the differences of a run went, for when they come again. */
interface Sorted {
  readonly keys: string[];
  readonly reports: RunDifference["reports"];
  readonly parting: RunDifference["parting"];
  readonly ends: RunDifference["ends"];
  readonly follows: boolean;
  /** Which owners it asked for and made. */
  readonly uses: readonly OwnerUse[];
  readonly groups: readonly { readonly group: Group; readonly rows: readonly FieldRow[] }[];
}

/** Ways in which the same differences were sorted that are kept at most. */
const MOST_SORTED = 8;

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
  /** For each pair of policies. */
  readonly #owners = new Map<string, Owners>();
  /** By what lists of fields have in common that say the same. */
  readonly #sortedBefore = new WeakMap<object, Sorted[]>();
  /** What the run that is being sorted asked for and made; whether it made one that was another. */
  #uses: OwnerUse[] = [];
  #moved = false;

  /**
   * Takes the differences of one run.
   *
   * @param difference The run's differences.
   * @param times How many runs end differently in this way, one after the other.
   * @returns Keys of the findings it is part of; see {@linkcode Findings.indexOf}.
   */
  add(difference: RunDifference, times = 1): string[] {
    const { keys, taken } = this.#take(difference, times);
    for (let left = times - taken; left > 0;) left -= this.#take(difference, left).taken;
    return keys;
  }

  /**
   * Takes runs that were gathered apart; those before them have been taken.
   *
   * @param runs Runs that belong to the same findings.
   */
  gather({ difference, times, differing, owners }: GatheredRuns): void {
    this.settle(owners);
    const own = ownOf(difference);
    const bits = new Map(difference.fields.map((field, i) => [field, differing[i] as bigint]));
    for (const part of this.#partsOf(difference, own)) {
      const { rows } = this.#put(keyOf(difference.policies, part.id), difference, part, own, times);
      part.fields.forEach((field, i) => rows[i]!.differing |= bits.get(field) as bigint);
    }
  }

  /**
   * Takes over which findings the differences of fields last belonged to.
   *
   * @param owners The fields, each of which differed in a run that was taken, and the findings.
   */
  settle(owners: readonly OwnerSetting[]): void {
    for (const [pair, name, part] of owners) this.#ownersOf(pair).set(name, part);
  }

  /** Takes a run once, or as often as it belongs to the same findings. */
  #take(difference: RunDifference, times: number): { keys: string[]; taken: number } {
    const { fields, reports, parting, ends, reportsOrigin } = difference;
    const follows = reportsOrigin !== undefined;
    const alike = alikeOf(fields);
    let before = this.#sortedBefore.get(alike);
    if (before === undefined) this.#sortedBefore.set(alike, before = []);
    for (let i = 0; i < before.length; i++) {
      const known = before[i] as Sorted;
      if (known.reports !== reports || known.parting !== parting || known.ends !== ends) continue;
      if (known.follows !== follows || !asBefore(known.uses)) continue;
      const taken = makeAgain(known.uses) ? 1 : times;
      for (const { group, rows } of known.groups) countRuns(group, rows, difference, taken);
      return { keys: known.keys, taken };
    }
    const own = ownOf(difference);
    const keys: string[] = [];
    const parts = this.#partsOf(difference, own);
    // A run that makes owners may belong elsewhere when it comes again: follow-ons of it are then its own.
    const taken = this.#moved ? 1 : times;
    const groups = parts.map((part) => {
      const key = keyOf(difference.policies, part.id);
      keys.push(key);
      return this.#put(key, difference, part, own, taken);
    });
    const uses = this.#uses;
    // Which is the most recent may have changed meanwhile.
    const kept = uses.every(({ recent }) => !recent) || uses.every(({ made }) => !made);
    if (kept) {
      if (before.length === MOST_SORTED) before.shift();
      before.push({ keys, reports, parting, ends, follows, uses, groups });
    }
    return { keys, taken };
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
    const titled = cause && this.#groups.get(keyOf(first.policies, cause.group));
    return {
      id,
      title: this.#titleOf(group),
      policies: first.policies,
      kind,
      steps,
      needs: [...group.needs],
      parted: partedText(first),
      runs,
      fields: rowsOf(group).map(({ first: { area, field, a, b }, differing, runs }) => (
        { area, field, a, b, differing, runs }
      )),
      checks: Object.fromEntries([...group.checks].sort((a, b) => b[1] - a[1])),
      first: refOf(first),
      cause: cause && { run: cause.run, title: titled === undefined ? "" : this.#titleOf(titled) },
    };
  }

  /** The parts of a run's differences; which owners they ask for and make is noted. */
  #partsOf(difference: RunDifference, own: Own): Part[] {
    const owners = this.#ownersOf(pairOf(difference.policies));
    const uses: OwnerUse[] = this.#uses = [];
    this.#moved = false;
    return partsOf(difference, own, {
      own: (name, owner) => {
        if (owners.set(name, owner)) this.#moved = true;
        uses.push({ owners, name, owner, recent: false, made: true });
      },
      ownerOf(name) {
        const owner = owners.of(name), recent = owners.known(name) === undefined;
        uses.push({ owners, name, owner, recent, made: false });
        return owner;
      },
    });
  }

  #ownersOf(pair: string): Owners {
    let owners = this.#owners.get(pair);
    if (owners === undefined) this.#owners.set(pair, owners = new Owners());
    return owners;
  }

  #put(
    key: string,
    difference: RunDifference,
    part: Part,
    own: Own,
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
        own,
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
      const name = fieldText(field);
      const row = fields.get(name) ?? { first: field, differing: 0n, runs: 0 };
      row.differing |= field.differing;
      for (const need of field.needs) needs.add(need);
      fields.set(name, row);
      return row;
    });
    countRuns(group, rows, difference, times);
    return { group, rows };
  }

  #titleOf(group: Group): string {
    const { subject, lead, first, moment, own, checks } = group;
    if (group.kind === "outcome") {
      return outcomeTitle(first, own, outcomeWay(first, own), checks.size);
    }
    if (group.kind === "carried") {
      const owner = this.#groups.get(keyOf(first.policies, group.cause?.group ?? ""));
      return followOnTitle(owner?.subject?.id);
    }
    if (subject === undefined || lead === undefined) return "The reports differ";
    const side = oddSide(subject, lead);
    const title = stateTitle(subject.id, {
      odd: first.policies[side],
      other: first.policies[1 - side] as string,
      moment,
      bothWrite: lead.stepA !== undefined && lead.stepB !== undefined,
      fields: rowsOf(group).map(({ first: { field } }) => field),
    });
    return group.kind === "unsettled" ? unsettledTitle(group.needs, title) : title;
  }
}

/** Key of a group: the policies, and what it is called. */
function keyOf(policies: readonly [string, string], id: string): string {
  return `${pairOf(policies)}|${id}`;
}

/** A group's fields, the most frequent first. */
function rowsOf({ fields }: Group): FieldRow[] {
  return [...fields.values()].sort((a, b) => b.runs - a.runs);
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

function refOf({ event, run, scenario, spec }: RunRef): RunRef {
  return { event, run, scenario, spec };
}
