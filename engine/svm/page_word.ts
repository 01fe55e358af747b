/**
 * Reading words of a page.
 *
 * @module
 */

/** Little-endian 32-bit word at an offset of a page. */
export function wordAt(page: Uint8Array, at: number): number {
  return ((page[at] as number) | (page[at + 1] as number) << 8 | (page[at + 2] as number) << 16 |
    (page[at + 3] as number) << 24) >>> 0;
}
