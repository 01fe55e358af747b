/**
 * What a process prints that does one part of several, and how the parts are put
 * in order again.
 *
 * @module
 */
import { createHash } from "node:crypto";
import type { TraceFile } from "../../codecs/mod.ts";
import type { EncodedLatency, Latency } from "../../engine/latency.ts";
import type { Policy } from "../../engine/policy.ts";
import { policyFingerprint } from "../../engine/replay/fingerprint.ts";
import { ShardError, UsageError } from "../errors.ts";
import { toJson } from "../output.ts";
import type { DiffPrint } from "../commands/diff.ts";
import type { DiffShare } from "./diff_share.ts";
import type { Task } from "./jobs.ts";
import type { Group } from "./groups.ts";
import { type Shard, type SharedWork, type TraceMark, traceMark } from "./plan.ts";
import { checkShard, checksumOf, ShardProblem, stretchesOf } from "./shard_check.ts";
import type { ReplayShare } from "./replay_share.ts";

/** Version of what is printed. */
const FORMAT = 4;

/** What every part says about itself. */
interface Head {
  /** Version of this form. */
  readonly format: number;
  /** Which part. */
  readonly shard: Shard;
  /** Of which trace. */
  readonly trace: TraceMark;
  /** Fingerprint of the policies: parts of other code do not belong together. */
  readonly model: string;
  /** Over all of the part but this. */
  readonly checksum: string;
}

/** A part of a replay. */
export interface ReplayShard extends Head {
  /** What was asked for. */
  readonly task: {
    readonly command: "replay";
    readonly policy?: string;
    readonly processor?: string | undefined;
    readonly all: boolean;
    readonly each: boolean;
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
    readonly processor?: string | undefined;
    readonly each: boolean;
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
  /** First event of each group, and the first behind it. */
  readonly ranges: readonly (readonly [number, number])[];
  /** Cost of two clock reads, in nanoseconds. */
  readonly timerCost: number;
  /** The histograms. */
  readonly latency: readonly EncodedLatency[];
}

/** Any part. */
export type ShardFile = ReplayShard | DiffShard | StatsShard;

/** A part, sealed with its checksum. */
async function seal(
  shard: Shard,
  trace: TraceFile,
  policies: readonly Policy[],
  rest: object,
): Promise<Readonly<Record<string, unknown>>> {
  const model = policiesFingerprint(policies);
  const part = { format: FORMAT, shard, trace: await traceMark(trace), model, ...rest };
  // As a reader sees it: what is undefined is not there.
  const plain = JSON.parse(toJson(part)) as Record<string, unknown>;
  return { ...plain, checksum: checksumOf(plain) };
}

/** A fingerprint of several policies. */
function policiesFingerprint(policies: readonly Policy[]): string {
  const all = policies.map(policyFingerprint).join();
  return createHash("sha256").update(all).digest("hex").slice(0, 32);
}

/** Does one part of a replay or a diff. */
export async function shardFile<T extends Task>(
  shard: Shard,
  { trace, shares }: SharedWork<T>,
  task: Readonly<Record<string, unknown>>,
  policies: readonly Policy[],
): Promise<Readonly<Record<string, unknown>>> {
  return await seal(shard, trace, policies, { task, shares: await Array.fromAsync(shares) });
}

/** One part of a measurement. */
export async function statsShardFile(
  shard: Shard,
  trace: TraceFile,
  groups: readonly Group[],
  latency: Latency,
  given: { readonly passes: number; readonly policies: readonly Policy[] },
): Promise<Readonly<Record<string, unknown>>> {
  const { passes, policies } = given;
  return await seal(shard, trace, policies, {
    task: { command: "stats", policies: policies.map(({ name }) => name), passes },
    ranges: groups.map(({ from, to }) => [from, to] as const),
    timerCost: latency.timerCost,
    latency: latency.encode(),
  });
}

/**
 * Reads a part.
 *
 * @param path Its file, for messages.
 * @param text What is in it.
 * @returns The part.
 * @throws {ShardError} When it is none, or not as it was printed.
 */
export function parseShard(path: string, text: string): ShardFile {
  const fail = (why: string) => new ShardError(path, `${path} is no output of --shard: ${why}`);
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw fail((error as Error).message);
  }
  const { format } = (value ?? {}) as Partial<ShardFile>;
  if (typeof format === "number" && format !== FORMAT) {
    throw new ShardError(
      path,
      `${path} has format ${format}, and this program reads ${FORMAT}: ` +
        "print the parts again with one version of it",
      "unsupported",
    );
  }
  try {
    checkShard(value);
  } catch (error) {
    if (error instanceof ShardProblem) throw fail(error.message);
    throw error;
  }
  return value as ShardFile;
}

/** Where a part begins in the trace; one without any group comes last. */
export function firstOf(part: ShardFile): number {
  return stretchesOf(part)[0]?.[0] ?? Infinity;
}

/** Most parts that are told to be missing. */
const MOST_TOLD = 20;

/**
 * Checks that parts are of one run, each once, none missing, and that they are all of the trace.
 *
 * @param parts The parts, with their files' names.
 * @returns They, in order.
 * @throws {UsageError} When they are not.
 */
export function wholeOf(parts: readonly (readonly [string, ShardFile])[]): ShardFile[] {
  const [path, first] = parts[0]!;
  // How to print it is said by the first part: names of files differ from machine to machine.
  const same = ({ trace, task, shard, model }: ShardFile) =>
    JSON.stringify([trace, { ...task, print: undefined }, shard.of, model]);
  const byIndex = new Map<number, string>();
  for (const [name, part] of parts) {
    if (same(part) !== same(first)) {
      throw new UsageError(
        `${name} and ${path} are not of one run: trace, options, N or version differ`,
      );
    }
    const { index } = part.shard;
    const other = byIndex.get(index);
    if (other !== undefined) {
      throw new UsageError(`${other} and ${name} are both part ${index}`);
    }
    byIndex.set(index, name);
  }
  const { of } = first.shard;
  if (byIndex.size < of) {
    const missing: number[] = [];
    for (let i = 0; i < of && missing.length <= MOST_TOLD; i++) {
      if (!byIndex.has(i)) missing.push(i);
    }
    const more = of - byIndex.size > MOST_TOLD ? ", …" : "";
    throw new UsageError(
      `Of ${of} parts these are missing: ${missing.slice(0, MOST_TOLD).join(", ")}${more}`,
    );
  }
  requireAll(parts.map(([, part]) => part), first.trace.events);
  return parts.map(([, part]) => part).sort((a, b) => a.shard.index - b.shard.index);
}

/** Every event of the trace has to be in one part, and in no other. */
function requireAll(parts: readonly ShardFile[], events: number): void {
  const all = parts.flatMap((part) => stretchesOf(part)).sort(([a, x], [b, y]) => a - b || x - y);
  let next = 0;
  for (const [from, to] of all) {
    if (from !== next) {
      throw new UsageError(
        `Events ${Math.min(from, next)} to ${Math.max(from, next) - 1} are ${
          from > next ? "in no part" : "in two parts"
        }`,
      );
    }
    next = to;
  }
  if (next !== events) throw new UsageError(`Events ${next} to ${events - 1} are in no part`);
}
