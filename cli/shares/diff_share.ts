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
} from "../../engine/diff/mod.ts";
import { MemoizedDiffer } from "../../engine/memo/mod.ts";
import type { Policy } from "../../engine/policy.ts";
import { eachEvent, type Group } from "./groups.ts";
import { DifferencePacker, type PackedDifferences, unpackDifferences } from "./packed.ts";

/** What policies do differently in one group. */
export interface DiffShare {
  /** Number of the group's first event. */
  readonly from: number;
  /** Number of the first event behind it. */
  readonly to: number;
  /** Counts. */
  readonly result: DiffResult;
  /** Runs that end up differently. */
  readonly differences: PackedDifferences;
}

/** Runs a group under several policies. */
export async function diffShare(
  trace: TraceFile,
  group: Group,
  whole: boolean,
  policies: readonly Policy[],
  each: boolean,
): Promise<DiffShare> {
  const packer = new DifferencePacker();
  const differ = new (each ? Differ : MemoizedDiffer)(
    policies,
    (difference) => packer.add(difference),
    { each },
  );
  await eachEvent(trace, group, whole, (event) => differ.feed(event));
  const { from, to } = group;
  return { from, to, result: differ.finish(), differences: packer.packed };
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
    for (const alike of unpackDifferences(differences, from, runs)) {
      const { difference, times } = alike;
      this.#findings.add(difference, times);
      for (let i = 0; this.#look !== undefined && i < times; i++) {
        const event = difference.event + i * alike.events, run = difference.run + i * alike.runs;
        this.#look({ ...difference, event, run });
      }
    }
    this.#result = sumResults(before, result);
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
