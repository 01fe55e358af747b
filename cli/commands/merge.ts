/**
 * The subcommand `merge`.
 *
 * @module
 */
import { Latency } from "../../engine/latency.ts";
import { defineCommand } from "../command.ts";
import type { Context } from "../context.ts";
import { EXIT } from "../command.ts";
import { ShardError } from "../errors.ts";
import { readText } from "../files.ts";
import { ClosedOutputError } from "../output.ts";
import { DiffTotal } from "../shares/diff_share.ts";
import { ReplayTotal } from "../shares/replay_share.ts";
import {
  type DiffShard,
  firstOf,
  parseShard,
  type ReplayShard,
  type ShardFile,
  type StatsShard,
  wholeOf,
} from "../shares/shard_file.ts";
import { printDiff, printRun } from "./diff.ts";
import { printMismatch, printReplay } from "./replay.ts";
import { printStats } from "./stats.ts";

function inOrder<T extends { readonly from: number }>(
  parts: readonly { readonly shares: readonly T[] }[],
): T[] {
  return parts.flatMap((part) => part.shares).sort((a, b) => a.from - b.from);
}

function mergeReplay(context: Context, parts: readonly ReplayShard[]): number {
  const total = new ReplayTotal();
  for (const share of inOrder(parts)) {
    total.add(share);
    for (const mismatch of share.all) printMismatch(context, mismatch);
  }
  return printReplay(context, total.results, total.found);
}

function mergeDiff(context: Context, parts: readonly DiffShard[]): number {
  const { runs, print } = parts[0]!.task;
  const total = new DiffTotal(
    runs ? (difference) => printRun(context, difference) : undefined,
  );
  for (const share of inOrder(parts)) total.add(share);
  return printDiff(context, total.result, total.findings, print);
}

async function mergeStats(
  context: Context,
  parts: readonly StatsShard[],
  hgrm: boolean,
): Promise<number> {
  using latency = await Latency.create();
  for (const part of parts.toSorted((a, b) => firstOf(a) - firstOf(b))) {
    for (const encoded of part.latency) latency.add(encoded);
  }
  // Each process took off what its own clock costs; the dearest is named.
  const timerCost = Math.max(...parts.map((part) => part.timerCost));
  const { passes, policies } = parts[0]!.task;
  printStats(context, latency, { timerCost, passes, policies, form: hgrm ? "hgrm" : undefined });
  return EXIT.ok;
}

function areOf<K extends ShardFile["task"]["command"]>(
  parts: readonly ShardFile[],
  command: K,
): parts is readonly Extract<ShardFile, { task: { command: K } }>[] {
  return parts[0]?.task.command === command;
}

/** Puts the output of shards together. */
export const merge = defineCommand({
  name: "merge",
  summary: "Print what one run would have, from what runs with --shard printed",
  details:
    "Takes the output of replay, diff or stats with --shard I/N --json, of every I from 0 to N-1 " +
    "and in any order. The exit status is that of the one run, too.",
  operands: { usage: "PART…", min: 1 },
  options: [
    { name: "hgrm", kind: "flag", doc: "Of stats: print the distributions" },
  ],
  examples: [
    {
      line: "merge part0.json part1.json",
      doc: "The whole of what `vmtape diff … --shard 0/2 --json > part0.json` and 1/2 did",
    },
  ],
  async run(context, { options, operands }) {
    const files: [string, ShardFile][] = [];
    for (const path of operands) files.push([path, parseShard(path, await readText(path))]);
    const parts = wholeOf(files);
    try {
      if (areOf(parts, "replay")) return mergeReplay(context, parts);
      if (areOf(parts, "diff")) return mergeDiff(context, parts);
      return await mergeStats(context, parts as readonly StatsShard[], options.hgrm);
    } catch (error) {
      // A part whose checksum somebody made right again may hold differences that are none.
      if (error instanceof ClosedOutputError) throw error;
      const why = error instanceof Error ? error.message : String(error);
      throw new ShardError(operands[0]!, `The parts cannot be put together: ${why}`);
    }
  },
});
