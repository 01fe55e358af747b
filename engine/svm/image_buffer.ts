/**
 * Memory for images that are made of a state.
 *
 * @module
 */

/** Memory for an image, to be filled again and again. */
export class ImageBuffer {
  /** The bytes. */
  readonly bytes: Uint8Array;
  /** The same as 32-bit words. */
  readonly words: Uint32Array;
  #beginning: Uint8Array;

  /**
   * Makes memory that is all zero.
   *
   * @param size Bytes, a multiple of 4.
   * @example
   * ```ts
   * import { ImageBuffer, INNER_SIZE, innerBytes, UPSTREAM, Vcpu } from "@vmtape/vmtape/engine";
   * const v = new Vcpu({ physicalBits: 40, npt: true, memory: 1 << 24 }, UPSTREAM);
   * const buffer = new ImageBuffer(INNER_SIZE);
   * if (innerBytes(v, 1, buffer) !== buffer.bytes || buffer.words[0] !== 1) throw new Error();
   * ```
   */
  constructor(size: number) {
    this.words = new Uint32Array(size / 4);
    this.bytes = this.#beginning = new Uint8Array(this.words.buffer);
  }

  /**
   * The first bytes of it.
   *
   * @param size How many.
   * @returns A view of them; the same one as long as it is asked for as many.
   */
  beginning(size: number): Uint8Array {
    if (this.#beginning.length !== size) this.#beginning = this.bytes.subarray(0, size);
    return this.#beginning;
  }
}
