/**
 * What is known of a path besides where it leads: what becomes of the state between one thing that
 * could be told and the next.
 *
 * @module
 */
import type { Noted } from "../kvm/vcpu.ts";
import type { Arena } from "./arena.ts";
import type { WordNumber } from "./guards.ts";

/** Collects it while a path is recorded. */
export class HistoryRecorder {
  readonly #arena: Arena;
  #notes: Noted[] = [];
  /** Words of the state that were set at any time, those of the work area aside; and which they are. */
  readonly #ever: number[] = [];
  readonly #isEver: Uint8Array;
  /** Words of the work area that were set since something was noted. */
  readonly #worked = new Set<number>();
  /** Page that the work area became a copy of since then; or -1. */
  #mapped = -1;
  #mapping = false;

  /**
   * Makes room.
   *
   * @param stateWords Words of a state.
   * @param arena Where notes are kept.
   */
  constructor(stateWords: number, arena: Arena) {
    this.#arena = arena;
    this.#isEver = new Uint8Array(stateWords);
  }

  /** Begins anew; nobody sets a note back. */
  begin(): void {
    this.#notes = [];
    for (let i = 0; i < this.#ever.length; i++) this.#isEver[this.#ever[i] as number] = 0;
    this.#ever.length = 0;
    this.#worked.clear();
    this.#mapped = -1;
    this.#mapping = false;
  }

  /** What was noted so far. */
  get notes(): readonly Noted[] {
    return this.#notes;
  }

  /** Words of the state that were set at any time, those of the work area aside. */
  get ever(): readonly number[] {
    return this.#ever;
  }

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
    const list = this.#arena.take(3 * (set.length + this.#worked.size));
    let at = 0;
    const put = (word: number) => {
      list[at++] = word;
      list[at++] = originOf(word);
      list[at++] = values[word] as number;
    };
    for (let i = 0; i < set.length; i++) {
      const word = set[i] as number;
      if (this.#isEver[word] === 0) {
        this.#isEver[word] = 1;
        this.#ever.push(word);
      }
      put(word);
    }
    this.#worked.forEach(put);
    this.#worked.clear();
    this.#notes.push({ mapped: this.#mapped, set: list, tell });
    this.#mapped = -1;
  }
}

/** What a note takes up beside its words, in numbers of 32 bits. */
const NOTE_SIZE = 16;

/** What a history takes up, in numbers of 32 bits. */
export function sizeOf(history: readonly Noted[]): number {
  return history.reduce((sum, { set }) => sum + NOTE_SIZE + set.length, 0);
}
