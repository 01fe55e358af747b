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
 * @param shown The count as text, where it is not plain digits.
 * @returns Such as `1 run` or `3 runs`.
 */
export function plural(n: number, word: string, many = `${word}s`, shown = String(n)): string {
  return `${shown} ${n === 1 ? word : many}`;
}
