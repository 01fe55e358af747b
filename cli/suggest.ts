/**
 * What someone may have meant who misspelt a word.
 *
 * @module
 */
import { closest } from "../engine/closest.ts";

/** Most names that a message lists. */
const LISTED = 24;

/**
 * The end of a message about an unknown word: the nearest known one, or all
 * of them when they are few.
 *
 * @param word What was written.
 * @param known What there is.
 * @returns Text that starts with a comma, or nothing.
 */
export function didYouMean(word: string, known: Iterable<string>): string {
  const all = [...known];
  const near = closest(word, all);
  if (near !== undefined) return `, did you mean ${JSON.stringify(near)}?`;
  return all.length > 0 && all.length <= LISTED ? `, expected one of ${all.join(", ")}` : "";
}
