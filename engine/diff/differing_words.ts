/**
 * Finding the words in which two stretches of memory differ.
 *
 * @module
 */
import { Buffer } from "node:buffer";

/** Words that are looked at first at most. */
const MOST_WORDS = 512;

/** The words in which two stretches of memory differ, which are mostly among those of before. */
export class DifferingWords {
  readonly #copy: Uint8Array;
  readonly #words: Uint32Array;
  #known: number[] = [];

  /**
   * Knows none yet.
   *
   * @param size Bytes of each stretch.
   */
  constructor(size: number) {
    this.#copy = new Uint8Array(size);
    this.#words = new Uint32Array(this.#copy.buffer);
  }

  /**
   * Numbers of words, all that differ among them.
   *
   * @param x One stretch.
   * @param y The other.
   * @param a The first stretch as words, which others may follow.
   * @param b The other as words.
   * @returns The numbers in order.
   */
  find(x: Uint8Array, y: Uint8Array, a: Uint32Array, b: Uint32Array): readonly number[] {
    const copy = this.#copy, words = this.#words, known = this.#known;
    copy.set(y);
    for (let i = 0; i < known.length; i++) words[known[i] as number] = a[known[i] as number]!;
    if (Buffer.compare(x, copy) === 0) return known;
    const found: number[] = [];
    for (let i = 0; i < words.length; i++) if (a[i] !== b[i]) found.push(i);
    const all = [...new Set([...known, ...found])].sort((i, j) => i - j);
    return this.#known = all.length > MOST_WORDS ? found : all;
  }
}
