/**
 * What a path does as a list of numbers, while it is put together.
 *
 * @module
 */

/**
 * A path as one list of numbers, so that little memory is touched, all of it in a row. Places are
 * numbers of words, in the state, in a page or in an image. Copies are told by stretches: how many,
 * then place and slot of the first and how many it are.
 */
export interface PathList {
  /**
   * First the words that are carried elsewhere, whatever they hold, copied to their slots: those of
   * the state; then of how many pages, and for each its number and those of it.
   */
  readonly numbers: Int32Array;
  /** How many slots there are. */
  readonly slots: number;
  /**
   * Where the program begins: for each stage the page that the work area becomes a copy of at first,
   * or -1; its constants: how many stretches, then place, length and values of each; its copies; and
   * the same of its pages: how many, then for each its number, a number that tells its constants from
   * others, constants and copies.
   */
  readonly program: number;
  /** Where guards begin: number and value of each, those of the state first. */
  readonly guards: number;
  /** Where the other guards begin, and where they end. */
  readonly others: number;
  readonly guardsEnd: number;
  /**
   * For each stage where its image begins, or -1: how many words it has, what they are that follow
   * from guards, and copies of the others.
   */
  readonly images: readonly number[];
}

/** A list of signed 32-bit numbers that grows, in memory that is used again. */
export class Program {
  #numbers: Int32Array;
  /** How many there are. */
  length = 0;

  /**
   * Begins with none.
   *
   * @param room For how many there is room at first.
   */
  constructor(room = 1 << 8) {
    this.#numbers = new Int32Array(room);
  }

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

  /** Appends some numbers. */
  append(numbers: ArrayLike<number>): void {
    const end = this.length + numbers.length;
    while (end > this.#numbers.length) this.#grow();
    this.#numbers.set(numbers, this.length);
    this.length = end;
  }

  /** Copies all of them to a place of an array. */
  putInto(array: Int32Array, at: number): void {
    array.set(this.#numbers.subarray(0, this.length), at);
  }

  /**
   * The numbers, with room for more behind them: who puts some there says so by the length.
   *
   * @param count For how many.
   */
  room(count: number): Int32Array {
    while (this.length + count > this.#numbers.length) this.#grow();
    return this.#numbers;
  }

  /** Appends copies, of which another list has place and slot of each. */
  copies(list: Program): void {
    const stretches = this.later();
    let length = -1, place = -1, slot = -1;
    for (let i = 0; i < list.length; i += 2) {
      if (list.at(i) !== place || list.at(i + 1) !== slot) {
        this.count(stretches);
        this.push(place = list.at(i));
        this.push(slot = list.at(i + 1));
        length = this.later();
      }
      this.count(length);
      place++;
      slot++;
    }
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

  #grow(): void {
    const more = new Int32Array(2 * this.#numbers.length);
    more.set(this.#numbers);
    this.#numbers = more;
  }
}
