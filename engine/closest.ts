/**
 * The word a misspelt one was probably meant to be.
 *
 * @module
 */

/**
 * Finds the candidate nearest to `word` by edit distance, ignoring case.
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

function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const swap = a[i - 1] === b[j - 1] ? 0 : 1;
      next.push(Math.min(row[j]! + 1, next[j - 1]! + 1, row[j - 1]! + swap));
    }
    row = next;
  }
  return row[b.length]!;
}
