/**
 * Numbers for contents, to know again what was looked at before without keeping text of it.
 *
 * @module
 */

/** Contents that are told apart at the same time. */
export const MOST_CONTENTS: number = 1 << 15;

interface Known {
  readonly words: Int32Array;
  readonly id: number;
}

/**
 * Gives contents numbers, the same to the same. A number is never given again for another content; one
 * that was not met for long may get another.
 */
export class ContentNumbers {
  readonly #known = new Map<number, Known[]>();
  #last = 0;
  #size = 0;

  /**
   * The number of a content.
   *
   * @param words Words, the first of which are the content.
   * @param length How many.
   */
  of(words: Int32Array, length: number): number {
    let sum = length;
    for (let i = 0; i < length; i++) sum = Math.imul(sum ^ (words[i] as number), 0x01000193);
    let known = this.#known.get(sum);
    if (known === undefined) this.#known.set(sum, known = []);
    for (const one of known) if (same(one.words, words, length)) return one.id;
    if (this.#size === MOST_CONTENTS) {
      this.#known.clear();
      this.#known.set(sum, known = []);
      this.#size = 0;
    }
    this.#size++;
    known.push({ words: words.slice(0, length), id: ++this.#last });
    return this.#last;
  }
}

function same(a: Int32Array, b: Int32Array, length: number): boolean {
  if (a.length !== length) return false;
  for (let i = 0; i < length; i++) if (a[i] !== b[i]) return false;
  return true;
}
