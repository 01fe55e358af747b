/**
 * Copying a machine's state.
 *
 * @module
 */
import { DEVICES_AT, SHADOW_AT, SHADOW_PAGE_WORDS } from "./machine.ts";

/**
 * Copies a machine's words but for what is left in free shadow pages, which nothing reads.
 *
 * @param to Words of a machine of the same size.
 * @param from The machine's words.
 */
export function copyWords(to: Uint32Array, from: Uint32Array): void {
  to.set(from.subarray(0, SHADOW_AT >> 2));
  for (let at = SHADOW_AT >> 2; at < DEVICES_AT >> 2; at += SHADOW_PAGE_WORDS) {
    if (from[at] === 0) to[at] = 0;
    else to.set(from.subarray(at, at + SHADOW_PAGE_WORDS), at);
  }
  to.set(from.subarray(DEVICES_AT >> 2), DEVICES_AT >> 2);
}
