/**
 * Cases in units: those that go on with the virtual machine of one before belong to it.
 *
 * @module
 */
import { generate } from "../generate/generate.ts";
import type { Coverage } from "./coverage.ts";
import type { Foreseer, Foresight, Unit } from "./foresight.ts";

const GOES_ON = /(?:^| )keepvm(?: |$)/;

/**
 * Groups lines of the case syntax.
 *
 * @param lines The lines; a first one that goes on with nothing begins a unit all the same.
 * @returns The units, in order.
 * @example
 * ```ts
 * import { unitsOf } from "@vmtape/vmtape/traces";
 * if (unitsOf(["a", "b keepvm", "c"]).map((unit) => unit.length).join() !== "2,1") throw new Error();
 * ```
 */
export function unitsOf(lines: Iterable<string>): Unit[] {
  const units: string[][] = [];
  for (const line of lines) {
    const last = units.at(-1);
    if (last !== undefined && GOES_ON.test(line)) last.push(line);
    else units.push([line]);
  }
  return units;
}

/** How many times as many cases are thought of as are asked. */
const CHOICE = 2;
/** Spreads seeds, so that no two hunts share a batch. */
const SPREAD = 0x9e3779b1;

/**
 * The units of a batch: of those that a generator makes, those that reach what was seldom reached.
 *
 * @param seed Seed of the hunt.
 * @param batch Number of the batch.
 * @param count How many cases, at least.
 * @param foreseer Predicts them.
 * @param coverage What was reached; what they reach is added.
 * @returns What the model says of each, in the order in which they were made.
 */
export function pickUnits(
  seed: number,
  batch: number,
  count: number,
  foreseer: Foreseer,
  coverage: Coverage,
): Foresight[] {
  const lines = generate({ seed: (Math.imul(seed, SPREAD) + batch) >>> 0, count: CHOICE * count });
  const all = unitsOf(lines).map((unit) => foreseer.foresee(unit));
  const chosen = new Set<number>();
  for (let size = 0; size < count && chosen.size < all.length;) {
    let best = -1, most = -1;
    for (const [i, { features, unit }] of all.entries()) {
      if (chosen.has(i)) continue;
      const worth = coverage.worth(features) / unit.length;
      if (worth > most) [best, most] = [i, worth];
    }
    chosen.add(best);
    size += all[best]!.unit.length;
    // What it reaches counts at once: the next one is to reach something else.
    coverage.add(all[best]!.features);
  }
  return all.filter((_, i) => chosen.has(i));
}
