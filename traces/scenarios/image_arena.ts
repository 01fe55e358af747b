/**
 * Memory for images that are handed out for good: many share one buffer, which
 * is much cheaper than a buffer for each.
 *
 * @module
 */

/** Bytes of a buffer: what keeps one image keeps at most so much. */
const BUFFER = 1 << 17;

/** Copies images into buffers that they share. */
export class ImageArena {
  #buffer = new Uint8Array(0);
  #used = 0;

  /**
   * A copy that nobody changes any more.
   *
   * @param bytes The bytes, at most 4,096.
   * @returns The copy; it begins at a multiple of 8.
   */
  copy(bytes: Uint8Array): Uint8Array {
    const copy = this.blank(bytes.length);
    copy.set(bytes);
    return copy;
  }

  /**
   * Bytes that are zero, to be written by who asks for them, and then by nobody.
   *
   * @param length How many, at most 4,096.
   * @returns The bytes; they begin at a multiple of 8.
   */
  blank(length: number): Uint8Array {
    if (this.#used + length > this.#buffer.length) {
      this.#buffer = new Uint8Array(BUFFER);
      this.#used = 0;
    }
    const bytes = this.#buffer.subarray(this.#used, this.#used + length);
    this.#used += length + 7 & ~7;
    return bytes;
  }
}
