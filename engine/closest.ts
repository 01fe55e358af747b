/**
 * The word a misspelt one was probably meant to be.
 *
 * @module
 */

/**
 * Finds the candidate nearest to `word` by edit distance, ignoring case; two
 * letters swapped count as one mistake.
 *
 * @param word What was written.
 * @param candidates What would have been right.
 * @returns The nearest candidate, or `undefined` when none is near enough to be worth suggesting
 * (more than a third of the longer word's letters would have to change).
 * @example
 * ```ts
 * import { closest } from "@vmtape/vmtape/engine";
 * if (closest("save.efre", ["save.efer", "save.cr0"]) !== "save.efer") throw new Error();
 * if (closest("zzz", ["save.efer"]) !== undefined) throw new Error();
 * ```
 */
export function closest(word: string, candidates: Iterable<string>): string | undefined {
  if (word === "") return undefined;
  const wanted = word.toLowerCase();
  let best: string | undefined;
  let bestDistance = Infinity;
  for (const candidate of candidates) {
    const limit = Math.max(1, Math.floor(Math.max(word.length, candidate.length) / 3));
    if (Math.abs(candidate.length - word.length) > limit) continue;
    const distance = editDistance(wanted, candidate.toLowerCase());
    if (distance <= limit && distance < bestDistance) {
      best = candidate;
      bestDistance = distance;
    }
  }
  return best;
}

/** Letters to insert, drop, change or swap with their neighbour. */
function editDistance(a: string, b: string): number {
  let before: number[] = [];
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const change = a[i - 1] === b[j - 1] ? 0 : 1;
      let best = Math.min(row[j]! + 1, next[j - 1]! + 1, row[j - 1]! + change);
      const swapped = i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1];
      if (swapped) best = Math.min(best, before[j - 2]! + 1);
      next.push(best);
    }
    before = row;
    row = next;
  }
  return row[b.length]!;
}
