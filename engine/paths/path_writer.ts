/**
 * Putting down what a path does, stage by stage, while it is recorded.
 *
 * @module
 */
import type { Vcpu } from "../kvm/vcpu.ts";
import { PAGE_SIZE } from "../svm/memory.ts";
import type { WordNumber } from "./guards.ts";
import { type PathLists, Program } from "./program.ts";
import { DIRTY, FOLLOWS, type Page, type Words, WRITTEN } from "./words.ts";

/** Writes the lists of one path at a time. */
export class PathWriter {
  readonly #stateWords: number;
  readonly #guarded: (number: WordNumber) => number | undefined;
  /** Slots of carried words, in their order. */
  readonly #slots = new Map<WordNumber, number>();
  readonly #program = new Program();
  readonly #loads = new Program();
  /** Words of a stage while they are sorted: copied ones with their slots, others with their values. */
  readonly #copied: number[] = [];
  readonly #set: number[] = [];

  /**
   * Begins with nothing.
   *
   * @param stateWords Words of a state.
   * @param guarded Value of a word that is a guard; undefined for others.
   */
  constructor(stateWords: number, guarded: (number: WordNumber) => number | undefined) {
    this.#stateWords = stateWords;
    this.#guarded = guarded;
  }

  /** Begins another path. */
  begin(): void {
    this.#program.clear();
    this.#slots.clear();
  }

  /** Number of a word among those that are carried. */
  slot(from: WordNumber): number {
    let slot = this.#slots.get(from);
    if (slot === undefined) this.#slots.set(from, slot = this.#slots.size);
    return slot;
  }

  /**
   * Puts down what was set since the last stage.
   *
   * @param mapped Number of a page that the work area becomes a copy of at first; or -1.
   * @param state Words of the state.
   * @param pages Pages that were written, by their numbers.
   * @param v The vCPU, as it is now.
   */
  stage(
    mapped: number,
    state: Words,
    pages: ReadonlyMap<number, Page>,
    { words, memory }: Vcpu,
  ): void {
    const program = this.#program;
    program.push(mapped);
    this.#writes(state, words);
    const count = program.later();
    for (const [number, page] of pages) {
      if (!page.touched) continue;
      page.touched = false;
      program.count(count);
      program.push(number);
      this.#writes(page, memory.words(number * PAGE_SIZE));
    }
  }

  /** Puts down a stage in which nothing is set. */
  empty(): void {
    this.#program.push(-1);
    for (let i = 0; i < 3; i++) this.#program.push(0);
  }

  /** What was put down. */
  lists(): PathLists {
    return { carried: this.#carried(), slots: this.#slots.size, program: this.#program.copy() };
  }

  /** Appends what was set of words, which have these values now. */
  #writes(words: Words, values: Uint32Array): void {
    const { marks, dirty } = words;
    for (let i = 0; i < dirty.length; i++) {
      const word = dirty[i] as number, mark = marks[word] as number;
      const sorted = this.#sort(words, word, values[word] as number, (mark & WRITTEN) !== 0);
      marks[word] = sorted ? mark & ~DIRTY | WRITTEN : mark & ~DIRTY;
    }
    dirty.length = 0;
    const program = this.#program, copied = this.#copied, set = this.#set;
    program.push(copied.length >> 1);
    for (let i = 0; i < copied.length; i++) program.push(copied[i] as number);
    const stretches = program.later();
    let length = -1, next = -1;
    for (let i = 0; i < set.length; i += 2) {
      const place = set[i] as number;
      if (place !== next) {
        program.count(stretches);
        program.push(place);
        length = program.later();
      }
      program.push(set[i + 1] as number);
      program.count(length);
      next = place + 1;
    }
    copied.length = set.length = 0;
  }

  /** Sorts a word by what it becomes, unless it is that already; whether it is to be set. */
  #sort(words: Words, word: number, value: number, written: boolean): boolean {
    const number = words.first + word, from = words.from(word);
    const known = from === FOLLOWS ? value : this.#guarded(from);
    if (!written) {
      if (from === number || known !== undefined && this.#guarded(number) === known) return false;
    }
    if (known !== undefined) this.#set.push(word, known);
    else this.#copied.push(word, this.slot(from));
    return true;
  }

  /** The carried words, as a path has them. */
  #carried(): Int32Array {
    const loads = this.#loads;
    loads.clear();
    const count = loads.later();
    const pages = new Map<number, number[]>();
    for (const [number, slot] of this.#slots) {
      if (number < this.#stateWords) {
        loads.count(count);
        loads.push(number);
        loads.push(slot);
        continue;
      }
      const gpa = (number - this.#stateWords) * 4, page = Math.floor(gpa / PAGE_SIZE);
      let list = pages.get(page);
      if (list === undefined) pages.set(page, list = []);
      list.push(gpa % PAGE_SIZE >> 2, slot);
    }
    loads.push(pages.size);
    for (const [page, list] of pages) {
      loads.push(page);
      loads.push(list.length >> 1);
      for (const number of list) loads.push(number);
    }
    return loads.copy();
  }
}
