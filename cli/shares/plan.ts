/**
 * How a command's work is shared out: over threads of this process, and over
 * processes that each do a part of it.
 *
 * @module
 */
import type { TraceFile } from "../../codecs/mod.ts";
import type { Policy } from "../../engine/policy.ts";
import type { Option } from "../command.ts";
import type { Context } from "../context.ts";
import { UsageError } from "../errors.ts";
import { openTraceFile } from "../inputs.ts";
import { loadPolicy } from "../policy_input.ts";
import { type Group, type GroupSize, groupsOf } from "./groups.ts";
import { type ShareOf, sharesOf, startWorkers, type Task } from "./jobs.ts";

/** The option that names one part of several. */
export const SHARD = {
  name: "shard",
  kind: "text",
  value: "I/N",
  doc: 'Do part I of N (0/8 … 7/8) of the trace; with --json, for "vmtape merge"',
} as const satisfies Option;

/** The option that has nothing taken over from runs before. */
export const EACH = {
  name: "each",
  kind: "flag",
  doc: "Carry out every run, also one that repeats another byte for byte from the same state",
} as const satisfies Option;

/** The option that has threads work. */
export const JOBS = {
  name: "jobs",
  short: "j",
  kind: "number",
  doc: "Work on so many threads, no more than there are processors (1)",
} as const satisfies Option;

/** The options that share out a command's work. */
export const SHARES = [
  JOBS,
  SHARD,
  EACH,
] as const satisfies readonly Option[];

/** One part of several. */
export interface Shard {
  /** Number of the part, from 0. */
  readonly index: number;
  /** How many there are. */
  readonly of: number;
}

/** Groups in a shard; several, so that no shard has all of the hard ones. */
const GROUPS_A_SHARD = 4;
/**
 * Events that a group for a thread has at most, where sessions allow: its result is held in memory. That
 * of a replay that lists nothing does not grow.
 */
const MOST_EVENTS = { replay: 2_000_000, diff: 1_000_000, report: 500_000 } as const;
/** Of what is left, what a thread is given: less and less, so that all are done at about the same time. */
const SHARE_OF_REST = 1 / 2;
/** Of all, what a thread is given at least, so that nobody waits for long at the end. */
const LEAST_SHARE = 1 / 64;
/**
 * The same where another group costs something: it begins with nothing remembered, or is part of a block,
 * which is decoded for each of the groups that meet in it.
 */
const LEAST_COSTLY_SHARE = 1 / 16;

/**
 * The part that an option names.
 *
 * @param text Its value.
 * @param json Whether JSON is printed.
 * @returns The part; undefined for all of it.
 * @throws {UsageError} When it names none.
 */
export function shardOf(text: string | undefined, json: boolean): Shard | undefined {
  if (text === undefined) return undefined;
  const [, index, of] = /^(\d{1,6})\/(\d{1,6})$/.exec(text) ?? [];
  if (Number(index) >= Number(of) || of === undefined) {
    throw new UsageError(
      `Option --shard needs a part and how many there are, such as 0/8 … 7/8, not ${
        JSON.stringify(text)
      }`,
    );
  }
  if (!json) throw new UsageError("Option --shard needs --json: only merged parts can be printed");
  return { index: Number(index), of: Number(of) };
}

/**
 * The number of threads that an option names.
 *
 * @param jobs Its value.
 * @throws {UsageError} When it is 0.
 */
export function jobsOf(jobs: number | undefined): number {
  if (jobs === 0) throw new UsageError("Option --jobs is at least 1");
  // More threads than processors would only take memory.
  return Math.min(jobs ?? 1, Math.max(1, navigator.hardwareConcurrency));
}

/** The groups of a shard: every n-th. */
export async function groupsOfShard(
  trace: TraceFile,
  { index, of }: Shard,
  named: boolean,
  policy: Policy | undefined | null,
): Promise<Group[]> {
  requireFinished(trace);
  const count = of * GROUPS_A_SHARD;
  // What is left, evenly: a session that goes beyond its share leaves less for all the others.
  const size = (left: number, groups: number) => Math.ceil(left / (count - groups));
  const found = await Array.fromAsync(groupsOf(trace, size, named, policy));
  return found.filter((_, i) => i % of === index);
}

/** How large groups for threads are. */
function sizeForJobs(trace: TraceFile, task: Task, jobs: number): GroupSize {
  const { eventCount: total, index } = trace;
  if (jobs === 1) return () => total;
  const share = (least: number) => least * total / jobs;
  const block = total / Math.max(1, index.length);
  const least = task.command === "report"
    ? share(LEAST_COSTLY_SHARE)
    : Math.max(share(LEAST_SHARE), Math.min(block, share(LEAST_COSTLY_SHARE)));
  const most = task.command === "replay" && !task.all ? total : MOST_EVENTS[task.command];
  return (left) => Math.min(most, Math.ceil(Math.max(least, SHARE_OF_REST * left / jobs)));
}

/** Which trace a part is of. */
export interface TraceMark {
  /** Its id. */
  readonly id: string;
  /** How many events it has. */
  readonly events: number;
  /** Digest of its content. */
  readonly digest: string;
}

/** Which trace a part is of, so that parts of others are told. */
export async function traceMark(trace: TraceFile): Promise<TraceMark> {
  const digest = (await trace.digest()).toHex();
  return { id: trace.header.id.toHex(), events: trace.eventCount, digest };
}

/** Throws what is wrong with a trace that is not whole: parts of it would not add up to anything. */
function requireFinished(trace: TraceFile): void {
  trace.requireEvents(0, Infinity);
}

/** Work that is shared out over threads. */
export interface SharedWork<T extends Task> {
  /** The trace whose groups are shared out. */
  readonly trace: TraceFile;
  /** What comes of each group, in order. */
  readonly shares: AsyncIterable<ShareOf<T>>;
}

/**
 * Shares out a command's work, and calls back with what comes of it.
 *
 * @param context Where notes go.
 * @param path The trace's file.
 * @param task What to do with each group.
 * @param options Number of threads, and the part of the trace.
 * @param use Receives the results.
 * @returns What that returns.
 */
export async function withShares<T extends Task, R>(
  context: Context,
  path: string,
  task: T,
  options: { readonly jobs: number; readonly shard: Shard | undefined },
  use: (work: SharedWork<T>) => Promise<R>,
): Promise<R> {
  const { jobs, shard } = options;
  // While threads load their code, there is time to read how the trace can be shared out.
  using workers = startWorkers({ path, task }, jobs);
  using file = await openTraceFile(path);
  const { trace } = file;
  requireFinished(trace);
  const named = task.command !== "replay" || task.policy !== undefined;
  const policy = task.command !== "replay"
    ? null
    : task.policy !== undefined
    ? await loadPolicy(task.policy, task.processor)
    // Checkpoints hold what the recorded processor did.
    : task.processor === undefined
    ? undefined
    : null;
  const groups = shard === undefined
    ? await Array.fromAsync(
      groupsOf(
        trace,
        sizeForJobs(trace, task, jobs),
        named,
        policy,
      ),
    )
    : await groupsOfShard(trace, shard, named, policy);
  if (jobs > 1 && groups.length < 2) {
    context.note(
      "Nothing to share out: a run depends on all of its session, and this is one session" +
        (task.command === "replay" ? "; vmtape checkpoint makes places to begin at" : ""),
    );
  }
  return await use({
    trace,
    shares: sharesOf(trace, task, groups, workers, shard === undefined),
  });
}
