/**
 * What the order of a log's events says against a policy, until the log shows enough to be certain of it.
 *
 * @module
 */
import type { LoggedRun, Shown } from "./logged_runs.ts";
import { claimsOf, type OrderClaim, type Prints } from "./printed.ts";

/** Claims that are open at most. */
const MOST_OPEN = 16_384;

/** What of a vCPU's part of a log decides about claims, as a number. */
function shownBy({ entries, exits }: Shown): number {
  return (entries ? 1 : 0) | (exits ? 2 : 0);
}

/** Keeps claims until they hold, or do not. */
export class OpenClaims {
  readonly #open: { readonly claim: OrderClaim; readonly clean: boolean }[] = [];
  /** What vCPUs' parts of the log showed when those that are open were last looked at. */
  readonly #shown = new Map<Shown, number>();
  readonly #holds: (claim: OrderClaim, clean: boolean) => void;

  /**
   * Begins without any.
   *
   * @param holds Receives every claim that holds, and whether it is the first against its run.
   */
  constructor(holds: (claim: OrderClaim, clean: boolean) => void) {
    this.#holds = holds;
  }

  /**
   * Notes what the order of events says against a policy; tells what is certain by now.
   *
   * @param unit A logged run.
   * @param prints What the policy prints of it, where that is known.
   * @param clean Whether nothing else is said against the run.
   */
  add(unit: LoggedRun, prints: Prints | undefined, clean: boolean): void {
    const open = this.#open, before = open.length;
    if (prints !== undefined) {
      for (const claim of claimsOf(unit, prints)) {
        open.push({ claim, clean });
        clean = false;
      }
      const { shown } = unit;
      if (open.length > before && !this.#shown.has(shown)) this.#shown.set(shown, shownBy(shown));
    }
    const from = this.#showsMore() ? 0 : before;
    if (from < open.length) this.#settle(false, from);
  }

  /** The log is over. */
  finish(): void {
    this.#settle(true, 0);
  }

  /** Whether a vCPU's part of the log shows what it did not when claims about it were looked at. */
  #showsMore(): boolean {
    let more = false;
    for (const [shown, before] of this.#shown) {
      const now = shownBy(shown);
      if (now === before) continue;
      this.#shown.set(shown, now);
      more = true;
    }
    return more;
  }

  /** Looks at open claims again, from one on. */
  #settle(end: boolean, from: number): void {
    const open = this.#open;
    let left = from;
    for (let i = from; i < open.length; i++) {
      const entry = open[i]!;
      const holds = entry.claim.holds(end);
      if (holds === undefined) open[left++] = entry;
      if (holds === true) this.#holds(entry.claim, entry.clean);
    }
    // What a log of that length has not shown it does not show.
    open.length = left > MOST_OPEN ? 0 : left;
    if (open.length === 0) this.#shown.clear();
  }
}
