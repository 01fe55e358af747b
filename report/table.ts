/**
 * Numbering what is the same once.
 *
 * @module
 */

/** Numbers things that are the same once. */
export class Table<T> {
  readonly items: T[] = [];
  readonly #index = new Map<string, number>();

  /** The number of an item; -1 when there is no room for another. */
  add(key: string, make: () => T, most = Infinity): number {
    let index = this.#index.get(key);
    if (index === undefined) {
      if (this.items.length >= most) return -1;
      index = this.items.length;
      this.items.push(make());
      this.#index.set(key, index);
    }
    return index;
  }
}
