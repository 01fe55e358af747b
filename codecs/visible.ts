/**
 * Text that was recorded, shown as what it is: a terminal would obey the control characters in it.
 *
 * @module
 */

/** C0, DEL, C1, line separators, and what turns the direction of writing. */
const CONTROLS =
  // deno-lint-ignore no-control-regex
  /[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]/g;

/**
 * Text of one line in which control characters and those that turn the direction of writing are
 * escaped like in JSON, such as `\u001b`. In JSON it is the same value as before.
 *
 * @param text The text.
 * @returns The text to show.
 * @example
 * ```ts
 * import { visible } from "@vmtape/vmtape/codecs";
 * if (visible("a\x1b[2Jb\u202e") !== "a\\u001b[2Jb\\u202e") throw new Error();
 * ```
 */
export function visible(text: string): string {
  CONTROLS.lastIndex = 0;
  if (!CONTROLS.test(text)) return text;
  return text.replace(
    CONTROLS,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}
