/**
 * What pages of guest memory were before they were written, so that it can be told later.
 *
 * @module
 */

/** Copies of pages, in memory that is used again. */
export class PageJournal {
  readonly #numbers: number[] = [];
  readonly #copies: (Uint8Array | undefined)[] = [];
  /** Copies of which one was needed before. */
  readonly #spare: Uint8Array[] = [];

  /** How many pages it has. */
  get length(): number {
    return this.#numbers.length;
  }

  /** Begins anew. */
  reset(): void {
    for (const copy of this.#copies) if (copy !== undefined) this.#spare.push(copy);
    this.#numbers.length = this.#copies.length = 0;
  }

  /** Keeps a page by its number; without one, that it was not there. */
  keep(number: number, page: Uint8Array | undefined): void {
    this.#numbers.push(number);
    const copy = page && (this.#spare.pop() ?? new Uint8Array(page.length));
    if (page !== undefined) copy?.set(page);
    this.#copies.push(copy);
  }

  /** The number of the page that was kept as the i-th. */
  numberAt(i: number): number {
    return this.#numbers[i] as number;
  }

  /** What it was; undefined when it was not there. Valid until the journal begins anew. */
  pageAt(i: number): Uint8Array | undefined {
    return this.#copies[i];
  }
}
