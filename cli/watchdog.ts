/**
 * Telling what of a user's policy does not end. JavaScript cannot interrupt a loop, but another
 * thread can see that nothing moves on, and end the one that loops.
 *
 * @module
 */
import { oneLine } from "./errors.ts";
import { STEP_LIMIT, STEP_SECONDS } from "./step_limit.ts";

/** Something that may not end. */
export interface Unending {
  /** What it is called. */
  readonly name: string;
  /** Whether it runs while an event is carried out, and is told with that. */
  readonly inEvent: boolean;
}

/** What a thread lets others see of it. */
export interface Watched {
  /** Words of {@linkcode WORD}. */
  readonly words: Int32Array<SharedArrayBuffer>;
  /** Tells the thread from others. */
  readonly id: string;
  /** What may not end, by number from 1. */
  readonly unending: readonly Unending[];
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
  /** Counts on while the thread does anything: goes on to another event, or lets others speak. */
  alive: 4,
} as const;

/** The part of the limit after which something counts as not ending. */
const EARLY = 1 / 4;

/** How often a thread shows that it lets others speak, and is looked at, in milliseconds. */
const OFTEN_MS = 250;

/** Memory that the program may take with policies of the user's, and more for each thread, in MiB. */
const MOST_MEMORY = 1024, MORE_MEMORY = 128;

const words = new Int32Array(new SharedArrayBuffer(4 * Object.keys(WORD).length));
const id = crypto.randomUUID();
const unending: Unending[] = [];
let report: ((watched: Watched) => void) | undefined;

/** Has another thread watch this one from now on. */
export function watchedThread(tell: (watched: Watched) => void): void {
  report = tell;
  setInterval(() => Atomics.add(words, WORD.alive, 1), OFTEN_MS);
  tell({ words, id, unending: [...unending] });
}

/** Notes the event that is being carried out. */
export function atEvent(event: number): void {
  words[WORD.event] = event;
  words[WORD.alive]!++;
}

/** Notes that the thread waits for others. */
export function isAlive(): void {
  words[WORD.alive]!++;
}

/** Whether a value is what a thread lets others see of it: a policy can send anything. */
export function isWatched(value: unknown): value is Watched {
  if (typeof value !== "object" || value === null) return false;
  const { words, id, unending } = value as Partial<Watched>;
  return words instanceof Int32Array && words.length >= Object.keys(WORD).length &&
    typeof id === "string" && Array.isArray(unending) && unending.every(isUnending);
}

function isUnending(value: unknown): value is Unending {
  if (typeof value !== "object" || value === null) return false;
  const { name, inEvent } = value as Partial<Unending>;
  return typeof name === "string" && typeof inEvent === "boolean";
}

/** Notes that the command puts its output in order when it is interrupted. */
export function willBeGraceful(): void {
  words[WORD.graceful] = 1;
}

/**
 * A number for something that may not end, by which it is told what runs.
 *
 * @param name What it is called.
 * @param inEvent Whether it runs while an event is carried out.
 */
export function numberOf(name: string, inEvent: boolean): number {
  const number = unending.push({ name: oneLine(name), inEvent });
  report?.({ words, id, unending: [...unending] });
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
  const outer = enter(numberOf(what, false));
  try {
    return await act();
  } finally {
    leave(outer);
  }
}

/** What was last seen of a thread. */
interface Seen {
  watched: Watched;
  moved: string;
  since: number;
  said: boolean;
}

/** Watches threads, on a thread that has nothing else to do. */
export class WatchedThreads {
  readonly #threads = new Map<string, Seen>();
  readonly #modules: string;
  readonly #end: (why: string) => void;
  readonly #most: number;
  readonly #timer: ReturnType<typeof setInterval>;

  /**
   * @param modules The modules whose code runs there.
   * @param end Called when something has not ended for too long, or takes too much memory.
   * @param most Seconds that something may take.
   */
  constructor(modules: readonly string[], end: (why: string) => void, most = STEP_SECONDS) {
    this.#modules = modules.map(oneLine).join(" or ");
    this.#end = end;
    this.#most = most;
    this.#timer = setInterval(() => this.#look(), OFTEN_MS);
  }

  /** Whether a thread puts its output in order when the program is interrupted. */
  get graceful(): boolean {
    return [...this.#threads.values()].some(({ watched }) =>
      Atomics.load(watched.words, WORD.graceful) !== 0
    );
  }

  /** Watches a thread, or knows more of one that is watched already. */
  add(watched: Watched): void {
    const seen = this.#threads.get(watched.id);
    if (seen !== undefined) seen.watched = watched;
    else {
      const since = performance.now();
      this.#threads.set(watched.id, { watched, moved: "", since, said: false });
    }
  }

  /** Watches no more. */
  stop(): void {
    clearInterval(this.#timer);
  }

  #look(): void {
    const memory = Deno.memoryUsage().rss / 2 ** 20;
    const most = MOST_MEMORY + MORE_MEMORY * this.#threads.size;
    if (memory > most) {
      this.#end(`With ${this.#modules} the run takes more than ${most} MiB: it was ended`);
    }
    for (const seen of this.#threads.values()) this.#lookAt(seen);
  }

  #lookAt(seen: Seen): void {
    const { words, unending } = seen.watched;
    const running = Atomics.load(words, WORD.running), begun = Atomics.load(words, WORD.begun);
    // While something of the user's runs that was told, only its end counts: a promise that nobody
    // keeps lets others speak. Else it is a getter, a check or what a kernel is made of.
    const alive = running === 0 ? Atomics.load(words, WORD.alive) : 0;
    const moved = `${begun} ${alive}`;
    if (moved !== seen.moved) {
      Object.assign(seen, { moved, since: performance.now(), said: false });
      return;
    }
    const other = { name: `What ${this.#modules} brings besides steps`, inEvent: true };
    const { name: what, inEvent } = unending[running - 1] ?? other;
    const place = inEvent ? `, at event ${Atomics.load(words, WORD.event)}` : "";
    const passed = (performance.now() - seen.since) / 1000, most = this.#most;
    if (passed >= most) {
      this.#end(
        `${what} has not ended for ${most} s${place}: the run was ended (--${STEP_LIMIT.name})`,
      );
    } else if (passed >= most * EARLY && !seen.said) {
      seen.said = true;
      say(
        `${what} has not ended for ${Math.round(most * EARLY)} s${place}: it seems to loop for ` +
          `ever. Ctrl-C ends the run, else it is ended after ${most} s`,
      );
    }
  }
}

function say(text: string): void {
  Deno.stderr.writeSync(new TextEncoder().encode(`vmtape: ${text}\n`));
}
