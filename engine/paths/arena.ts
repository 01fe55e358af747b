/**
 * Memory for lists of numbers that are kept: what is recorded one after the other lies side by side,
 * and is there to be followed in that order.
 *
 * @module
 */

/** Numbers that are allocated at a time; a longer list has memory of its own. */
const SLAB = 1 << 15;

/** Hands out memory for lists of signed 32-bit numbers. */
export class Arena {
  #slab = new Int32Array(0);
  #used = 0;

  /**
   * Memory for a list; all zero.
   *
   * @param length How many numbers it has.
   */
  take(length: number): Int32Array {
    if (length > SLAB) return new Int32Array(length);
    if (this.#used + length > this.#slab.length) {
      this.#slab = new Int32Array(SLAB);
      this.#used = 0;
    }
    return this.#slab.subarray(this.#used, this.#used += length);
  }
}
