/**
 * Patterns of names: `*` is any text.
 *
 * @module
 */

/**
 * Whether a pattern fits a whole name. It goes back to the last `*` alone, so that no pattern takes
 * longer than its length times the name's.
 *
 * @param pattern Text in which `*` stands for any text, none too; everything else for itself.
 * @param name The name.
 * @example
 * ```ts
 * import { globMatches } from "./glob.ts";
 * import { assert } from "@std/assert";
 *
 * assert(globMatches("efer_*", "efer_svme"));
 * assert(!globMatches("efer_*", "cr0_efer_"));
 * ```
 */
export function globMatches(pattern: string, name: string): boolean {
  let at = 0, star = -1, resumed = 0;
  for (let i = 0; i < name.length;) {
    if (pattern[at] === "*") {
      star = at++;
      resumed = i;
    } else if (pattern[at] === name[i]) {
      at++;
      i++;
    } else if (star >= 0) {
      at = star + 1;
      i = ++resumed;
    } else {
      return false;
    }
  }
  while (pattern[at] === "*") at++;
  return at === pattern.length;
}
