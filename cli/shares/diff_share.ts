/**
 * A part of a diff, and adding parts up.
 *
 * @module
 */
import type { TraceFile } from "../../codecs/mod.ts";
import {
  Differ,
  type DiffResult,
  type Finding,
  Findings,
  type RunDifference,
  RunGatherer,
} from "../../engine/diff/mod.ts";
import { MemoizedDiffer } from "../../engine/memo/mod.ts";
import type { Policy } from "../../engine/policy.ts";
import { eachEvent, type Group } from "./groups.ts";
import {
  DifferencePacker,
  type PackedDifferences,
  unpackDifferences,
  unpackGathered,
} from "./packed.ts";

/** What policies do differently in one group. */
export interface DiffShare {
  /** Number of the group's first event. */
  readonly from: number;
  /** Number of the first event behind it. */
  readonly to: number;
  /** Counts. */
  readonly result: DiffResult;
  /** Runs that end up differently: each of them, or gathered. */
  readonly differences: PackedDifferences;
}

/** How groups are compared. */
export interface GroupDifferOptions {
  /** Whether runs are carried out that repeat others. */
  readonly each: boolean;
  /** Whether somebody wants to see each run that ends up differently. */
  readonly runs: boolean;
}

/** Runs groups under several policies, one after the other, each with what was learned from those before. */
export class GroupDiffer {
  readonly #differ: Differ | MemoizedDiffer;
  readonly #runs: boolean;
  /** Counts before the group. */
  #before: DiffResult | undefined;
  #take: (difference: RunDifference) => void = () => {};

  /**
   * @param policies The policies.
   * @param options How they are compared.
   */
  constructor(policies: readonly Policy[], { each, runs }: GroupDifferOptions) {
    this.#runs = runs;
    this.#differ = new (each ? Differ : MemoizedDiffer)(
      policies,
      (difference) => this.#take(difference),
      { each },
    );
  }

  /**
   * Compares the next group.
   *
   * @param trace The trace.
   * @param group The group, which begins with a session unless it is the first.
   * @param whole Whether it goes to the end of the trace, so that it depends on nothing after it.
   * @returns What differs.
   * @throws {IndivisibleError} When the group depends on what is outside of it; then no other can follow.
   */
  async share(trace: TraceFile, group: Group, whole: boolean): Promise<DiffShare> {
    const before = this.#before;
    const packer = new DifferencePacker(before?.events, before?.runs);
    const gatherer = new RunGatherer();
    const taker = this.#runs ? packer : gatherer;
    this.#take = (difference) => taker.add(difference);
    const differ = this.#differ;
    await eachEvent(trace, group, whole, (event) => differ.feed(event));
    const after = differ.finish();
    this.#before = copyOf(after);
    if (!this.#runs) packer.gathered(gatherer);
    const { from, to } = group;
    return { from, to, result: resultSince(before, after), differences: packer.packed };
  }
}

/** Counts as they are now: those of a comparison that goes on become others. */
function copyOf(result: DiffResult): DiffResult {
  return { ...result, different: [...result.different], unsettled: [...result.unsettled] };
}

/** Counts of what came after others. */
function resultSince(before: DiffResult | undefined, result: DiffResult): DiffResult {
  if (before === undefined) return copyOf(result);
  const less = (a: readonly number[], b: readonly number[]) => a.map((n, i) => n - (b[i] ?? 0));
  const unmodelled = Object.entries(result.unmodelled)
    .map(([what, runs]) => [what, runs - (before.unmodelled[what] ?? 0)] as const)
    .filter(([, runs]) => runs > 0);
  return {
    ...result,
    events: result.events - before.events,
    runs: result.runs - before.runs,
    different: less(result.different, before.different),
    unsettled: less(result.unsettled, before.unsettled),
    unmodelled: Object.fromEntries(unmodelled),
    skipped: result.skipped - before.skipped,
  };
}

function joined(
  a: Readonly<Record<string, number>>,
  b: Readonly<Record<string, number>>,
): Record<string, number> {
  const all = { ...a };
  for (const [what, runs] of Object.entries(b)) all[what] = (all[what] ?? 0) + runs;
  return all;
}

/**
 * Counts of two groups together.
 *
 * @param before Those of the groups before; undefined when there is none.
 * @param result Those of the next.
 */
export function sumResults(before: DiffResult | undefined, result: DiffResult): DiffResult {
  if (before === undefined) return result;
  const sum = (a: readonly number[], b: readonly number[]) => b.map((n, i) => n + (a[i] ?? 0));
  return {
    ...result,
    events: before.events + result.events,
    runs: before.runs + result.runs,
    different: sum(before.different, result.different),
    unsettled: sum(before.unsettled, result.unsettled),
    unmodelled: joined(before.unmodelled, result.unmodelled),
    skipped: before.skipped + result.skipped,
  };
}

/** Puts groups together again, in order. */
export class DiffTotal {
  readonly #findings = new Findings();
  readonly #look: ((difference: RunDifference) => void) | undefined;
  #result: DiffResult | undefined;

  /** @param look Receives every run that ends up differently. */
  constructor(look?: (difference: RunDifference) => void) {
    this.#look = look;
  }

  /** Adds the next group. */
  add({ from, result, differences }: DiffShare): void {
    const before = this.#result;
    const runs = before?.runs ?? 0;
    if (differences.gathered !== undefined) this.#gather(differences, from, runs);
    else this.#takeEach(differences, from, runs);
    this.#result = sumResults(before, result);
  }

  #gather(differences: PackedDifferences, events: number, runs: number): void {
    for (const gathered of unpackGathered(differences, events, runs)) {
      this.#findings.gather(gathered);
    }
    this.#findings.settle(differences.gathered?.owners.at(-1) ?? []);
  }

  #takeEach(differences: PackedDifferences, events: number, runs: number): void {
    for (const alike of unpackDifferences(differences, events, runs)) {
      const { difference, times } = alike;
      this.#findings.add(difference, times);
      for (let i = 0; this.#look !== undefined && i < times; i++) {
        const event = difference.event + i * alike.events, run = difference.run + i * alike.runs;
        this.#look({ ...difference, event, run });
      }
    }
  }

  /** Counts over all groups. */
  get result(): DiffResult {
    if (this.#result === undefined) throw new Error("There is no group");
    return this.#result;
  }

  /** What was found in all of them. */
  get findings(): Finding[] {
    return this.#findings.list();
  }
}
