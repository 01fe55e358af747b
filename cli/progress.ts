/**
 * Progress on a terminal.
 *
 * @module
 */
import type { Sink } from "./output.ts";

const INTERVAL_MS = 100;
const encoder = new TextEncoder();

/** A count that goes up: how much, how fast, how long still. */
export class Progress {
  readonly #sink: Sink | undefined;
  readonly #what: string;
  readonly #total: number | undefined;
  readonly #start = performance.now();
  #shown = -Infinity;

  /**
   * @param sink Where to show it; nowhere when left out.
   * @param what What is counted, such as `events`.
   * @param total How many there will be, where that is known.
   */
  constructor(sink: Sink | undefined, what: string, total?: number) {
    this.#sink = sink;
    this.#what = what;
    this.#total = total;
  }

  /** Shows that `count` are done, at most ten times a second. */
  update(count: number): void {
    if (!this.#sink) return;
    const now = performance.now();
    if (now - this.#shown < INTERVAL_MS) return;
    this.#shown = now;
    const rate = count / Math.max((now - this.#start) / 1000, 1e-3);
    const of = this.#total === undefined ? "" : ` of ${this.#total.toLocaleString("en")}`;
    const left = this.#total === undefined || count === 0
      ? ""
      : `, ${Math.ceil((this.#total - count) / rate)} s left`;
    this.#write(
      `${count.toLocaleString("en")}${of} ${this.#what}, ${
        Math.round(rate).toLocaleString("en")
      }/s${left}`,
    );
  }

  /** Takes it off the screen. */
  done(): void {
    if (this.#sink && this.#shown !== -Infinity) this.#write("");
  }

  [Symbol.dispose](): void {
    this.done();
  }

  #write(text: string): void {
    try {
      this.#sink?.writeSync(encoder.encode(`\r\x1b[K${text}`));
    } catch {
      // Progress that nobody can see is no reason to stop.
    }
  }
}
