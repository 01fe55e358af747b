/**
 * How often records agree: counts by group, by kernel and way in, and by field.
 *
 * @module
 */
import type { LabRecord } from "../../codecs/lab/types.ts";
import { weightOf } from "../../engine/event_weight.ts";
import { type Group, GROUP_NUMBERS } from "./groups.ts";
import type { Holding } from "./holding.ts";
import { compareRecords } from "./records.ts";
import { toLabCase } from "../scenarios/lab_case.ts";
import { type Entry, entryOf } from "../scenarios/scenario.ts";
import { ScenarioError } from "../scenarios/scenario_error.ts";
import { parseScenario } from "../scenarios/scenario_reader.ts";
import type { Skip } from "./skip_list.ts";

/** Agreement in one group. */
export interface GroupCount {
  /** Cases compared. */
  readonly cases: number;
  /** Those without a disagreement. */
  readonly agreed: number;
}

/** Agreement of the cases of one kernel, MMU mode and way in. */
export interface AgreementRow {
  /** Kernel or policy of the first stream. */
  readonly kernel: string;
  /** 1 with nested paging, 0 with shadow paging. */
  readonly npt: number;
  /** Way in. */
  readonly entry: Entry;
  /** Counts by group. */
  readonly groups: Readonly<Record<Group, GroupCount>>;
}

/** One case as an example of a disagreement. */
export interface Example {
  /** Name of the case. */
  readonly case: string;
  /** Value in the first stream. */
  readonly a?: string;
  /** Value in the second. */
  readonly b?: string;
}

/** A field that differs, over all cases. */
export interface FieldDisagreement {
  /** Group it counts in. */
  readonly group: Group;
  /** Path of the field. */
  readonly field: string;
  /** Cases in which it differs. */
  readonly count: number;
  /** The first few of them. */
  readonly examples: readonly Example[];
}

/** Two streams, compared. */
export interface ComparisonResult {
  /** Cases in both streams that were compared. */
  readonly compared: number;
  /** Of those, without any disagreement. */
  readonly agreed: number;
  /** Cases left out by the skip list. */
  readonly skipped: number;
  /** Names of cases only in the first stream. */
  readonly onlyA: readonly string[];
  /** Names of cases only in the second. */
  readonly onlyB: readonly string[];
  /** Names of cases whose specs differ, and which were not compared therefore. */
  readonly otherSpec: readonly string[];
  /** Names of the cases with a disagreement: of two runs of one kernel, a skip list. */
  readonly differing: readonly string[];
  /** Agreement over all cases, by group. */
  readonly groups: Readonly<Record<Group, GroupCount>>;
  /** The same by kernel, MMU mode and way in. */
  readonly rows: readonly AgreementRow[];
  /** Fields that differ, the most frequent first. */
  readonly disagreements: readonly FieldDisagreement[];
}

/** How to compare. */
export interface CompareOptions {
  /** Cases to leave out. */
  readonly skip?: Skip;
  /** How many example cases to keep for each field; 3 when left out. */
  readonly examples?: number;
}

/** What a row, or a field, takes besides its texts, in bytes. */
const OBJECT = 256;

type Counts = Record<Group, { cases: number; agreed: number }>;

function noCounts(): Counts {
  const none = () => ({ cases: 0, agreed: 0 });
  return { 1: none(), 2: none(), 3: none(), 4: none() };
}

/** Counts pairs of records as they come; holds no record. */
export class Tally {
  readonly #options: CompareOptions;
  readonly #holding: Holding;
  readonly #fields = new Map<
    string,
    { group: Group; field: string; count: number; examples: Example[] }
  >();
  readonly #rows = new Map<string, Omit<AgreementRow, "groups"> & { groups: Counts }>();
  readonly #groups = noCounts();
  readonly #otherSpec: string[] = [];
  readonly #differing: string[] = [];
  #compared = 0;
  #agreed = 0;
  #skipped = 0;

  /**
   * Begins with nothing counted.
   *
   * @param options What to leave out, and how many examples to keep.
   * @param holding Counts what is kept.
   */
  constructor(options: CompareOptions, holding: Holding) {
    this.#options = options;
    this.#holding = holding;
  }

  /**
   * Compares and counts one pair.
   *
   * @param a The first stream's record.
   * @param b The second's, of the same name.
   */
  pair(a: LabRecord, b: LabRecord): void {
    const { skip, examples = 3 } = this.#options;
    if (skip?.(a) || skip?.(b)) {
      this.#skipped++;
      return;
    }
    if (!sameSpec(a, b)) {
      this.#name(this.#otherSpec, a.case);
      return;
    }
    const { disagreements, unknown } = compareRecords(a, b);
    this.#compared++;
    if (disagreements.length === 0) this.#agreed++;
    else this.#name(this.#differing, a.case);
    const differing = new Set(disagreements.map((d) => d.group));
    const row = this.#row(a);
    for (const group of GROUP_NUMBERS) {
      if (unknown.has(group)) continue;
      for (const counts of [this.#groups[group], row[group]]) {
        counts.cases++;
        if (!differing.has(group)) counts.agreed++;
      }
    }
    const seen = new Set<string>();
    for (const { group, field, ...values } of disagreements) {
      const key = `${group} ${field}`;
      if (seen.has(key)) continue;
      seen.add(key);
      let entry = this.#fields.get(key);
      if (!entry) {
        this.#holding.take(OBJECT + 2 * field.length);
        this.#fields.set(key, entry = { group, field, count: 0, examples: [] });
      }
      entry.count++;
      if (entry.examples.length < examples) {
        const example = { case: a.case, ...values };
        this.#holding.take(weightOf(example));
        entry.examples.push(example);
      }
    }
  }

  #name(list: string[], name: string): void {
    this.#holding.take(weightOf(name));
    list.push(name);
  }

  #row({ kernel, npt, spec }: LabRecord): Counts {
    const entry = entryOf(spec);
    const key = `${kernel}/${npt}/${entry}`;
    let row = this.#rows.get(key);
    if (!row) {
      this.#holding.take(4 * OBJECT + 2 * kernel.length);
      this.#rows.set(key, row = { kernel, npt, entry, groups: noCounts() });
    }
    return row.groups;
  }

  /**
   * What was counted.
   *
   * @param onlyA Cases that only the first stream has.
   * @param onlyB Cases that only the second has.
   * @returns The comparison.
   */
  result(onlyA: readonly string[], onlyB: readonly string[]): ComparisonResult {
    return {
      compared: this.#compared,
      agreed: this.#agreed,
      skipped: this.#skipped,
      onlyA,
      onlyB,
      otherSpec: this.#otherSpec,
      differing: this.#differing,
      groups: this.#groups,
      rows: [...this.#rows.values()],
      disagreements: [...this.#fields.values()].sort((x, y) =>
        y.count - x.count || x.group - y.group || (x.field < y.field ? -1 : 1)
      ),
    };
  }
}

/** Whether two specs say the same, if need be in other words. */
function sameSpec(a: LabRecord, b: LabRecord): boolean {
  if (a.spec === b.spec) return true;
  try {
    const lines = [a, b].map(({ spec }) => toLabCase(parseScenario(`x ${spec}`)));
    return lines[0] === lines[1];
  } catch (error) {
    if (error instanceof ScenarioError) return false;
    throw error;
  }
}
