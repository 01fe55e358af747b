/**
 * Putting down what a path does, stage by stage, while it is recorded.
 *
 * @module
 */
import type { Vcpu } from "../kvm/vcpu.ts";
import { PAGE_SIZE } from "../svm/memory.ts";
import { PageHistory } from "../svm/page_history.ts";
import { KnownContents } from "../content_numbers.ts";
import type { Arena } from "./arena.ts";
import { type Guards, putSorted, type WordNumber } from "./guards.ts";
import { type PathList, Program } from "./program.ts";
import type { Shadow } from "./shadow.ts";
import { DIRTY, FOLLOWS, type Words, WRITTEN } from "./words.ts";

/** Lists of constants that are told apart at most. */
const MOST_LISTS = 1 << 12;

/** Writes the list of one path at a time. */
export class PathWriter {
  readonly #stateWords: number;
  readonly #shadow: Shadow;
  readonly #arena: Arena;
  /** Numbers of carried words, in the order of their slots. */
  readonly #slots = new Program();
  readonly #program = new Program();
  readonly #images = new Program();
  readonly #loads = new Program();
  /** Carried words of the first page that has some, of the second and so on, while they are put down. */
  readonly #ofPages: Program[] = [];
  /** Numbers of lists of constants. */
  readonly #lists = new KnownContents<number>(MOST_LISTS);
  /** Words of a stage while they are sorted: copied ones with their slots. */
  readonly #copied = new Program();

  /**
   * Begins with nothing.
   *
   * @param stateWords Words of a state.
   * @param shadow What is known of each word.
   * @param arena Where lists are kept.
   */
  constructor(stateWords: number, shadow: Shadow, arena: Arena) {
    this.#arena = arena;
    this.#stateWords = stateWords;
    this.#shadow = shadow;
  }

  /** Begins another path. */
  begin(): void {
    this.#program.clear();
    this.#images.clear();
    this.#slots.clear();
  }

  /** Number of a word among those that are carried. */
  slot(from: WordNumber): number {
    const slots = this.#slots, slot = this.#shadow.slot(from, slots.length);
    if (slot === slots.length) slots.push(from);
    return slot;
  }

  /**
   * Puts down what was set since the last stage.
   *
   * @param mapped Number of a page that the work area becomes a copy of at first; or -1.
   * @param v The vCPU, as it is now.
   */
  stage(mapped: number, { words, memory }: Vcpu): void {
    const program = this.#program, { state, pages } = this.#shadow;
    program.push(mapped);
    this.#writes(state, words);
    const count = program.later();
    for (const [number, page] of pages) {
      if (!page.touched) continue;
      page.touched = false;
      program.count(count);
      program.push(number);
      this.#writes(page, memory.words(number * PAGE_SIZE), true);
    }
  }

  /**
   * Puts down an image.
   *
   * @param words Its words.
   * @param copies Those that become carried words: place and slot of each.
   * @returns Where it begins among the images.
   */
  image(words: Uint32Array, copies: Program): number {
    const images = this.#images, at = images.length;
    images.push(words.length);
    images.append(words);
    images.copies(copies);
    return at;
  }

  /** Puts down a stage in which nothing is set. */
  empty(): void {
    this.#program.push(-1);
    for (let i = 0; i < 3; i++) this.#program.push(0);
  }

  /**
   * What was put down.
   *
   * @param guards What the path depends on.
   * @param images For each stage what {@linkcode PathWriter.image} gave, or -1.
   */
  list(guards: Guards, images: readonly number[]): PathList {
    const carried = this.#carried(), program = this.#program;
    const guardsAt = carried.length + program.length, guardsEnd = guardsAt + guards.length;
    const numbers = this.#arena.take(guardsEnd + this.#images.length);
    carried.putInto(numbers, 0);
    program.putInto(numbers, carried.length);
    this.#images.putInto(numbers, guardsEnd);
    return {
      numbers,
      slots: this.#slots.length,
      program: carried.length,
      guards: guardsAt,
      others: putSorted(guards, this.#stateWords, numbers, guardsAt),
      guardsEnd,
      images: images.map((at) => at < 0 ? -1 : guardsEnd + at),
    };
  }

  /** Appends what was set of words, which have these values now; and whether constants have a number. */
  #writes(words: Words, values: Uint32Array, numbered = false): void {
    const { marks, first } = words, dirty = words.takeDirty(), shadow = this.#shadow;
    const program = this.#program, copied = this.#copied;
    copied.clear();
    const number = numbered ? program.later() : -1, stretches = program.length;
    // Each constant by itself would be a stretch of three numbers.
    const list = program.room(1 + 3 * dirty.length);
    let at = stretches + 1, length = -1, next = -1, count = 0;
    for (let i = 0; i < dirty.length; i++) {
      const word = dirty[i] as number, from = words.from(word);
      const written = ((marks[word] as number) & WRITTEN) !== 0;
      marks[word]! &= ~DIRTY;
      if (!written && from === first + word) continue;
      const known = from === FOLLOWS ? values[word] : shadow.guarded(from);
      if (known === undefined) {
        copied.push(word);
        copied.push(this.slot(from));
      } else {
        if (!written && words.guarded(word) === known) continue;
        if (word !== next) {
          count++;
          list[at++] = word;
          list[length = at++] = 0;
        }
        list[at++] = known;
        list[length]!++;
        next = word + 1;
      }
      marks[word]! |= WRITTEN;
    }
    list[stretches] = count;
    program.length = at;
    if (numbered) {
      const constants = list.subarray(stretches, at);
      list[number] = this.#lists.of(constants, constants.length, PageHistory.anotherList);
    }
    program.copies(copied);
  }

  /** The carried words, as a path has them. */
  #carried(): Program {
    const loads = this.#loads, list = this.#copied;
    loads.clear();
    list.clear();
    const pages = new Map<number, Program>();
    for (let slot = 0; slot < this.#slots.length; slot++) {
      const number = this.#slots.at(slot);
      if (number < this.#stateWords) {
        list.push(number);
        list.push(slot);
        continue;
      }
      const gpa = (number - this.#stateWords) * 4, page = Math.floor(gpa / PAGE_SIZE);
      let ofPage = pages.get(page);
      if (ofPage === undefined) {
        ofPage = this.#ofPages[pages.size] ??= new Program();
        ofPage.clear();
        pages.set(page, ofPage);
      }
      ofPage.push(gpa % PAGE_SIZE >> 2);
      ofPage.push(slot);
    }
    loads.copies(list);
    loads.push(pages.size);
    for (const [page, ofPage] of pages) {
      loads.push(page);
      loads.copies(ofPage);
    }
    return loads;
  }
}
