/**
 * Knowing contents again that were looked at before, without keeping text of them.
 *
 * @module
 */

/** Contents that are told apart at the same time. */
export const MOST_CONTENTS: number = 1 << 15;

interface Known<T> {
  readonly words: Int32Array;
  readonly value: T;
}

/** What is known of contents; all is forgotten when it becomes too much. */
export class KnownContents<T> {
  readonly #most: number;
  readonly #known = new Map<number, Known<T>[]>();
  #size = 0;

  /**
   * Knows none.
   *
   * @param most How many are kept at most.
   */
  constructor(most: number) {
    this.#most = most;
  }

  /**
   * What is known of a content.
   *
   * @param words Words, the first of which are the content.
   * @param length How many.
   * @param make Finds it out where it is not known.
   */
  of(words: Int32Array, length: number, make: () => T): T {
    let sum = length;
    for (let i = 0; i < length; i++) sum = Math.imul(sum ^ (words[i] as number), 0x01000193);
    const known = this.#known.get(sum);
    if (known !== undefined) {
      for (const one of known) if (same(one.words, words, length)) return one.value;
    }
    if (this.#size === this.#most) {
      this.#known.clear();
      this.#size = 0;
    }
    this.#size++;
    const found = { words: words.slice(0, length), value: make() };
    const alike = this.#known.get(sum);
    if (alike === undefined) this.#known.set(sum, [found]);
    else alike.push(found);
    return found.value;
  }
}

/**
 * Gives contents numbers, the same to the same. A number is never given again for another content; one
 * that was not met for long may get another.
 */
export class ContentNumbers {
  readonly #known = new KnownContents<number>(MOST_CONTENTS);
  #last = 0;
  readonly #next = () => ++this.#last;

  /**
   * The number of a content.
   *
   * @param words Words, the first of which are the content.
   * @param length How many.
   */
  of(words: Int32Array, length: number): number {
    return this.#known.of(words, length, this.#next);
  }
}

function same(a: Int32Array, b: Int32Array, length: number): boolean {
  if (a.length !== length) return false;
  for (let i = 0; i < length; i++) if (a[i] !== b[i]) return false;
  return true;
}
