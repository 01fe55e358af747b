/**
 * What a path that was followed would have told: its transitions, and which step wrote a field last.
 *
 * @module
 */
import type { Noted, Observer, Vcpu } from "../kvm/vcpu.ts";
import type { Step } from "../policy.ts";
import { MACHINE_SIZE, MAPPED_AT } from "../svm/machine.ts";
import { type GuestMemory, PAGE_SIZE } from "../svm/memory.ts";
import { PageJournal } from "../svm/page_journal.ts";
import { wordAt } from "../svm/page_word.ts";
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
    const now = masks.map((mask, i) => start.word(first + i, this.#stateWords) & mask);
    let last: Owner<T> | undefined;
    for (const change of changes) {
      const { words, origins, values, step } = change;
      let changed = false;
      for (let i = 0; i < words.length; i++) {
        const word = words[i] as number, origin = origins[i] as number;
        const whole = origin < 0 ? values[i] as number : start.word(origin, this.#stateWords);
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

/** What there is when a path begins to be followed, kept for later. */
export class Start {
  readonly #words = new Uint32Array(MACHINE_SIZE >> 2);
  /** What pages were that were written since, and those from a later moment on. */
  readonly #journals: PageJournal[] = [new PageJournal()];
  #memory: GuestMemory | undefined;
  #from: Uint32Array | undefined;
  #source: Uint32Array = this.#words;

  /** Keeps what a vCPU is. */
  keep(v: Vcpu): void {
    if (this.#from !== v.words) {
      this.#from = v.words;
      this.#source = v.words.subarray(0, MACHINE_SIZE >> 2);
    }
    this.#words.set(this.#source);
    this.#memory = v.memory;
    this.#journals.length = 1;
    v.memory.keepBefore(this.journal);
  }

  /** What pages were that were written since. */
  get journal(): PageJournal {
    return this.#journals[0] as PageJournal;
  }

  /** From now on what pages are is kept by another. */
  handOver(journal: PageJournal): void {
    this.#journals.push(journal);
  }

  /** A word as it was, by its number: of so many of the state's, or of guest memory behind them. */
  word(number: number, stateWords: number): number {
    if (number < stateWords) return this.#words[number] as number;
    const at = (number - stateWords) * 4, page = Math.floor(at / PAGE_SIZE);
    const journal = this.#journals.find((journal) => journal.indexOf(page) >= 0);
    const bytes = journal === undefined
      ? this.#memory?.page(page * PAGE_SIZE)
      : journal.pageAt(journal.indexOf(page));
    return bytes === undefined ? 0 : wordAt(bytes, at % PAGE_SIZE);
  }
}
