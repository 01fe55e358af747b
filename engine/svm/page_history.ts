/**
 * How a page of guest memory came to hold what it holds, to see without looking at it that it is what
 * it was before.
 *
 * @module
 */

/** Writes that are remembered of a page at most. */
const MOST = 4;
/** What is remembered of each: what the page held before, what was written, and what it holds since. */
const BEFORE = 0, WRITTEN = 1, SINCE = 2, WRITE_SIZE = 3;

/** What a page was set to as a whole, and what was written to it since. */
export class PageHistory {
  static #contents = 0;
  static #listsMade = 0;
  /** The version that the page has if nobody wrote it but what is remembered. */
  #version = -1;
  #content = 0;
  #count = 0;
  /** What the first writes, and those in their place before, made of which content. */
  readonly #writes = new Float64Array(MOST * WRITE_SIZE);
  /** The lists that were written, and where each begins. */
  readonly #lists: Int32Array[] = [];
  readonly #places: number[] = [];

  /** A number for a content of a page that no other has. */
  static another(): number {
    return ++PageHistory.#contents;
  }

  /** A number for a list of constants that no other list has. */
  static anotherList(): number {
    return ++PageHistory.#listsMade;
  }

  /**
   * The number of what the page holds: whenever it has the same one, it holds the same.
   *
   * @param version The page's version.
   * @returns The number; 0 where it is not known.
   */
  contentAt(version: number): number {
    return this.#version === version ? this.#content : 0;
  }

  /**
   * The page was set as a whole.
   *
   * @param content Number of its content.
   * @param version Its version behind that.
   */
  begin(content: number, version: number): void {
    this.#content = content;
    this.#version = version;
    this.#count = 0;
  }

  /**
   * A list of constants was written to the page: how many stretches, then place, length and words of
   * each.
   *
   * @param list Where it is among other numbers; nobody changes them.
   * @param at Where it begins.
   * @param number Its number, the same for the same list.
   * @param version The page's version behind that.
   */
  wrote(list: Int32Array, at: number, number: number, version: number): void {
    const count = this.#count, writes = this.#writes, i = count * WRITE_SIZE;
    if (this.#version !== version - 1 || count === MOST) return;
    this.#version = version;
    this.#count = count + 1;
    this.#lists[count] = list;
    this.#places[count] = at;
    if (writes[i + BEFORE] !== this.#content || writes[i + WRITTEN] !== number) {
      writes[i + BEFORE] = this.#content;
      writes[i + WRITTEN] = number;
      writes[i + SINCE] = PageHistory.another();
    }
    this.#content = writes[i + SINCE] as number;
  }

  /**
   * Undoes what was written.
   *
   * @param page The page.
   * @param content What it was set to.
   */
  undo(page: Uint8Array, content: Uint8Array): void {
    for (let i = 0; i < this.#count; i++) {
      const list = this.#lists[i] as Int32Array;
      let at = this.#places[i] as number;
      for (let stretches = list[at++] as number; stretches > 0; stretches--) {
        let to = (list[at++] as number) * 4;
        const length = list[at++] as number, end = to + length * 4;
        for (; to < end; to++) page[to] = content[to] as number;
        at += length;
      }
    }
  }
}
