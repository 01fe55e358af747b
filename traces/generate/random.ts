/**
 * Small deterministic random numbers: the same seed gives the same sequence on
 * every machine.
 *
 * @module
 */

/**
 * A generator of pseudo-random numbers: xoshiro128**, its state filled by
 * splitmix32.
 *
 * @example
 * ```ts
 * import { Random } from "@vmtape/vmtape/traces";
 * if (new Random(1).u32() !== new Random(1).u32()) throw new Error();
 * ```
 */
export class Random {
  readonly #s = new Uint32Array(4);

  /**
   * Begins the sequence of a seed.
   *
   * @param seed Any integer; its low 32 bits count.
   */
  constructor(seed: number) {
    let z = seed >>> 0;
    for (let i = 0; i < 4; i++) {
      z = z + 0x9e3779b9 >>> 0;
      let t = z ^ z >>> 16;
      t = Math.imul(t, 0x21f0aaad);
      t ^= t >>> 15;
      t = Math.imul(t, 0x735a2d97);
      this.#s[i] = t ^ t >>> 15;
    }
  }

  /** The next number, below 2^32. */
  u32(): number {
    const s = this.#s;
    const result = Math.imul(rotate(Math.imul(s[1]!, 5), 7), 9) >>> 0;
    const t = s[1]! << 9;
    s[2] = s[2]! ^ s[0]!;
    s[3] = s[3]! ^ s[1]!;
    s[1] = s[1]! ^ s[2]!;
    s[0] = s[0]! ^ s[3]!;
    s[2] = s[2]! ^ t;
    s[3] = rotate(s[3]!, 11);
    return result;
  }

  /** A 64-bit number. */
  u64(): bigint {
    return BigInt(this.u32()) << 32n | BigInt(this.u32());
  }

  /** An integer below `limit`. */
  below(limit: number): number {
    return Math.floor(this.u32() / 2 ** 32 * limit);
  }

  /** True `percent` times in a hundred. */
  chance(percent: number): boolean {
    return this.below(100) < percent;
  }

  /** A whole number from -`most` to `most`. */
  step(most: number): number {
    return this.below(2 * most + 1) - most;
  }

  /** Whether something happens that happens once in so many times. */
  once(times: number): boolean {
    return this.below(times) === 0;
  }

  /** One of the items. */
  pick<T>(items: readonly T[]): T {
    return items[this.below(items.length)]!;
  }

  /** One of the items, more often those of greater weight. */
  weighted<T extends { readonly weight: number }>(items: readonly T[]): T {
    let at = this.below(items.reduce((sum, item) => sum + item.weight, 0));
    for (const item of items) {
      at -= item.weight;
      if (at < 0) return item;
    }
    return items[items.length - 1]!;
  }
}

function rotate(value: number, by: number): number {
  return value << by | value >>> 32 - by;
}
