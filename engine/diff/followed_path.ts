/**
 * What a path that was followed would have told: its transitions, and which step wrote a field last.
 *
 * @module
 */
import type { Noted, Observer, Repeated, Vcpu } from "../kvm/vcpu.ts";
import type { Step } from "../policy.ts";
import { MAPPED_AT } from "../svm/machine.ts";
import { PAGE_SIZE } from "../svm/memory.ts";
import type { Place } from "../svm/view_source.ts";
import { keyOf, masksOf } from "./watch.ts";

/** Who may have changed something: a step of a transition; without one, nobody. */
interface Owner<T> {
  readonly step: Step | undefined;
  readonly transition: T | undefined;
}

/** What became of some words while one step ran. */
interface Change<T> extends Owner<T> {
  /** Which of the place's words. */
  readonly words: readonly number[];
  /** Where what each is a copy of is among the words that are needed; or -1. */
  readonly origins: readonly number[];
  /** What it is where it is no copy. */
  readonly values: readonly number[];
}

/** What becomes of a place. */
interface Fate<T> {
  /** Where its words are among those that are needed. */
  readonly before: readonly number[];
  readonly masks: readonly number[];
  readonly changes: readonly Change<T>[];
}

/** A stretch of what was noted, at whose end it was looked who had changed what. */
interface Stretch<T> extends Owner<T> {
  readonly notes: readonly Noted[];
}

const WORK = MAPPED_AT >> 2, PAGE_WORDS = PAGE_SIZE >> 2;

/** What a path would have told, the same each time it is followed. */
export class FollowedPath<T> {
  readonly #stretches: readonly Stretch<T>[];
  readonly #stateWords: number;
  readonly #fates = new Map<number, Fate<T>>();
  readonly #repeated: Repeated;
  #needed: Needed | undefined;
  readonly #overwritten = new Map<number, boolean>();

  /**
   * Says it.
   *
   * @param repeated What is known of the path.
   * @param v A vCPU that followed it.
   * @param listen Makes who is told: calls back whenever it would look who changed what.
   */
  constructor(
    repeated: Repeated,
    v: Vcpu,
    listen: (look: (step: Step | undefined, transition: T | undefined) => void) => Observer,
  ) {
    this.#stateWords = v.words.length;
    this.#repeated = repeated;
    const stretches: Stretch<T>[] = [];
    let notes: Noted[] = [];
    const observer = listen((step, transition) => {
      stretches.push({ step, transition, notes });
      notes = [];
    });
    for (const noted of repeated.notes) {
      notes.push(noted);
      noted.tell?.(observer, v);
    }
    this.#stretches = stretches;
  }

  /**
   * Whether it makes no difference what a word of the state is when the path begins.
   *
   * @param word Its number.
   * @returns Whether the path does not depend on it, and sets it.
   */
  overwrites(word: number): boolean {
    let known = this.#overwritten.get(word);
    if (known === undefined) {
      let origin: number | undefined;
      for (const { set } of this.#repeated.notes) {
        for (let i = 0; i < set.length; i += 3) if (set[i] === word) origin = set[i + 1];
      }
      known = origin !== undefined && origin !== word && !this.#repeated.dependsOn(word);
      this.#overwritten.set(word, known);
    }
    return known;
  }

  /** Words that may be asked for as they were when it began. */
  get needed(): Needed {
    return this.#needed ??= neededOf(this.#repeated.notes, this.#stateWords);
  }

  /** Where a word is among those, by its number; -1 where it is none of them. */
  #indexOf(number: number): number {
    const { state, pages } = this.needed;
    if (number < this.#stateWords) return state.indexOf(number);
    const word = number - this.#stateWords, page = Math.floor(word / PAGE_WORDS);
    const of = pages.find((some) => some.page === page);
    const at = of?.words.indexOf(word % PAGE_WORDS) ?? -1;
    return of === undefined || at < 0 ? -1 : of.before + at;
  }

  /**
   * Who wrote a place last.
   *
   * @param place The place.
   * @param start What there was when the path began.
   * @returns The step and its transition; undefined when none did.
   */
  lastWriter(place: Place, start: Start): Owner<T> | undefined {
    const key = keyOf(place);
    let fate = this.#fates.get(key);
    if (fate === undefined) this.#fates.set(key, fate = this.#fateOf(place));
    const { before, masks, changes } = fate;
    if (changes.length === 0) return undefined;
    const now = masks.map((mask, i) => start.at(before[i] as number) & mask);
    let last: Owner<T> | undefined;
    for (const change of changes) {
      const { words, origins, values, step } = change;
      let changed = false;
      for (let i = 0; i < words.length; i++) {
        const word = words[i] as number, origin = origins[i] as number;
        const whole = origin < 0 ? values[i] as number : start.at(origin);
        const value = whole & (masks[word] as number);
        if (now[word] === value) continue;
        now[word] = value;
        changed = true;
      }
      if (changed && step !== undefined && !(place.at >= MAPPED_AT && step.maps === true)) {
        last = change;
      }
    }
    return last;
  }

