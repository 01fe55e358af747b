/**
 * What a path does as a list of numbers, while it is put together.
 *
 * @module
 */

/**
 * What a path does, as two lists of numbers, so that little memory is touched. Places are numbers of
 * words, in the state or in a page.
 */
export interface PathLists {
  /**
   * Words that are carried elsewhere, whatever they hold: of the state, how many, then place and slot
   * of each; then of how many pages, and for each its number, how many, and their places and slots.
   */
  readonly carried: Int32Array;
  /** How many slots there are. */
  readonly slots: number;
  /**
   * For each stage the page that the work area becomes a copy of at first, or -1; its copies: how
   * many, then place and slot of each; its constants: how many stretches, then place, length and
   * values of each; and the same of its pages: how many, then for each its number, copies and
   * constants.
   */
  readonly program: Int32Array;
}

/** A list of signed 32-bit numbers that grows, in memory that is used again. */
export class Program {
  #numbers = new Int32Array(1 << 10);
  /** How many there are. */
  length = 0;

  /** Begins anew. */
  clear(): void {
    this.length = 0;
  }

  /** Appends a number. */
  push(number: number): void {
    if (this.length === this.#numbers.length) this.#grow();
    this.#numbers[this.length++] = number;
  }

  /** One of them. */
  at(index: number): number {
    return this.#numbers[index] as number;
  }

  /** Appends all of another list. */
  append(list: Program): void {
    while (this.length + list.length > this.#numbers.length) this.#grow();
    this.#numbers.set(list.#numbers.subarray(0, list.length), this.length);
    this.length += list.length;
  }

  /** Appends a count that is not known yet: the place of it, for {@linkcode Program.count}. */
  later(): number {
    this.push(0);
    return this.length - 1;
  }

  /** Adds one to a count. */
  count(at: number): void {
    this.#numbers[at]!++;
  }

  /** A copy of what there is. */
  copy(): Int32Array {
    return this.#numbers.slice(0, this.length);
  }

  #grow(): void {
    const more = new Int32Array(2 * this.#numbers.length);
    more.set(this.#numbers);
    this.#numbers = more;
  }
}
