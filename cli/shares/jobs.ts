/**
 * Carrying out groups of a trace on several threads, and giving their results in
 * the order of the trace.
 *
 * @module
 */
import type { TraceFile } from "../../codecs/mod.ts";
import { loadPolicies, loadPolicy } from "../policy_input.ts";
import { type DiffShare, GroupDiffer } from "./diff_share.ts";
import { type Group, IndivisibleError } from "./groups.ts";
import { Queue } from "./queue.ts";
import { KnownPaths, type ReplayShare, replayShare } from "./replay_share.ts";
import { type ReportShare, reportShare } from "./report_share.ts";
import { startThread, type Thread } from "./threads.ts";

/** What is to be done with each group. */
export type Task =
  | {
    readonly command: "replay";
    readonly policy: string | undefined;
    readonly processor?: string | undefined;
    readonly all: boolean;
    readonly each: boolean;
  }
  | {
    readonly command: "diff";
    readonly policies: readonly string[];
    readonly processor?: string | undefined;
    readonly each: boolean;
    /** Whether each run that ends up differently is wanted. */
    readonly runs: boolean;
  }
  | {
    readonly command: "report";
    readonly policies: readonly string[];
    readonly processor?: string | undefined;
    readonly each: boolean;
  };

/** What comes of a task for one group. */
export type ShareOf<T extends Task> = T extends { command: "replay" } ? ReplayShare
  : T extends { command: "report" } ? ReportShare
  : DiffShare;

/** What a worker is told first: the file and the task; then what groups there are. */
export interface Assignment {
  /** Path of the trace, which each thread opens for itself. */
  readonly path: string;
  /** What to do. */
  readonly task: Task;
}

/** A worker's answer to a group. */
export interface Answer {
  /** Number of the group. */
  readonly index: number;
  /** What came of it; nothing when it failed, and why is found out in its turn. */
  readonly share?: ReplayShare | DiffShare | ReportShare;
}

/** Groups that may be done before the ones before them are taken, for each thread. */
const AHEAD = 4;

/** What a thread knows from the groups that it carried out, for the next one. */
export class Learned {
  /** The paths of a replay. */
  readonly paths: KnownPaths = new KnownPaths();
  /** What compares policies. */
  differ: GroupDiffer | undefined;
}

/**
 * Carries out a task for one group, on this thread.
 *
 * @param trace The trace.
 * @param task The task.
 * @param group The group.
 * @param whole Whether it goes to the end of the trace, so that it depends on nothing after it.
 * @param learned What the thread knows from the groups before.
 */
export async function shareOf<T extends Task>(
  trace: TraceFile,
  task: T,
  group: Group,
  whole: boolean,
  learned: Learned,
): Promise<ShareOf<T>> {
  if (task.command === "replay") {
    const policy = task.policy === undefined
      ? undefined
      : await loadPolicy(task.policy, task.processor);
    return await replayShare(trace, group, whole, policy, task, learned.paths) as ShareOf<T>;
  }
  const policies = () => loadPolicies(task.policies, task.processor);
  if (task.command === "report") {
    return await reportShare(trace, group, whole, await policies(), task.each) as ShareOf<T>;
  }
  const differ = learned.differ ?? new GroupDiffer(await policies(), task);
  // One that does not come to the end of a group can take no other.
  learned.differ = undefined;
  const share = await differ.share(trace, group, whole);
  learned.differ = differ;
  return share as ShareOf<T>;
}

/**
 * Carries out a task for groups.
 *
 * @param trace The trace.
 * @param task The task.
 * @param groups The groups, in order.
 * @param workers Threads to do it on beside this one, from {@linkcode startWorkers}.
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
  const pool = new Pool(groups, workers.threads);
  const end = trace.eventCount;
  const learned = new Learned();
  const here = (group: Group) => shareOf(trace, task, group, false, learned);
  for (const [i, group] of groups.entries()) {
    const share = await pool.answer(i, here);
    if (share !== undefined) {
      yield share as ShareOf<T>;
      continue;
    }
    try {
      // One that failed is done again behind others that come after it: nothing is learned from those.
      const before = pool.shares ? new Learned() : learned;
      yield await shareOf(trace, task, group, all && group.to === end, before);
    } catch (error) {
      if (!all || !(error instanceof IndivisibleError)) throw error;
      yield await shareOf(trace, task, { ...group, to: end }, true, new Learned());
      return;
    }
  }
}

/** Threads that wait for groups. */
export interface Workers extends Disposable {
  /** Those that take groups; they end when this is disposed of. */
  readonly threads: readonly Thread[];
}

/**
 * Starts threads; while they load their code, there is time to find out how to share out the trace.
 *
 * @param assignment What they will be given groups of, and what for.
 * @param jobs How many threads, this one among them.
 */
export function startWorkers(assignment: Assignment, jobs: number): Workers {
  const threads = Array.from({ length: jobs - 1 }, () => {
    const worker = startThread();
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

/** Has groups carried out by workers and, while it would wait for them, by this thread. */
class Pool {
  readonly #queue: Queue | undefined;
  readonly #answers: PromiseWithResolvers<Answer["share"]>[];
  readonly #settled = new Set<number>();

  constructor(groups: readonly Group[], workers: readonly Thread[]) {
    this.#answers = groups.map(() => Promise.withResolvers());
    if (groups.length < 2 || workers.length === 0) return;
    this.#queue = Queue.of(groups, AHEAD * (workers.length + 1));
    for (const worker of workers) {
      worker.onmessage = ({ data: { index, share } }: MessageEvent<Answer>) =>
        this.#settle(index, share);
      worker.onerror = (event) => {
        event.preventDefault();
        // Which groups it had is not known: those that no other answers to are done in their turn.
        for (const index of groups.keys()) this.#settle(index, undefined);
      };
      worker.postMessage({ parts: this.#queue.parts });
    }
  }

  /** Whether others take part. */
  get shares(): boolean {
    return this.#queue !== undefined;
  }

  #settle(index: number, share: Answer["share"]): void {
    this.#settled.add(index);
    this.#answers[index]!.resolve(share);
  }

  /**
   * What came of a group; they are asked for in order.
   *
   * @param index Number of the group.
   * @param here Carries out a group on this thread.
   * @returns What came of it; undefined when it failed, or is for this thread alone.
   */
  async answer(
    index: number,
    here: (group: Group) => Promise<Answer["share"]>,
  ): Promise<Answer["share"]> {
    const queue = this.#queue;
    if (queue === undefined) return undefined;
    queue.use(index);
    while (!this.#settled.has(index) && queue.open) {
      const taken = queue.take();
      if (taken === undefined) break;
      this.#settle(taken, await here(queue.parts.groups[taken]!).catch(() => undefined));
      // Lets in what the others said meanwhile.
      await new Promise((resolve) => setTimeout(resolve));
    }
    const share = await this.#answers[index]!.promise;
    this.#answers[index] = Promise.withResolvers();
    return share;
  }
}
