/**
 * Telling what of a user's policy does not end. JavaScript cannot interrupt a loop, but another
 * thread can see that nothing moves on, and end the one that loops.
 *
 * @module
 */
import { oneLine } from "./errors.ts";

/** What a thread lets others see of it. */
export interface Watched {
  /** Words of {@linkcode WORD}. */
  readonly words: Int32Array<SharedArrayBuffer>;
  /** Tells the thread from others. */
  readonly id: string;
  /** Names of what may not end, by number from 1. */
  readonly names: readonly string[];
}

/** What the threads share. */
const WORD = {
  /** Number of what runs, from 1; 0 while nothing of the user's does. */
  running: 0,
  /** How often something began or ended so far. */
  begun: 1,
  /** Number of the event that was taken last. */
  event: 2,
  /** Whether the command puts its output in order when it is interrupted. */
  graceful: 3,
} as const;

/** Seconds after which something counts as not ending. */
const SECONDS = 5;

/** Seconds after which it is ended. */
const MOST_SECONDS = 20;

const words = new Int32Array(new SharedArrayBuffer(4 * Object.keys(WORD).length));
const id = crypto.randomUUID();
const names: string[] = [];
let report: ((watched: Watched) => void) | undefined;

/** Has another thread watch this one from now on. */
export function watchedThread(tell: (watched: Watched) => void): void {
  report = tell;
  tell({ words, id, names: [...names] });
}

/** Notes the event that is being carried out. */
export function atEvent(event: number): void {
  words[WORD.event] = event;
}

/** Notes that the command puts its output in order when it is interrupted. */
export function willBeGraceful(): void {
  words[WORD.graceful] = 1;
}

/** A number for something that may not end, by which it is told what runs. */
export function numberOf(name: string): number {
  const number = names.push(oneLine(name));
  report?.({ words, id, names: [...names] });
  return number;
}

/** Notes that something runs until it is left; returns what ran around it. */
export function enter(number: number): number {
  const outer = Atomics.exchange(words, WORD.running, number);
  Atomics.add(words, WORD.begun, 1);
  return outer;
}

/** Notes that something ended, and what goes on around it. */
export function leave(outer: number): void {
  Atomics.store(words, WORD.running, outer);
  Atomics.add(words, WORD.begun, 1);
}

/** Watches that something of the user's ends. */
export async function watchEnd<T>(what: string, act: () => Promise<T>): Promise<T> {
  const outer = enter(numberOf(what));
  try {
    return await act();
  } finally {
    leave(outer);
  }
}

/** What was last seen of a thread. */
interface Seen {
  watched: Watched;
  begun: number;
  since: number;
  said: boolean;
}

/** Watches threads, on a thread that has nothing else to do. */
export class WatchedThreads {
  readonly #threads = new Map<string, Seen>();
  readonly #end: (why: string) => void;
  readonly #timer: ReturnType<typeof setInterval>;

  /** @param end Called when something has not ended for too long. */
  constructor(end: (why: string) => void) {
    this.#end = end;
    this.#timer = setInterval(() => this.#look(), 250);
  }

  /** Whether a thread puts its output in order when the program is interrupted. */
  get graceful(): boolean {
    return [...this.#threads.values()].some(({ watched }) =>
      Atomics.load(watched.words, WORD.graceful) !== 0
    );
  }

  /** Watches a thread, or knows more names of one that is watched already. */
  add(watched: Watched): void {
    const seen = this.#threads.get(watched.id);
    if (seen !== undefined) seen.watched = watched;
    else {this.#threads.set(watched.id, {
        watched,
        begun: -1,
        since: performance.now(),
        said: false,
      });}
  }

  /** Watches no more. */
  stop(): void {
    clearInterval(this.#timer);
  }

  #look(): void {
    for (const seen of this.#threads.values()) {
      const { words, names } = seen.watched;
      const running = Atomics.load(words, WORD.running), begun = Atomics.load(words, WORD.begun);
      if (running === 0 || begun !== seen.begun) {
        Object.assign(seen, { begun, since: performance.now(), said: false });
        continue;
      }
      const what = names[running - 1] ?? "A policy";
      const step = what.startsWith("Step");
      const place = step ? `, at event ${Atomics.load(words, WORD.event)}` : "";
      const passed = performance.now() - seen.since;
      if (passed >= MOST_SECONDS * 1000) {
        this.#end(`${what} has not ended for ${MOST_SECONDS} s${place}: the run was ended`);
      } else if (passed >= SECONDS * 1000 && !seen.said) {
        seen.said = true;
        say(
          `${what} has not ended for ${SECONDS} s${place}: it seems to loop for ever. Ctrl-C ends ` +
            `the run, else it is ended after ${MOST_SECONDS} s`,
        );
      }
    }
  }
}

function say(text: string): void {
  Deno.stderr.writeSync(new TextEncoder().encode(`vmtape: ${text}\n`));
}
