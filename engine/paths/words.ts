/**
 * Words as a run that is recorded leaves them: where each comes from, and what is known of it.
 *
 * @module
 */
import { SETTLED } from "../svm/access.ts";
import type { WordNumber } from "./guards.ts";

/** A word that follows from guards alone. */
export const FOLLOWS = -1;

/** What is known of a word that may have been written. */
export const DIRTY = 1, WRITTEN = 2;
/** The path depends on what it was. */
export const GUARD = 4;
/** It comes from elsewhere. */
const PLACED = 16;
/** What it was is carried elsewhere. */
const CARRIED = 32;

/** Words of the state, or of a page of guest memory, as the run leaves them. */
export class Words {
  /** Number of the first. */
  first: WordNumber = 0;
  /** What is known of each. */
  readonly marks: Uint8Array;
  /** Where each comes from that comes from elsewhere. */
  readonly #origins: Int32Array;
  /** What each was that is a guard. */
  readonly #values: Uint32Array;
  /** Number of each among those that are carried, if it is. */
  readonly #slots: Int32Array;
  /** Those that were set since something was last told, and how many. */
  readonly #dirty: Int32Array;
  #count = 0;

  /**
   * Makes room.
   *
   * @param count For how many.
   */
  constructor(count: number) {
    this.marks = new Uint8Array(count);
    this.#origins = new Int32Array(count);
    this.#values = new Uint32Array(count);
    this.#slots = new Int32Array(count);
    this.#dirty = new Int32Array(count);
  }

  /** Each is what it was. */
  begin(first: WordNumber): void {
    this.first = first;
    this.marks.fill(0);
    this.#count = 0;
  }

  /** The number of the word that a word comes from; or {@linkcode FOLLOWS}. */
  from(word: number): number {
    return ((this.marks[word] as number) & PLACED) === 0
      ? this.first + word
      : this.#origins[word] as number;
  }

  /** Says where a word comes from of which nobody asks what became of it. */
  place(word: number, from: number): void {
    const { marks } = this;
    if (from === this.first + word) {
      marks[word] = (marks[word] as number) & ~(SETTLED | PLACED);
      return;
    }
    this.#origins[word] = from;
    marks[word] = (marks[word] as number) & ~SETTLED | PLACED;
  }

  /** A word becomes what another was, or something that follows from guards. */
  set(word: number, from: number): void {
    const { marks } = this, mark = marks[word] as number;
    if ((mark & (DIRTY | WRITTEN)) === 0 && from !== FOLLOWS && this.from(word) === from) return;
    if ((mark & DIRTY) === 0) this.#dirty[this.#count++] = word;
    this.#origins[word] = from;
    marks[word] = from === FOLLOWS
      ? mark | DIRTY | SETTLED | PLACED
      : mark & ~SETTLED | DIRTY | PLACED;
  }

  /** Words become what others are now. */
  setAll(to: number, words: Words, from: number, count: number): void {
    const { marks, first } = this, others = words.marks, origins = words.#origins;
    const shift = from - to, end = to + count;
    for (let word = to; word < end; word++) {
      // Most go back to where they come from.
      const kept = ((marks[word] as number) & (DIRTY | WRITTEN | PLACED)) === 0 &&
        ((others[word + shift] as number) & PLACED) !== 0 &&
        origins[word + shift] === first + word;
      if (!kept) this.set(word, words.from(word + shift));
    }
  }

  /** The same of words of which nobody asks what became of them. */
  placeAll(to: number, words: Words, from: number, count: number): void {
    const { marks } = this, origins = this.#origins, others = words.marks;
    const shift = from - to, end = to + count, same = words.first + shift;
    for (let word = to; word < end; word++) {
      if (((others[word + shift] as number) & PLACED) === 0 && words !== this) {
        origins[word] = same + word;
        marks[word] = (marks[word] as number) & ~SETTLED | PLACED;
      } else this.place(word, words.from(word + shift));
    }
  }

  /** Those that were set since they were last taken; each once, valid until the next is set. */
  takeDirty(): Int32Array {
    const dirty = this.#dirty.subarray(0, this.#count);
    this.#count = 0;
    return dirty;
  }

  /** A word counts as set since something was last told, which it does not yet. */
  setLater(word: number): void {
    this.#dirty[this.#count++] = word;
  }

  /** The path depends on what a word was. */
  guard(word: number, value: number): void {
    this.marks[word]! |= GUARD;
    this.#values[word] = value;
  }

  /** What a word was that is a guard; undefined for others. */
  guarded(word: number): number | undefined {
    return ((this.marks[word] as number) & GUARD) !== 0 ? this.#values[word] : undefined;
  }

  /**
   * Number of a word among those that are carried.
   *
   * @param word The word.
   * @param next The number that it has from now on if it has none.
   */
  slot(word: number, next: number): number {
    const mark = this.marks[word] as number;
    if ((mark & CARRIED) !== 0) return this.#slots[word] as number;
    this.marks[word] = mark | CARRIED;
    return this.#slots[word] = next;
  }
}

/** A page of guest memory that the run has read or written. */
export class Page extends Words {
  /** Whether it was written. */
  written = false;
  /** Whether it was since something was last told. */
  touched = false;

  /** As before the run. */
  override begin(first: WordNumber): void {
    super.begin(first);
    this.written = this.touched = false;
  }
}