  #fateOf(place: Place): Fate<T> {
    const { first, masks } = masksOf(place);
    const changes: Change<T>[] = [];
    for (const { step, transition, notes } of this.#stretches) {
      // What a word is at the end of the stretch, by its number.
      const found = new Map<number, { readonly origin: number; readonly value: number }>();
      for (const { mapped, set } of notes) {
        masks.forEach((_, i) => {
          const inWork = first + i - WORK;
          if (mapped >= 0 && inWork >= 0 && inWork < PAGE_WORDS) {
            found.set(i, { origin: this.#stateWords + mapped * PAGE_WORDS + inWork, value: 0 });
          }
        });
        for (let i = 0; i < set.length; i += 3) {
          const word = set[i] as number;
          if (word < first || word >= first + masks.length) continue;
          found.set(word - first, { origin: set[i + 1] as number, value: set[i + 2] as number });
        }
      }
      if (found.size === 0) continue;
      changes.push({
        step,
        transition,
        words: [...found.keys()],
        origins: [...found.values()].map(({ origin }) => origin < 0 ? -1 : this.#indexOf(origin)),
        values: [...found.values()].map(({ value }) => value),
      });
    }
    return { before: masks.map((_, i) => this.#indexOf(first + i)), masks, changes };
  }
}

/** Words that may be asked for as they were when a path began. */
interface Needed {
  /** Numbers of those of the state. */
  readonly state: Int32Array;
  /** Pages of guest memory by their numbers, the words of each, and how many words are before them. */
  readonly pages: readonly {
    readonly page: number;
    readonly words: Int32Array;
    readonly before: number;
  }[];
  /** How many they are. */
  readonly count: number;
}

/** Collects numbers below some end, each once. */
class Numbers {
  readonly list: number[] = [];
  readonly #seen: Uint8Array;

  constructor(end: number) {
    this.#seen = new Uint8Array(end);
  }

  add(number: number): void {
    if (this.#seen[number] === 1) return;
    this.#seen[number] = 1;
    this.list.push(number);
  }
}

function neededOf(history: readonly Noted[], stateWords: number): Needed {
  const state = new Numbers(stateWords);
  const pages = new Map<number, Numbers>();
  const add = (number: number) => {
    if (number < stateWords) {
      state.add(number);
      return;
    }
    const word = number - stateWords, page = Math.floor(word / PAGE_WORDS);
    let words = pages.get(page);
    if (words === undefined) pages.set(page, words = new Numbers(PAGE_WORDS));
    words.add(word % PAGE_WORDS);
  };
  let mapped = -1;
  for (const note of history) {
    const { set } = note;
    if (note.mapped >= 0) mapped = note.mapped;
    for (let i = 0; i < set.length; i += 3) {
      const word = set[i] as number, origin = set[i + 1] as number;
      if (origin >= 0) add(origin);
      // What the work area was before it became a copy of a page is nobody's.
      if (word < WORK) add(word);
      else if (mapped >= 0) add(stateWords + mapped * PAGE_WORDS + word - WORK);
    }
  }
  let count = state.list.length;
  const found: Needed["pages"][number][] = [];
  for (const [page, { list }] of pages) {
    found.push({ page, words: Int32Array.from(list), before: count });
    count += list.length;
  }
  return { state: Int32Array.from(state.list), pages: found, count };
}

/** What there is when a path begins to be followed, as far as it may be asked for later. */
export class Start {
  #values = new Uint32Array(0);

  /** Keeps what a vCPU is that is about to follow a path. */
  keep({ words, memory }: Vcpu, { needed }: Pick<FollowedPath<unknown>, "needed">): void {
    const { state, pages, count } = needed;
    if (this.#values.length < count) this.#values = new Uint32Array(count);
    const values = this.#values;
    let to = 0;
    for (let i = 0; i < state.length; i++) values[to++] = words[state[i] as number] as number;
    for (let i = 0; i < pages.length; i++) {
      const { page, words: some } = pages[i] as Needed["pages"][number];
      const from = memory.words(page * PAGE_SIZE);
      for (let k = 0; k < some.length; k++) values[to++] = from[some[k] as number] as number;
    }
  }

  /** A word as it was, by where it is among those that are needed; 0 for one that is not. */
  at(index: number): number {
    return index < 0 ? 0 : this.#values[index] as number;
  }
}
