/**
 * Sparse guest memory: pages of 4,096 bytes below a fixed limit, shared with a
 * base image until they are written.
 *
 * @module
 */

import type { AccessRecorder } from "./access.ts";
import { LentPages } from "./lent_pages.ts";
import { PageHistory } from "./page_history.ts";
import type { PageJournal } from "./page_journal.ts";

export type { PageJournal };

/** Bytes of a page of guest memory. */
export const PAGE_SIZE = 4096;

const ZERO_PAGE = new Uint8Array(PAGE_SIZE);
const ZERO_WORDS = new Uint32Array(PAGE_SIZE / 4);

/** Numbers of pages in order. Those that several memories share are not changed any more. */
interface PageNumbers {
  readonly list: number[];
  shared: boolean;
}

function share(numbers: PageNumbers): PageNumbers {
  numbers.shared = true;
  return numbers;
}

/** The numbers with one more, in its place. */
function withNumber(numbers: PageNumbers, number: number): PageNumbers {
  const own = numbers.shared ? { list: numbers.list.slice(), shared: false } : numbers;
  const { list } = own;
  let at = list.length;
  while (at > 0 && (list[at - 1] as number) > number) at--;
  list.splice(at, 0, number);
  return own;
}

/**
 * Guest physical memory. Reads of pages nobody wrote give zeros; addresses at
 * or above `size` are not backed by anything ({@linkcode GuestMemory.backed}).
 *
 * @example
 * ```ts
 * import { GuestMemory } from "@vmtape/vmtape/engine";
 * const memory = new GuestMemory(0x100000);
 * memory.write64(0x1000, 0x1234n);
 * if (memory.read64(0x1000) !== 0x1234n) throw new Error();
 * ```
 */
export class GuestMemory {
  /** Bytes that are backed, from guest physical address 0. */
  readonly size: number;
  /** Address below which userspace touched every page when it made the memory. */
  resident = 0;
  /** Counts, for each page, how often it was given out to be written. */
  readonly versions: Uint32Array;
  /** For each page, the generation in which it was last read as a page table. */
  readonly tables: Uint32Array;
  /** The generation of page tables that counts; to be raised when none counts any more. */
  generation = 1;
  /** Counts how often a table of the generation was given out to be written. */
  tableWrites = 0;
  /** Who follows what is read and written, if anyone; not what is given out as whole pages. */
  recorder: AccessRecorder | undefined = undefined;
  /** As many as there are: an array with far apart entries would be a hash table. */
  readonly #pages: (Uint8Array | undefined)[];
  /** Words of pages, where they were asked for, and which page each is of. */
  readonly #words: (Uint32Array | undefined)[] = [];
  readonly #wordsOf: (Uint8Array | undefined)[] = [];
  /** How pages came to hold what they hold, as far as somebody asked for it. */
  readonly #histories: (PageHistory | undefined)[] = [];
  /** Numbers of the pages that are there, in order. */
  #numbers: PageNumbers;
  readonly #owned: Uint8Array;
  /** Whether pages that are not its own may be written by whose they are. */
  #lent: boolean;
  static #made = 0;
  /** A number that no other memory has: a reference to a copy would keep it from being collected. */
  readonly #id = ++GuestMemory.#made;
  /** The last copy, and what it alone shares of what was this memory's own. */
  #last = 0;
  readonly #toCopy = new LentPages();
  /** What it is a copy of, until it becomes one of another; and whether others share its pages since. */
  #of = 0;
  #shared = false;
  /** Numbers of the pages that may be owned. */
  #mine: number[] = [];
  /** Pages that nothing refers to any more, to be used again. */
  readonly #spare: Uint8Array[] = [];
  /** Who keeps what pages were, and for each page the moment from which on it is kept already. */
  #journal: PageJournal | undefined;
  #moment = 0;
  readonly #kept: Uint32Array;

  /**
   * Makes memory that is all zero, or a copy.
   *
   * @param size Bytes of memory, a multiple of the page size.
   * @param base An image to start from; its pages are copied when first written.
   */
  constructor(size: number, base?: GuestMemory) {
    this.size = size;
    this.resident = base ? base.resident : 0;
    this.#lent = base !== undefined;
    this.#pages = base ? base.#pages.slice() : new Array(size / PAGE_SIZE).fill(undefined);
    this.#numbers = base ? share(base.#numbers) : { list: [], shared: false };
    this.#owned = new Uint8Array(size / PAGE_SIZE);
    this.versions = new Uint32Array(size / PAGE_SIZE);
    this.tables = new Uint32Array(size / PAGE_SIZE);
    this.#kept = new Uint32Array(size / PAGE_SIZE);
  }

