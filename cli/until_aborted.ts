/**
 * Waiting for something that Ctrl-C may end first.
 *
 * @module
 */

import { Breather } from "./breather.ts";

/**
 * Waits for something, or for Ctrl-C.
 *
 * @param what What is waited for.
 * @param signal Ends the waiting.
 * @returns What it comes to.
 * @throws The signal's reason.
 */
export async function orAborted<T>(what: Promise<T>, signal: AbortSignal): Promise<T> {
  signal.throwIfAborted();
  const { promise: aborted, reject } = Promise.withResolvers<never>();
  const stop = () => reject(signal.reason);
  signal.addEventListener("abort", stop);
  try {
    return await Promise.race([what, aborted]);
  } finally {
    signal.removeEventListener("abort", stop);
  }
}

/**
 * Items one by one; Ctrl-C is heard also while none comes, and while they come without a pause.
 *
 * @param all The items.
 * @param signal Ends them.
 * @throws The signal's reason.
 */
export async function* untilAborted<T>(
  all: AsyncIterable<T>,
  signal: AbortSignal,
): AsyncGenerator<T> {
  const items = all[Symbol.asyncIterator]();
  // Items that are all there already would let no signal in.
  const breather = new Breather();
  try {
    for (;;) {
      await breather.rest();
      const next = await orAborted(items.next(), signal);
      if (next.done) return;
      yield next.value;
    }
  } finally {
    // Not waited for: it may be reading what never comes.
    items.return?.()?.catch(() => {});
  }
}
