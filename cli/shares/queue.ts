/**
 * Groups of a trace that several threads take from, each the next one when it
 * is done with the one before.
 *
 * @module
 */
import type { Group } from "./groups.ts";

/** What threads share. */
export interface QueueParts {
  /** The groups, in order. */
  readonly groups: readonly Group[];
  /** Groups that may be done before the ones before them are used. */
  readonly ahead: number;
  /** How many groups were taken, and of how many the results were used. */
  readonly words: Int32Array<SharedArrayBuffer>;
}

const TAKEN = 0, USED = 1, WORDS = 2;

/** How long a thread waits without showing that it is there, in milliseconds. */
const OFTEN_MS = 1000;

/** One thread's view of the groups. */
export class Queue {
  /** What to send to another thread. */
  readonly parts: QueueParts;

  /** @param parts What another thread sent. */
  constructor(parts: QueueParts) {
    this.parts = parts;
  }

  /**
   * Begins with all groups there to be taken.
   *
   * @param groups The groups, in order.
   * @param ahead Groups that may be done before the ones before them are used: their results are held meanwhile.
   */
  static of(groups: readonly Group[], ahead: number): Queue {
    const words = new Int32Array(new SharedArrayBuffer(4 * WORDS));
    return new Queue({ groups, ahead, words });
  }

  /** Takes the next group: its number, undefined when there is none. */
  take(): number | undefined {
    const { groups, words } = this.parts;
    const index = Atomics.add(words, TAKEN, 1);
    return index < groups.length ? index : undefined;
  }

  /** Whether the next group may be done already. */
  get open(): boolean {
    const { ahead, words } = this.parts;
    return Atomics.load(words, TAKEN) < Atomics.load(words, USED) + ahead;
  }

  /**
   * Stops this thread until a group may be done.
   *
   * @param index Number of the group.
   * @param waiting Called now and then meanwhile.
   */
  wait(index: number, waiting: () => void): void {
    const { ahead, words } = this.parts;
    for (let used; index >= (used = Atomics.load(words, USED)) + ahead;) {
      Atomics.wait(words, USED, used, OFTEN_MS);
      waiting();
    }
  }

  /** The results of so many groups were used. */
  use(count: number): void {
    const { words } = this.parts;
    Atomics.store(words, USED, count);
    Atomics.notify(words, USED);
  }
}
