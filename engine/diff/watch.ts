/**
 * Which step wrote a field last, told while the steps run.
 *
 * @module
 */
import { MAPPED_AT } from "../svm/machine.ts";
import type { Place } from "../svm/view_source.ts";
import type { Step } from "../policy.ts";

/** What is known of a place that is watched. */
export interface Watched<T> {
  /** The step that wrote it last in this run; undefined when none did. */
  step: Step | undefined;
  /** The transition that the step was part of. */
  transition: T | undefined;
  /** Whether it lies in the work area, into which a step may map a page. */
  readonly mapped: boolean;
}

/** Watches places in a vCPU's bytes from one step to the next. */
export class Watch<T> {
  readonly #places = new Map<number, Watched<T>>();
  readonly #list: Watched<T>[] = [];
  /** For each word: where it is, the bits of it that count, what they were, whose they are. */
  readonly #at: Int32Array;
  readonly #masks: Int32Array;
  readonly #values: Int32Array;
  readonly #owners: Watched<T>[] = [];
  #words = 0;

  /**
   * Watches nothing yet.
   *
   * @param words How many 32-bit words it can watch.
   */
  constructor(words: number) {
    this.#at = new Int32Array(words);
    this.#masks = new Int32Array(words);
    this.#values = new Int32Array(words);
  }

  /**
   * What is known of a place.
   *
   * @param place The place.
   * @returns What is known; undefined when it is not watched.
   */
  of(place: Place): Watched<T> | undefined {
    return this.#places.get(keyOf(place));
  }

  /**
   * Watches another place.
   *
   * @param place The place.
   * @returns Whether there was room for it.
   */
  add(place: Place): boolean {
    const key = keyOf(place);
    if (this.#places.has(key)) return true;
    const { first, masks } = masksOf(place);
    if (this.#words + masks.length > this.#at.length) return false;
    const watched = { step: undefined, transition: undefined, mapped: place.at >= MAPPED_AT };
    masks.forEach((bits, i) => {
      this.#at[this.#words] = first + i;
      this.#masks[this.#words] = bits;
      this.#owners[this.#words++] = watched;
    });
    this.#places.set(key, watched);
    this.#list.push(watched);
    return true;
  }

  /** Watches nothing any more. */
  clear(): void {
    this.#places.clear();
    this.#list.length = 0;
    this.#words = 0;
  }

  /** A run begins: no step wrote anything yet. */
  reset(): void {
    const list = this.#list;
    for (let i = 0; i < list.length; i++) {
      const watched = list[i] as Watched<T>;
      watched.step = watched.transition = undefined;
    }
  }

  /**
   * Looks which places changed since it last looked.
   *
   * @param words The vCPU's words.
   * @param step The step that ran since then; undefined when what changed is nobody's.
   * @param transition The transition it was part of.
   */
  look(words: Uint32Array, step: Step | undefined, transition: T | undefined): void {
    const count = this.#words, at = this.#at, masks = this.#masks, values = this.#values;
    for (let i = 0; i < count; i++) {
      const value = (words[at[i] as number] as number) & (masks[i] as number);
      if (value === values[i]) continue;
      values[i] = value;
      if (step === undefined) continue;
      const watched = this.#owners[i] as Watched<T>;
      if (watched.mapped && step.maps === true) continue;
      watched.step = step;
      watched.transition = transition;
    }
  }
}

/** 32-bit words that a place is in at most. */
export function wordsOf({ size }: Place): number {
  return (size + 6) >> 2;
}

/** The 32-bit words that a place is in: the number of the first, and the bits that count of each. */
export function masksOf({ at, size, mask = 0xff }: Place): {
  readonly first: number;
  readonly masks: readonly number[];
} {
  const first = at >> 2, end = (at + size + 3) >> 2;
  const masks: number[] = [];
  for (let word = first; word < end; word++) {
    let bits = 0;
    for (let k = 0; k < 4; k++) {
      const byte = word * 4 + k;
      if (byte >= at && byte < at + size) bits |= mask << 8 * k;
    }
    masks.push(bits);
  }
  return { first, masks };
}

/** A number for a place: no two have the same. */
export function keyOf({ at, size, mask = 0xff }: Place): number {
  return (at * 0x10000 + size) * 0x100 + mask;
}
