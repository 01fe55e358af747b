/**
 * A list that is emptied and filled again and again.
 *
 * @module
 */

/** Items that are kept room for. */
const ROOM = 64;

/** A list whose memory is used again: an array that is emptied gives its own away. */
export class RefilledList<T> {
  readonly #items: T[] = [];
  #length = 0;

  /** How many there are. */
  get length(): number {
    return this.#length;
  }

  /**
   * The item at a place.
   *
   * @param index Its number.
   * @returns The item; undefined behind the last one.
   */
  at(index: number): T | undefined {
    return index < this.#length ? this.#items[index] : undefined;
  }

  /** Appends an item. */
  push(item: T): void {
    this.#items[this.#length++] = item;
  }

  /** Keeps those items alone that are wanted. */
  retain(wanted: (item: T) => boolean): void {
    let length = 0;
    for (let i = 0; i < this.#length; i++) {
      const item = this.#items[i] as T;
      if (wanted(item)) this.#items[length++] = item;
    }
    this.#length = length;
  }

  /** Empties it. */
  clear(): void {
    this.#length = 0;
    if (this.#items.length > ROOM) this.#items.length = ROOM;
  }
}