  /**
   * Has what pages are now kept when they are first written.
   *
   * @param journal Who keeps it, from nothing; nobody when left out.
   */
  keepBefore(journal?: PageJournal): void {
    journal?.reset();
    this.#journal = journal;
    this.#moment++;
  }

  /**
   * Makes pages what they were when a journal began.
   *
   * @param journal The journal, of this memory or one that this one is a copy of.
   */
  undo(journal: PageJournal): void {
    for (let i = 0; i < journal.length; i++) {
      const gpa = journal.numberAt(i) * PAGE_SIZE, page = journal.pageAt(i);
      if (page === undefined) this.clear(gpa, gpa + PAGE_SIZE);
      else this.writable(gpa).set(page);
    }
  }

  #keep(index: number): void {
    if (this.#kept[index] === this.#moment) return;
    this.#kept[index] = this.#moment;
    this.#journal?.keep(index, this.#pages[index]);
  }

  /**
   * A copy that shares pages with this memory until either writes them.
   *
   * @param into A memory of the same size to become the copy, instead of a new one. Nothing may
   * share pages with it.
   * @returns The copy.
   */
  fork(into?: GuestMemory): GuestMemory {
    // What both share already has stayed as it is, unless it was somebody else's.
    const kept = into !== undefined && !into.#lent;
    const alone = into !== undefined && into.#id === this.#last && into.#of === this.#id &&
      !into.#shared;
    if (alone) this.#toCopy.takeBack(this.#pages, this.#spare);
    else this.#forgetCopy();
    this.#disown();
    const copy = this.#overlay(into, kept);
    copy.#lent = this.#lent;
    copy.#shared = false;
    copy.#of = this.#id;
    this.#last = copy.#id;
    this.#shared = true;
    return copy;
  }

