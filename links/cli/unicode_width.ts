/**
 * How many columns of a terminal a text takes.
 *
 * @module
 */
import { stripVTControlCharacters } from "node:util";

const WIDE =
  /[\u1100-\u115f\u2e80-\u303e\u3041-\ua4cf\ua960-\ua97c\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6\u{1f300}-\u{1faff}\u{20000}-\u{3fffd}]/u;
const NONE = /[\p{Mn}\p{Me}\p{Cf}\p{Cc}]/u;

/**
 * Columns that a text takes on a terminal: 2 for wide characters, none for
 * combining ones and control characters.
 *
 * @param str The text.
 * @returns Its width in columns.
 */
export function unicodeWidth(str: string): number {
  let width = 0;
  for (const char of stripVTControlCharacters(str)) {
    if (NONE.test(char)) continue;
    width += WIDE.test(char) ? 2 : 1;
  }
  return width;
}
