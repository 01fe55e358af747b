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
  | { readonly command: "replay"; readonly policy: string | undefined; readonly all: boolean }
  | { readonly command: "diff"; readonly policies: readonly string[] };

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
    return await replayShare(trace, group, whole, policy, task.all) as ShareOf<T>;
  }
  const policies = await Promise.all(task.policies.map(loadPolicy));
  return await diffShare(trace, group, whole, policies) as ShareOf<T>;
}

/**
 * Carries out a task for groups.
 *
 * @param path The trace's file.
 * @param trace The trace.
 * @param task The task.
 * @param groups The groups, in order.
 * @param jobs How many threads; 1 for this one.
 * @param all Whether the groups are all of the trace: when one cannot stand alone, it and all
 * after it are then one.
 * @returns What came of each, in order. What goes wrong in one is thrown in its turn.
 */
export async function* sharesOf<T extends Task>(
  path: string,
  trace: TraceFile,
  task: T,
  groups: readonly Group[],
  jobs: number,
  all: boolean,
): AsyncGenerator<ShareOf<T>> {
  const size = jobs === 1 || groups.length < 2 ? 0 : Math.min(jobs, groups.length);
  using pool = new Pool({ path, task }, groups, size);
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
      yield await shareOf(trace, task, { from: group.from, to: end }, true);
      return;
    }
  }
}

/** Workers that take groups in order. */
class Pool {
  readonly #groups: readonly Group[];
  readonly #workers: Worker[] = [];
  readonly #idle: Worker[] = [];
  readonly #answers: PromiseWithResolvers<Answer>[];
  #next = 0;
  #taken = 0;

  constructor(assignment: Assignment, groups: readonly Group[], size: number) {
    this.#groups = groups;
    this.#answers = groups.map(() => Promise.withResolvers());
    for (let i = 0; i < size; i++) {
      const worker = new Worker(new URL("./worker.ts", import.meta.url), { type: "module" });
      worker.postMessage(assignment);
      this.#workers.push(worker);
      this.#give(worker);
    }
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

  [Symbol.dispose](): void {
    for (const worker of this.#workers) worker.terminate();
  }
}
