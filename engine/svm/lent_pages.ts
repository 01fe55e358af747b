/**
 * Pages that a memory has lent to its only copy, to use them again once nobody does.
 *
 * @module
 */

/** Pages that were a memory's own, and which only its last copy shares. */
export class LentPages {
  readonly #numbers: number[] = [];
  readonly #pages: Uint8Array[] = [];

  /** Lends a page by its number. */
  lend(number: number, page: Uint8Array): void {
    this.#numbers.push(number);
    this.#pages.push(page);
  }

  /**
   * The copy gives up what it shares: pages that the memory has replaced are nobody's then.
   *
   * @param now The memory's pages, by their numbers.
   * @param spare Receives the others.
   */
  takeBack(now: readonly (Uint8Array | undefined)[], spare: Uint8Array[]): void {
    const numbers = this.#numbers, pages = this.#pages;
    let left = 0;
    for (let i = 0; i < numbers.length; i++) {
      const number = numbers[i] as number, page = pages[i] as Uint8Array;
      if (now[number] !== page) {
        spare.push(page);
        continue;
      }
      numbers[left] = number;
      pages[left++] = page;
    }
    numbers.length = pages.length = left;
  }

  /** They may be anybody's. */
  forget(): void {
    this.#numbers.length = this.#pages.length = 0;
  }
}
