/**
 * What is known of each word of a state and of guest memory while a path is recorded.
 *
 * @module
 */
import { PAGE_SIZE } from "../svm/memory.ts";
import { memoryWord, type WordNumber } from "./guards.ts";
import { GUARD, Page, Words } from "./words.ts";

const PAGE_WORDS = PAGE_SIZE / 4;

/** Words of a state, and of the pages that a run has to do with. */
export class Shadow {
  /** Words of the state. */
  readonly state: Words;
  /** Pages that were read or written, by their numbers. */
  readonly pages: Map<number, Page> = new Map();
  readonly #stateWords: number;
  readonly #spare: Page[] = [];
  /** The page that was asked for last, and its number. */
  #last: Page | undefined;
  #lastNumber = -1;

  /**
   * Makes room for the words of a state.
   *
   * @param stateWords How many.
   */
  constructor(stateWords: number) {
    this.#stateWords = stateWords;
    this.state = new Words(stateWords);
  }

  /** Nothing is known of any word. */
  begin(): void {
    this.state.begin(0);
    for (const page of this.pages.values()) this.#spare.push(page);
    this.pages.clear();
    this.#last = undefined;
    this.#lastNumber = -1;
  }

  /** A page, by its number. */
  page(number: number): Page {
    const last = this.#last;
    if (last !== undefined && number === this.#lastNumber) return last;
    let page = this.pages.get(number);
    if (page === undefined) {
      page = this.#spare.pop() ?? new Page(PAGE_WORDS);
      page.begin(memoryWord(this.#stateWords, number * PAGE_SIZE));
      this.pages.set(number, page);
    }
    this.#lastNumber = number;
    return this.#last = page;
  }

  /**
   * The path depends on what a word of guest memory was.
   *
   * @param number The word.
   * @param value What it was.
   * @returns Whether that is new.
   */
  guard(number: WordNumber, value: number): boolean {
    const word = number - this.#stateWords, inPage = word & PAGE_WORDS - 1;
    const page = this.page((word - inPage) / PAGE_WORDS);
    if (((page.marks[inPage] as number) & GUARD) !== 0) return false;
    page.guard(inPage, value);
    return true;
  }

  /** What a word was that is a guard, of the state or of guest memory; undefined for others. */
  guarded(number: WordNumber): number | undefined {
    if (number < this.#stateWords) return this.state.guarded(number);
    const word = number - this.#stateWords, inPage = word & PAGE_WORDS - 1;
    return this.page((word - inPage) / PAGE_WORDS).guarded(inPage);
  }

  /** Number of such a word among those that are carried; `next` if it has none yet. */
  slot(number: WordNumber, next: number): number {
    if (number < this.#stateWords) return this.state.slot(number, next);
    const word = number - this.#stateWords, inPage = word & PAGE_WORDS - 1;
    return this.page((word - inPage) / PAGE_WORDS).slot(inPage, next);
  }
}
