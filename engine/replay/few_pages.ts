/**
 * Guest memory of a VMRUN that a log shows without memory: pages may be anywhere, and are few.
 *
 * @module
 */
import { GuestMemory, PAGE_SIZE, type PageJournal } from "../svm/memory.ts";
import { HOLE } from "./fill_unknown.ts";

/** What was asked of memory meanwhile. */
export class AskedPages {
  /** Numbers of pages that nothing was written to. */
  readonly empty: Set<number> = new Set();
  /** Whether anything else was asked for, or written. */
  more = false;
}

/** Guest memory at any address, of which a few pages are used. */
export class FewPages extends GuestMemory {
  /** Where what is asked for is noted, if somebody wants to know. */
  asked: AskedPages | undefined;
  readonly #pages: Map<number, Uint8Array>;
  readonly #limit: number;
  #journal: PageJournal | undefined;
  /** Pages of before. */
  readonly #spare: Uint8Array[] = [];

  constructor(physicalBits: number, pages: Iterable<readonly [number, Uint8Array]> = []) {
    super(0);
    this.#limit = 2 ** physicalBits;
    this.#pages = new Map(pages);
  }

  /** Begins anew, without a page. */
  begin(): void {
    for (const page of this.#pages.values()) this.#spare.push(page);
    this.#pages.clear();
    this.#journal = this.asked = undefined;
  }

  override fork(): GuestMemory {
    if (this.asked !== undefined) this.asked.more = true;
    const copy = new FewPages(Math.log2(this.#limit));
    for (const [at, page] of this.#pages) copy.#pages.set(at, page.slice());
    return copy;
  }

  override overlay(): GuestMemory {
    return this.fork();
  }

  override backed(gpa: number, length = 1): boolean {
    return gpa >= 0 && gpa + length <= this.#limit - HOLE;
  }

  override allocated(): boolean {
    return true;
  }

  override page(gpa: number): Uint8Array {
    const at = Math.floor(gpa / PAGE_SIZE), page = this.#pages.get(at);
    if (this.asked !== undefined) {
      if (page === undefined) this.asked.empty.add(at);
      else this.asked.more = true;
    }
    return page ?? NOTHING;
  }

  /** Whether something was written to a page. */
  has(number: number): boolean {
    return this.#pages.has(number);
  }

  override words(gpa: number): Uint32Array {
    const at = Math.floor(gpa / PAGE_SIZE);
    let page = this.page(gpa);
    if (page.byteOffset % 4 !== 0) this.#pages.set(at, page = page.slice());
    return new Uint32Array(page.buffer, page.byteOffset, PAGE_SIZE / 4);
  }

  override writable(gpa: number): Uint8Array {
    if (this.asked !== undefined) this.asked.more = true;
    return this.#pages.get(Math.floor(gpa / PAGE_SIZE)) ?? this.#add(gpa).fill(0);
  }

  /** A page that is not there yet, with whatever in it. */
  #add(gpa: number): Uint8Array {
    const at = Math.floor(gpa / PAGE_SIZE), page = this.#spare.pop() ?? new Uint8Array(PAGE_SIZE);
    this.#journal?.keep(at, undefined);
    this.#pages.set(at, page);
    return page;
  }

  override keepBefore(journal?: PageJournal): void {
    journal?.reset();
    this.#journal = journal;
    for (const [at, page] of this.#pages) journal?.keep(at, page);
  }

  override clear(from: number, to: number): void {
    if (this.asked !== undefined) this.asked.more = true;
    for (let gpa = from; gpa < to; gpa += PAGE_SIZE) this.#pages.delete(gpa / PAGE_SIZE);
  }

  override replace(gpa: number, bytes: Uint8Array): void {
    if (this.asked !== undefined) this.asked.more = true;
    const page = this.#pages.get(Math.floor(gpa / PAGE_SIZE)) ?? this.#add(gpa);
    page.set(bytes);
  }
}

const NOTHING = new Uint8Array(PAGE_SIZE);
