/**
 * Threads that carry out the groups of one command after the other: loading the program takes a
 * thread longer than carrying out a short trace.
 *
 * @module
 */
import { startThreadsBy } from "../../cli/shares/threads.ts";
import { threadModule } from "../../cli/thread_modules.ts";

/** How long a thread may go on with a command that has ended, in milliseconds. */
const PATIENCE_MS = 2000;

/** Threads for one command at a time. */
export class ThreadPool implements Disposable {
  readonly #idle: Worker[] = [];
  readonly #used: Worker[] = [];

  /** Has threads started by this pool from now on. */
  constructor() {
    startThreadsBy((port) => {
      const worker = this.#idle.pop() ?? newThread();
      this.#used.push(worker);
      worker.postMessage({ port }, [port]);
    });
  }

  /** Starts the first thread, so that what others find cached is looked up and checked once. */
  async warmUp(): Promise<void> {
    const worker = newThread();
    this.#used.push(worker);
    while (!await answers(worker));
    await this.takeBack();
  }

  /** Takes the threads of a command that has ended back; those that still wait for it are ended. */
  async takeBack(): Promise<void> {
    await Promise.all(
      this.#used.splice(0).map(async (worker) => {
        if (await answers(worker)) this.#idle.push(worker);
        else worker.terminate();
      }),
    );
  }

  /** Ends all threads. */
  [Symbol.dispose](): void {
    for (const worker of [...this.#idle.splice(0), ...this.#used.splice(0)]) worker.terminate();
  }
}

function newThread(): Worker {
  return new Worker(threadModule("share"), { type: "module" });
}

/** Whether a thread takes a new command up. */
async function answers(worker: Worker): Promise<boolean> {
  const { port1, port2 } = new MessageChannel();
  const { promise, resolve } = Promise.withResolvers<boolean>();
  const timer = setTimeout(() => resolve(false), PATIENCE_MS);
  // The first answer may still be to what came before: it then takes up the next soon, too.
  worker.onmessage = () => resolve(true);
  worker.postMessage({ port: port2 }, [port2]);
  try {
    return await promise;
  } finally {
    clearTimeout(timer);
    worker.onmessage = null;
    port1.close();
  }
}