  /** Other memory may share all pages from now on. */
  #disown(): void {
    const mine = this.#mine, owned = this.#owned;
    for (let i = 0; i < mine.length; i++) {
      const number = mine[i] as number;
      if (owned[number] !== 1) continue;
      owned[number] = 0;
      this.#toCopy.lend(number, this.#pages[number] as Uint8Array);
    }
    mine.length = 0;
  }

  /** Pages that were lent to the last copy may be anybody's. */
  #forgetCopy(): void {
    this.#last = 0;
    this.#toCopy.forget();
  }

  /**
   * A copy for the time in which this memory is not written, which costs this one nothing.
   *
   * @param into A memory of the same size to become the copy, instead of a new one. Nothing may
   * share pages with it.
   * @returns The copy.
   */
  overlay(into?: GuestMemory): GuestMemory {
    return this.#overlay(into, false);
  }

  #overlay(into: GuestMemory | undefined, kept: boolean): GuestMemory {
    if (into === undefined || into.size !== this.size) return new GuestMemory(this.size, this);
    into.#lent = true;
    into.#of = 0;
    into.#recycle();
    const to = into.#pages, from = this.#pages;
    if (into.#numbers !== this.#numbers) {
      const { list } = into.#numbers;
      for (let i = 0; i < list.length; i++) {
        const number = list[i] as number;
        to[number] = undefined;
        into.versions[number]!++;
      }
      into.#numbers = share(this.#numbers);
    }
    const { list } = this.#numbers;
    for (let i = 0; i < list.length; i++) {
      const number = list[i] as number, page = from[number];
      if (kept && to[number] === page) continue;
      to[number] = page;
      into.versions[number]!++;
    }
    into.resident = this.resident;
    into.generation++;
    return into;
  }

  /** Keeps the pages of its own to be used again; something else is about to be in their place. */
  #recycle(): void {
    const mine = this.#mine, owned = this.#owned;
    for (let i = 0; i < mine.length; i++) {
      const number = mine[i] as number;
      if (owned[number] !== 1) continue;
      owned[number] = 0;
      this.#spare.push(this.#pages[number] as Uint8Array);
    }
    mine.length = 0;
  }

  /**
   * Whether the page that holds `gpa` is there to be written without being
   * allocated first: it was written before, or lies below {@linkcode GuestMemory.resident}.
   */
  allocated(gpa: number): boolean {
    this.recorder?.readAllocated(gpa);
    return gpa < this.resident || this.#pages[gpa / PAGE_SIZE | 0] !== undefined;
  }

  /** Whether every byte of the range is backed by memory. */
  backed(gpa: number, length = 1): boolean {
    return gpa >= 0 && gpa + length <= this.size;
  }

  /** The page that holds `gpa`, to be read only. */
  page(gpa: number): Uint8Array {
    return this.#pages[gpa / PAGE_SIZE | 0] ?? ZERO_PAGE;
  }

  /** The 32-bit words of the page that holds `gpa`, to be read only. */
  words(gpa: number): Uint32Array {
    const index = gpa / PAGE_SIZE | 0;
    const page = this.#pages[index];
    if (page === undefined) return ZERO_WORDS;
    return this.#wordsOf[index] === page
      ? this.#words[index] as Uint32Array
      : this.#lookAt(index, page);
  }

  /** The 32-bit words of the page that holds `gpa`, to be written. The address must be backed. */
  writableWords(gpa: number): Uint32Array {
    this.writable(gpa);
    return this.words(gpa);
  }

  /**
   * Writes constants to the page that holds `gpa`. The address must be backed.
   *
   * @param gpa The address.
   * @param list Numbers among which they are: one that {@linkcode PageHistory.anotherList} gave
   * them, how many stretches, then place, length and words of each. Nobody changes them.
   * @param at Where that begins.
   * @returns What follows it.
   */
  writeConstants(gpa: number, list: Int32Array, at: number): number {
    const page = this.writableWords(gpa);
    this.wroteConstants(gpa, list, at);
    let i = at + 1;
    for (let stretches = list[i++] as number; stretches > 0; stretches--) {
      let to = list[i++] as number;
      for (let n = list[i++] as number; n > 0; n--) page[to++] = list[i++] as number;
    }
    return i;
  }

  /** Is told of constants, as {@linkcode GuestMemory.writeConstants} writes them, of who was given the page for them alone. */
  wroteConstants(gpa: number, list: Int32Array, at: number): void {
    const index = gpa / PAGE_SIZE | 0;
    this.#histories[index]
      ?.wrote(list, at + 1, list[at] as number, this.versions[index] as number);
  }

  /**
   * Notes that a page was set as a whole: from now on it is remembered what becomes of it.
   *
   * @param page Its number.
   * @param content Number of its content, as {@linkcode PageHistory.another} gives them.
   */
  setTo(page: number, content: number): void {
    const histories = this.#histories;
    // Without holes it is no hash table.
    while (histories.length <= page) histories.push(undefined);
    const history = histories[page] ??= new PageHistory();
    history.begin(content, this.versions[page] as number);
  }

  /**
   * The number of what a page holds, by its number: whenever it has the same one, it holds the same.
   *
   * @param page Its number.
   * @returns The number; 0 where it is not known.
   */
  contentOf(page: number): number {
    return this.#histories[page]?.contentAt(this.versions[page] as number) ?? 0;
  }

  /**
   * Makes a page again what it was set to as a whole, if it is known what was written since.
   *
   * @param page Its number.
   * @param bytes What it was set to.
   * @returns Whether that is known.
   */
  undoWrites(page: number, bytes: Uint8Array): boolean {
    if (this.contentOf(page) === 0) return false;
    this.#histories[page]?.undo(this.writable(page * PAGE_SIZE), bytes);
    return true;
  }

  #lookAt(index: number, given: Uint8Array): Uint32Array {
    // A page that is shared may lie anywhere: nobody writes it, so that a copy is as good.
    const page = given.byteOffset % 4 === 0 ? given : given.slice();
    const words = this.#words;
    // Without holes it is no hash table.
    while (words.length <= index) {
      words.push(undefined);
      this.#wordsOf.push(undefined);
    }
    this.#pages[index] = this.#wordsOf[index] = page;
    return words[index] = new Uint32Array(page.buffer, page.byteOffset, PAGE_SIZE / 4);
  }

  /** The page that holds `gpa`, to be written. The address must be backed. */
  writable(gpa: number): Uint8Array {
    const index = gpa / PAGE_SIZE | 0;
    const page = this.#pages[index];
    if (this.#journal !== undefined) this.#keep(index);
    this.versions[index]!++;
    if (this.tables[index] === this.generation) this.tableWrites++;
    if (page !== undefined && this.#owned[index] === 1) return page;
    const copy = this.#copy(page);
    this.#own(index, copy);
    return copy;
  }

  /** Puts a page of its own in its place. */
  #own(index: number, page: Uint8Array): void {
    if (this.#pages[index] === undefined) this.#numbers = withNumber(this.#numbers, index);
    this.#pages[index] = page;
    this.#owned[index] = 1;
    this.#mine.push(index);
  }

  /** Replaces the page that holds `gpa` by a copy of `bytes`, a whole page. The address must be backed. */
  replace(gpa: number, bytes: Uint8Array): void {
    const index = gpa / PAGE_SIZE | 0;
    const page = this.#pages[index];
    if (page !== undefined && this.#owned[index] === 1) {
      this.writable(gpa).set(bytes);
      return;
    }
    if (this.#journal !== undefined) this.#keep(index);
    this.versions[index]!++;
    if (this.tables[index] === this.generation) this.tableWrites++;
    this.#own(index, this.#copy(bytes));
  }

  /** Makes the page that holds `gpa` one that nobody changes any more; it is copied when written. */
  share(gpa: number, page: Uint8Array): void {
    const index = gpa / PAGE_SIZE | 0;
    const before = this.#pages[index];
    if (before !== undefined && this.#owned[index] === 1) this.#spare.push(before);
    this.versions[index]!++;
    if (this.tables[index] === this.generation) this.tableWrites++;
    if (before === undefined) this.#numbers = withNumber(this.#numbers, index);
    this.#pages[index] = page;
    this.#owned[index] = 0;
  }

  /** Makes all of it zero and untouched again. */
  reset(): void {
    this.#recycle();
    for (const number of this.#numbers.list) {
      this.#pages[number] = undefined;
      this.versions[number]!++;
    }
    this.#numbers = { list: [], shared: false };
    this.generation++;
  }

  #copy(page: Uint8Array | undefined): Uint8Array {
    const spare = this.#spare.pop();
    if (spare === undefined) return page === undefined ? new Uint8Array(PAGE_SIZE) : page.slice();
    if (page === undefined) spare.fill(0);
    else spare.set(page);
    return spare;
  }

  /** Numbers of the pages that were ever written, in order; valid until the next is written. */
  pages(): readonly number[] {
    return this.#numbers.list;
  }

  /** One more than the number of the last page that was ever written. */
  get extent(): number {
    return 1 + (this.#numbers.list.at(-1) ?? -1);
  }

  /** Whether a page, by its number, was ever written. */
  written(page: number): boolean {
    return this.#pages[page] !== undefined;
  }

  /** Zeroes `[from, to)`, whole pages. */
  clear(from: number, to: number): void {
    const first = from / PAGE_SIZE, end = to / PAGE_SIZE;
    for (let i = first; i < end; i++) {
      this.#pages[i] = undefined;
      this.versions[i]!++;
      this.#owned[i] = 0;
    }
    const list = this.#numbers.list.filter((number) => number < first || number >= end);
    this.#numbers = { list, shared: false };
  }

  /** Takes the pages of `[from, to)` from another memory; they stay shared until written. */
  adopt(other: GuestMemory, from: number, to: number): void {
    this.clear(from, to);
    other.#forgetCopy();
    other.#shared = true;
    for (let i = from / PAGE_SIZE; i < to / PAGE_SIZE; i++) {
      const page = other.#pages[i];
      other.#owned[i] = 0;
      if (page === undefined) continue;
      this.#pages[i] = page;
      this.#numbers = withNumber(this.#numbers, i);
    }
  }

  /** Reads one byte; unbacked bytes read as 0. */
  read8(gpa: number): number {
    if (!this.backed(gpa)) return 0;
    this.recorder?.readMemory(gpa, 1);
    return this.page(gpa)[gpa % PAGE_SIZE] ?? 0;
  }

  /** Reads a little-endian value of up to 4 bytes. */
  read(gpa: number, size: number): number {
    const at = gpa % PAGE_SIZE;
    let value = 0;
    if (at + size <= PAGE_SIZE && this.backed(gpa, size)) {
      this.recorder?.readMemory(gpa, size);
      const page = this.page(gpa);
      for (let i = size - 1; i >= 0; i--) value = value * 256 + (page[at + i] as number);
      return value;
    }
    for (let i = size - 1; i >= 0; i--) value = value * 256 + this.read8(gpa + i);
    return value;
  }

  /** Reads a little-endian 64-bit value. */
  read64(gpa: number): bigint {
    return BigInt(this.read(gpa, 4)) | BigInt(this.read(gpa + 4, 4)) << 32n;
  }

  /** Writes one byte; unbacked bytes are dropped. */
  write8(gpa: number, value: number): void {
    if (!this.backed(gpa)) return;
    this.recorder?.writeMemory(gpa, 1);
    this.writable(gpa)[gpa % PAGE_SIZE] = value;
  }

  /** Writes a little-endian value of up to 4 bytes. */
  write(gpa: number, size: number, value: number): void {
    for (let i = 0; i < size; i++) {
      this.write8(gpa + i, value % 256);
      value = Math.floor(value / 256);
    }
  }

  /** Writes a little-endian 64-bit value. */
  write64(gpa: number, value: bigint): void {
    this.write(gpa, 4, Number(value & 0xffffffffn));
    this.write(gpa + 4, 4, Number(value >> 32n & 0xffffffffn));
  }

  /** Writes bytes; unbacked bytes are dropped. */
  writeBytes(gpa: number, bytes: Uint8Array): void {
    for (let i = 0; i < bytes.length;) {
      const at = gpa + i;
      const length = Math.min(bytes.length - i, PAGE_SIZE - at % PAGE_SIZE);
      if (this.backed(at, length)) {
        this.recorder?.writeMemory(at, length);
        this.writable(at).set(bytes.subarray(i, i + length), at % PAGE_SIZE);
      }
      i += length;
    }
  }
}
