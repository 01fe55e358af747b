/**
 * What a path does as a list of numbers, while it is put together.
 *
 * @module
 */

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
    if (this.length === this.#numbers.length) {
      const more = new Int32Array(2 * this.length);
      more.set(this.#numbers);
      this.#numbers = more;
    }
    this.#numbers[this.length++] = number;
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
}
