/**
 * How much of the guest's time a search may take.
 *
 * @module
 */

/** A tenth: the guest goes on at nine tenths of its speed at least. */
const SHARE = 0.1;
/** Milliseconds granted before any time has passed, so that a small guest is searched at once. */
const GRANT_MS = 50;
/** Milliseconds of one stop, at least and at most. */
const SHORTEST_MS = 10, LONGEST_MS = 500;
/** Milliseconds between two stops at least. */
const PAUSE_MS = 100;

/**
 * Keeps what is spent below a share of the time that passes.
 *
 * @example
 * ```ts
 * import { TimeShare } from "@vmtape/vmtape/traces";
 * let now = 0;
 * const share = new TimeShare(() => now);
 * share.spend(100);
 * now += share.pause();
 * if (now !== 600 || share.allowance() !== 10) throw new Error();
 * ```
 */
export class TimeShare {
  readonly #now: () => number;
  readonly #started: number;
  #spent = 0;

  /**
   * Begins now, with nothing spent.
   *
   * @param now The clock, in milliseconds; `performance.now` when left out.
   */
  constructor(now: () => number = () => performance.now()) {
    this.#now = now;
    this.#started = now();
  }

  /** Milliseconds spent so far. */
  get spent(): number {
    return this.#spent;
  }

  /** Milliseconds that may be spent now. */
  allowance(): number {
    const due = this.#due();
    return Math.min(Math.max(due, SHORTEST_MS), LONGEST_MS);
  }

  /** Milliseconds to wait until something may be spent again. */
  pause(): number {
    return Math.max(PAUSE_MS, Math.ceil((SHORTEST_MS - this.#due()) / SHARE));
  }

  /**
   * Notes what was spent.
   *
   * @param ms Milliseconds.
   */
  spend(ms: number): void {
    this.#spent += ms;
  }

  #due(): number {
    return SHARE * (this.#now() - this.#started) - this.#spent + GRANT_MS;
  }
}
