/**
 * Counts with their words.
 *
 * @module
 */
/**
 * A count with its word.
 *
 * @param n How many.
 * @param word What, in the singular.
 * @param many What, in the plural; the word with an s when left out.
 * @returns Such as `1 run` or `3 runs`.
 */
export function plural(n: number, word: string, many = `${word}s`): string {
  return `${n} ${n === 1 ? word : many}`;
}
