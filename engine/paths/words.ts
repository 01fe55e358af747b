/**
 * Words as a run that is recorded leaves them: where each comes from.
 *
 * @module
 */
import type { WordNumber } from "./guards.ts";

/** A word that follows from guards alone. */
export const FOLLOWS = -1;

/** What is known of a word that may have been written. */
export const DIRTY = 1, WRITTEN = 2, GUARD = 4;
/** Reading it says nothing new: it follows from guards. */
export const SETTLED = 8;

/** Words of the state, or of a page of guest memory, as the run leaves them. */
export class Words {
  /** Number of the first. */
  first: WordNumber;
  /** Where each comes from: 0 for what it was, else two more than {@linkcode Words.from} gives. */
  readonly #origin: Int32Array;
  /** What is known of each. */
  readonly marks: Uint8Array;
  /** Those that were set since something was last told. */
  readonly dirty: number[] = [];

  /**
   * Words that are what they were.
   *
   * @param first Number of the first.
   * @param count How many.
   */
  constructor(first: WordNumber, count: number) {
    this.first = first;
    this.#origin = new Int32Array(count);
    this.marks = new Uint8Array(count);
  }

  /** Each is what it was. */
  begin(first: WordNumber): void {
    this.first = first;
    this.#origin.fill(0);
    this.marks.fill(0);
    this.dirty.length = 0;
  }

  /** The number of the word that a word comes from; or {@linkcode FOLLOWS}. */
  from(word: number): number {
    const origin = this.#origin[word] as number;
    return origin === 0 ? this.first + word : origin - 2;
  }

  /** Says where a word comes from of which nobody asks what became of it. */
  place(word: number, from: number): void {
    this.#origin[word] = from === this.first + word ? 0 : from + 2;
    this.marks[word]! &= ~SETTLED;
  }

  /** A word becomes what another was, or something that follows from guards. */
  set(word: number, from: number): void {
    const mark = this.marks[word] as number;
    if ((mark & (DIRTY | WRITTEN)) === 0 && from !== FOLLOWS && this.from(word) === from) return;
    this.place(word, from);
    if ((mark & DIRTY) === 0) this.dirty.push(word);
    this.marks[word] = from === FOLLOWS ? mark | DIRTY | SETTLED : mark & ~SETTLED | DIRTY;
  }
}

/** A page of guest memory that the run has written. */
export class Page extends Words {
  /** Whether since something was last told. */
  touched = false;
}
