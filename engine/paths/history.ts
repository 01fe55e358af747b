/**
 * What is known of a path besides where it leads: what becomes of the state between one thing that
 * could be told and the next.
 *
 * @module
 */
import type { Noted } from "../kvm/vcpu.ts";
import type { WordNumber } from "./guards.ts";

/** Collects it while a path is recorded. */
export class HistoryRecorder {
  /** What was noted so far. */
  readonly notes: Noted[] = [];
  /** Words of the state that were set at any time, those of the work area aside. */
  readonly ever = new Set<number>();
  /** Words of the work area that were set since something was noted. */
  readonly #worked = new Set<number>();
  /** Page that the work area became a copy of since then; or -1. */
  #mapped = -1;
  #mapping = false;

  /** The work area becomes a copy of a page, by its number; nothing was set since the last note. */
  map(page: number): void {
    this.#mapping = true;
    this.#mapped = page;
  }

  /** A word of the work area is set; whether that is a copy of anything. */
  work(word: number): boolean {
    this.#worked.add(word);
    return this.#mapping;
  }

  /**
   * Notes what was set.
   *
   * @param set Words of the state that were set since the last note.
   * @param originOf What a word of the state is a copy of; or -1.
   * @param values What each is.
   * @param tell What is told.
   */
  note(
    set: Int32Array,
    originOf: (word: number) => WordNumber,
    values: Uint32Array,
    tell: Noted["tell"],
  ): void {
    for (const word of set) this.ever.add(word);
    const words = [...set, ...this.#worked];
    this.notes.push({
      mapped: this.#mapped,
      words,
      origins: words.map(originOf),
      values: words.map((word) => values[word] as number),
      tell,
    });
    this.#mapped = -1;
    this.#worked.clear();
  }
}

/** What a note takes up beside its words, in numbers of 32 bits. */
const NOTE_SIZE = 16;

/** What a history takes up, in numbers of 32 bits. */
export function sizeOf(history: readonly Noted[]): number {
  return history.reduce((sum, { words }) => sum + NOTE_SIZE + 3 * words.length, 0);
}
