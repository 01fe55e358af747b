/**
 * What a process prints that does one part of several, and how the parts are put
 * in order again.
 *
 * @module
 */
import type { TraceFile } from "../../codecs/mod.ts";
import type { EncodedLatency, Latency } from "../../engine/latency.ts";
import type { Policy } from "../../engine/policy.ts";
import { FileError, UsageError } from "../errors.ts";
import type { DiffPrint } from "../commands/diff.ts";
import type { DiffShare } from "./diff_share.ts";
import type { Task } from "./jobs.ts";
import { type Shard, type SharedWork, traceMark } from "./plan.ts";
import type { ReplayShare } from "./replay_share.ts";

/** Version of what is printed. */
const FORMAT = 2;

/** What every part says about itself. */
interface Head {
  /** Version of this form. */
  readonly format: number;
  /** Which part. */
  readonly shard: Shard;
  /** Of which trace. */
  readonly trace: { readonly id: string; readonly events: number };
}

/** A part of a replay. */
export interface ReplayShard extends Head {
  /** What was asked for. */
  readonly task: {
    readonly command: "replay";
    readonly policy?: string;
    readonly all: boolean;
  };
  /** What came of each group. */
  readonly shares: readonly ReplayShare[];
}

/** A part of a diff. */
export interface DiffShard extends Head {
  /** What was asked for. */
  readonly task: {
    readonly command: "diff";
    readonly policies: readonly string[];
    readonly runs: boolean;
    /** How to print it. */
    readonly print: DiffPrint;
  };
  /** What came of each group. */
  readonly shares: readonly DiffShare[];
}

/** A part of a measurement. */
export interface StatsShard extends Head {
  /** What was asked for. */
  readonly task: {
    readonly command: "stats";
    readonly policies: readonly string[];
    readonly passes: number;
  };
  /** Number of the first event of each group. */
  readonly firsts: readonly number[];
  /** Cost of two clock reads, in nanoseconds. */
  readonly timerCost: number;
  /** The histograms. */
  readonly latency: readonly EncodedLatency[];
}

/** Any part. */
export type ShardFile = ReplayShard | DiffShard | StatsShard;

function head(shard: Shard, trace: TraceFile): Head {
  return { format: FORMAT, shard, trace: traceMark(trace) };
}

/** Does one part of a replay or a diff. */
export async function shardFile<T extends Task>(
  shard: Shard,
  { trace, shares }: SharedWork<T>,
  task: Readonly<Record<string, unknown>>,
): Promise<Readonly<Record<string, unknown>>> {
  return { ...head(shard, trace), task, shares: await Array.fromAsync(shares) };
}

/** One part of a measurement. */
export function statsShardFile(
  shard: Shard,
  trace: TraceFile,
  firsts: readonly number[],
  latency: Latency,
  given: { readonly passes: number; readonly policies: readonly Policy[] },
): StatsShard {
  const { passes, policies } = given;
  return {
    ...head(shard, trace),
    task: { command: "stats", policies: policies.map(({ name }) => name), passes },
    firsts,
    timerCost: latency.timerCost,
    latency: latency.encode(),
  };
}

/**
 * Reads a part.
 *
 * @param path Its file, for messages.
 * @param text What is in it.
 * @returns The part.
 * @throws {FileError} When it is none.
 */
export function parseShard(path: string, text: string): ShardFile {
  const fail = (why: string) => new FileError(path, `${path} is no output of --shard: ${why}`);
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw fail((error as Error).message);
  }
  const { format, shard, trace, task } = (value ?? {}) as Partial<ShardFile>;
  if (format === undefined || shard === undefined || trace === undefined || task === undefined) {
    throw fail("It lacks format, shard, trace or task");
  }
  if (format !== FORMAT) throw fail(`It has format ${format}; this program reads ${FORMAT}`);
  return value as ShardFile;
}

/** Where a part begins in the trace; one without any group comes last. */
export function firstOf(part: ShardFile): number {
  return ("firsts" in part ? part.firsts[0] : part.shares[0]?.from) ?? Infinity;
}

/**
 * Checks that parts are of one run, each once, none missing.
 *
 * @param parts The parts, with their files' names.
 * @returns They, in order.
 * @throws {UsageError} When they are not.
 */
export function wholeOf(parts: readonly (readonly [string, ShardFile])[]): ShardFile[] {
  const [path, first] = parts[0]!;
  // How to print it is said by the first part: names of files differ from machine to machine.
  const same = ({ trace, task, shard }: ShardFile) =>
    JSON.stringify([trace, { ...task, print: undefined }, shard.of]);
  const byIndex = new Map<number, string>();
  for (const [name, part] of parts) {
    if (same(part) !== same(first)) {
      throw new UsageError(`${name} and ${path} are not of one run: trace, options or N differ`);
    }
    const { index } = part.shard;
    const other = byIndex.get(index);
    if (other !== undefined) {
      throw new UsageError(`${other} and ${name} are both part ${index}`);
    }
    byIndex.set(index, name);
  }
  const missing = Array.from({ length: first.shard.of }, (_, i) => i).filter((i) =>
    !byIndex.has(i)
  );
  if (missing.length > 0) {
    throw new UsageError(`Of ${first.shard.of} parts these are missing: ${missing.join(", ")}`);
  }
  return parts.map(([, part]) => part).sort((a, b) => a.shard.index - b.shard.index);
}
