/**
 * Threads that carry out groups: who starts them.
 *
 * @module
 */

import { threadModule } from "../thread_modules.ts";

/** A thread as the one sees it that gives it work. */
export interface Thread {
  /** Tells it something. */
  postMessage(message: unknown): void;
  /** What to do with what it says. */
  onmessage: ((event: MessageEvent) => void) | null;
  /** What to do when it goes wrong. */
  onerror: ((event: ErrorEvent) => void) | null;
  /** Ends it. */
  terminate(): void;
}

let start: () => Thread = () => new Worker(threadModule("share"), { type: "module" });

/** Starts a thread. */
export function startThread(): Thread {
  return start();
}

/**
 * Has threads started by another thread from now on: one that is confined can start none itself.
 *
 * @param ask Hands on the port over which the new thread is to be talked to.
 */
export function startThreadsBy(ask: (port: MessagePort) => void): void {
  start = () => {
    const { port1: port, port2 } = new MessageChannel();
    ask(port2);
    return {
      postMessage: (message) => port.postMessage(message),
      get onmessage() {
        return port.onmessage;
      },
      set onmessage(take) {
        port.onmessage = take;
      },
      onerror: null,
      terminate: () => port.close(),
    };
  };
}
