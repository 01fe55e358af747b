/**
 * What a path that was followed would have told: its transitions, and which step wrote a field last.
 *
 * @module
 */
import type { Noted, Observer, Vcpu } from "../kvm/vcpu.ts";
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
  /** As in {@linkcode Noted}. */
  readonly origins: readonly number[];
  /** As in {@linkcode Noted}. */
  readonly values: readonly number[];
}

/** What becomes of a place. */
interface Fate<T> {
  readonly first: number;
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
  /** Words that may be asked for as they were when it began. */
  readonly needed: Needed;

  /**
   * Says it.
   *
   * @param history What was noted of the path.
   * @param v A vCPU that followed it.
   * @param listen Makes who is told: calls back whenever it would look who changed what.
   */
  constructor(
    history: readonly Noted[],
    v: Vcpu,
    listen: (look: (step: Step | undefined, transition: T | undefined) => void) => Observer,
  ) {
    this.#stateWords = v.words.length;
    this.needed = neededOf(history, this.#stateWords);
    const stretches: Stretch<T>[] = [];
    let notes: Noted[] = [];
    const observer = listen((step, transition) => {
      stretches.push({ step, transition, notes });
      notes = [];
    });
    for (const noted of history) {
      notes.push(noted);
      noted.tell?.(observer, v);
    }
    this.#stretches = stretches;
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
    const { first, masks, changes } = fate;
    if (changes.length === 0) return undefined;
    const now = masks.map((mask, i) => start.word(first + i) & mask);
    let last: Owner<T> | undefined;
    for (const change of changes) {
      const { words, origins, values, step } = change;
      let changed = false;
      for (let i = 0; i < words.length; i++) {
        const word = words[i] as number, origin = origins[i] as number;
        const whole = origin < 0 ? values[i] as number : start.word(origin);
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
      const set = new Map<number, { readonly origin: number; readonly value: number }>();
      for (const { mapped, words, origins, values } of notes) {
        masks.forEach((_, i) => {
          const inWork = first + i - WORK;
          if (mapped >= 0 && inWork >= 0 && inWork < PAGE_WORDS) {
            set.set(i, { origin: this.#stateWords + mapped * PAGE_WORDS + inWork, value: 0 });
          }
        });
        words.forEach((word, k) => {
          if (word < first || word >= first + masks.length) return;
          set.set(word - first, { origin: origins[k] as number, value: values[k] as number });
        });
      }
      if (set.size === 0) continue;
      changes.push({
        step,
        transition,
        words: [...set.keys()],
        origins: [...set.values()].map(({ origin }) => origin),
        values: [...set.values()].map(({ value }) => value),
      });
    }
    return { first, masks, changes };
  }
}

/** Words that may be asked for as they were when a path began. */
interface Needed {
  /** Numbers of those of the state. */
  readonly state: Int32Array;
  /** Pages of guest memory by their numbers, and the words of each. */
  readonly pages: readonly { readonly page: number; readonly words: Int32Array }[];
  /** Where each is among all of them, by its number. */
  readonly at: ReadonlyMap<number, number>;
}

function neededOf(history: readonly Noted[], stateWords: number): Needed {
  const numbers = new Set<number>();
  let mapped = -1;
  for (const note of history) {
    if (note.mapped >= 0) mapped = note.mapped;
    note.words.forEach((word, i) => {
      const origin = note.origins[i] as number;
      if (origin >= 0) numbers.add(origin);
      // What the work area was before it became a copy of a page is nobody's.
      if (word < WORK) numbers.add(word);
      else if (mapped >= 0) numbers.add(stateWords + mapped * PAGE_WORDS + word - WORK);
    });
  }
  const state = [...numbers].filter((number) => number < stateWords);
  const pages = [...Map.groupBy(
    [...numbers].filter((number) => number >= stateWords),
    (number) => Math.floor((number - stateWords) / PAGE_WORDS),
  )].map(([page, list]) => (
    { page, words: Int32Array.from(list, (number) => (number - stateWords) % PAGE_WORDS) }
  ));
  const order = [
    ...state,
    ...pages.flatMap(({ page, words }) =>
      [...words].map((word) => stateWords + page * PAGE_WORDS + word)
    ),
  ];
  return {
    state: Int32Array.from(state),
    pages,
    at: new Map(order.map((number, i) => [number, i])),
  };
}

/** What there is when a path begins to be followed, as far as it may be asked for later. */
export class Start {
  #values = new Uint32Array(0);
  #needed: Needed | undefined;

  /** Keeps what a vCPU is that is about to follow a path. */
  keep({ words, memory }: Vcpu, { needed }: Pick<FollowedPath<unknown>, "needed">): void {
    this.#needed = needed;
    const { state, pages, at } = needed;
    if (this.#values.length < at.size) this.#values = new Uint32Array(at.size);
    const values = this.#values;
    let to = 0;
    for (let i = 0; i < state.length; i++) values[to++] = words[state[i] as number] as number;
    for (let i = 0; i < pages.length; i++) {
      const { page, words: some } = pages[i] as Needed["pages"][number];
      const from = memory.words(page * PAGE_SIZE);
      for (let k = 0; k < some.length; k++) values[to++] = from[some[k] as number] as number;
    }
  }

  /** A word as it was, by its number; 0 for one that nobody needs. */
  word(number: number): number {
    const at = this.#needed?.at.get(number);
    return at === undefined ? 0 : this.#values[at] as number;
  }
}
