/**
 * Letting signals be heard while a long loop runs.
 *
 * @module
 */
/** How long work may go on before it lets Ctrl-C be seen, in milliseconds. */
const PATIENCE_MS = 50;

/** Lets signals in, now and then. */
export class Breather {
  #last = performance.now();

  /** Waits for whatever is due, when the last time is long ago. */
  async rest(): Promise<void> {
    if (performance.now() - this.#last < PATIENCE_MS) return;
    await new Promise((resolve) => setTimeout(resolve));
    this.#last = performance.now();
  }
}
