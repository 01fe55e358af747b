/**
 * Carrying out groups of a trace on several threads, and giving their results in
 * the order of the trace.
 *
 * @module
 */
import type { TraceFile } from "../../codecs/mod.ts";
import { loadPolicy } from "../policy_input.ts";
import { type DiffShare, diffShare } from "./diff_share.ts";
import { type Group, IndivisibleError } from "./groups.ts";
import { type ReplayShare, replayShare } from "./replay_share.ts";

/** What is to be done with each group. */
export type Task =
  | {
    readonly command: "replay";
    readonly policy: string | undefined;
    readonly all: boolean;
    readonly each: boolean;
  }
  | { readonly command: "diff"; readonly policies: readonly string[]; readonly each: boolean };

/** What comes of a task for one group. */
export type ShareOf<T extends Task> = T extends { command: "replay" } ? ReplayShare : DiffShare;

/** What a worker is told first: the file and the task; then groups. */
export interface Assignment {
  /** The trace. */
  readonly path: string;
  /** What to do. */
  readonly task: Task;
}

/** A worker's answer to a group. */
export interface Answer {
  /** What came of it; nothing when it failed, and why is found out in its turn. */
  readonly share?: ReplayShare | DiffShare;
}

/** Groups that may be done before the ones before them are taken, for each thread. */
const AHEAD = 4;

/** Carries out a task for one group, on this thread. */
export async function shareOf<T extends Task>(
  trace: TraceFile,
  task: T,
  group: Group,
  whole: boolean,
): Promise<ShareOf<T>> {
  if (task.command === "replay") {
    const policy = task.policy === undefined ? undefined : await loadPolicy(task.policy);
    return await replayShare(trace, group, whole, policy, task) as ShareOf<T>;
  }
  const policies = await Promise.all(task.policies.map(loadPolicy));
  return await diffShare(trace, group, whole, policies, task.each) as ShareOf<T>;
}

/**
 * Carries out a task for groups.
 *
 * @param trace The trace.
 * @param task The task.
 * @param groups The groups, in order.
 * @param workers Threads to do it on, from {@linkcode startWorkers}; none for this one.
 * @param all Whether the groups are all of the trace: when one cannot stand alone, it and all
 * after it are then one.
 * @returns What came of each, in order. What goes wrong in one is thrown in its turn.
 */
export async function* sharesOf<T extends Task>(
  trace: TraceFile,
  task: T,
  groups: readonly Group[],
  workers: Workers,
  all: boolean,
): AsyncGenerator<ShareOf<T>> {
  const pool = new Pool(groups, groups.length < 2 ? [] : workers.threads.slice(0, groups.length));
  const end = trace.eventCount;
  for (const [i, group] of groups.entries()) {
    const { share } = await pool.answer(i);
    if (share !== undefined) {
      yield share as ShareOf<T>;
      continue;
    }
    try {
      yield await shareOf(trace, task, group, all && group.to === end);
    } catch (error) {
      if (!all || !(error instanceof IndivisibleError)) throw error;
      yield await shareOf(trace, task, { ...group, to: end }, true);
      return;
    }
  }
}

/** Threads that wait for groups. */
export interface Workers extends Disposable {
  /** The threads. */
  readonly threads: readonly Worker[];
}

/**
 * Starts threads; while they load their code, there is time to find out how to share out the trace.
 *
 * @param assignment What they will be given groups of, and what for.
 * @param jobs How many threads; 1 for none beside this one.
 */
export function startWorkers(assignment: Assignment, jobs: number): Workers {
  const threads = Array.from({ length: jobs === 1 ? 0 : jobs }, () => {
    const worker = new Worker(new URL("./worker.ts", import.meta.url), { type: "module" });
    worker.postMessage(assignment);
    return worker;
  });
  return {
    threads,
    [Symbol.dispose]() {
      for (const worker of threads) worker.terminate();
    },
  };
}

/** Gives groups to workers, in order. */
class Pool {
  readonly #groups: readonly Group[];
  readonly #workers: readonly Worker[];
  readonly #idle: Worker[] = [];
  readonly #answers: PromiseWithResolvers<Answer>[];
  #next = 0;
  #taken = 0;

  constructor(groups: readonly Group[], workers: readonly Worker[]) {
    this.#groups = groups;
    this.#workers = workers;
    this.#answers = groups.map(() => Promise.withResolvers());
    for (const worker of workers) this.#give(worker);
  }

  /** What came of a group; they are asked for in order. */
  async answer(index: number): Promise<Answer> {
    if (this.#workers.length === 0) return {};
    this.#taken = index;
    while (this.#idle.length > 0 && this.#wanted()) this.#give(this.#idle.pop()!);
    return await this.#answers[index]!.promise;
  }

  #wanted(): boolean {
    return this.#next < this.#groups.length &&
      this.#next < this.#taken + AHEAD * this.#workers.length;
  }

  #give(worker: Worker): void {
    if (!this.#wanted()) {
      this.#idle.push(worker);
      return;
    }
    const index = this.#next++;
    const done = (answer: Answer) => {
      this.#answers[index]!.resolve(answer);
      this.#give(worker);
    };
    worker.onmessage = ({ data }: MessageEvent<Answer>) => done(data);
    worker.onerror = (event) => {
      event.preventDefault();
      done({});
    };
    worker.postMessage(this.#groups[index]);
  }
}
