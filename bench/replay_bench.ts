/**
 * What replay and diff cost beside the least they could: copying the two pages
 * of 4 KiB that a round trip has to touch.
 *
 * All in one run on one machine, so that the figures go together. Traces are
 * encoded, in memory; decoding them is part of what is measured. Every replay
 * holds all that was recorded against what it does, and folds all modelled
 * state into its digest: nothing is skipped to be fast.
 *
 * `deno bench --allow-all bench/replay_bench.ts`
 *
 * @module
 */
import { copyEvent, readTrace, TraceWriter } from "../codecs/mod.ts";
import type { TraceEvent } from "../engine/event.ts";
import {
  Differ,
  type DiffResult,
  EARLY_EXIT,
  Replayer,
  type ReplayResult,
  UNIFIED,
  UPSTREAM,
} from "../engine/mod.ts";
import { mix, steadyLoop } from "./round_trips.ts";

const RUNS = 2_000;
const MANY = 100_000;

async function encode(events: AsyncIterable<TraceEvent>): Promise<Uint8Array[]> {
  const chunks: Uint8Array[] = [];
  const writer = new TraceWriter({ write: (chunk) => void chunks.push(chunk) });
  for await (const event of events) writer.write(copyEvent(event));
  writer.close();
  return chunks;
}

/** Replays, and proves that it was the whole trace. */
async function replay(chunks: readonly Uint8Array[], runs: number): Promise<ReplayResult> {
  const replayer = new Replayer(UPSTREAM);
  for await (const block of (await readTrace(chunks)).blocks()) {
    for (const event of block.shared()) replayer.feed(event);
  }
  const result = replayer.finish();
  if (result.runs !== runs || result.agreed !== runs) throw new Error("Not what was recorded");
  return result;
}

async function diff(chunks: readonly Uint8Array[], runs: number): Promise<DiffResult> {
  const differ = new Differ([EARLY_EXIT, UNIFIED], () => {});
  for await (const block of (await readTrace(chunks)).blocks()) {
    for (const event of block.shared()) differ.feed(event);
  }
  const result = differ.finish();
  if (result.runs !== runs) throw new Error("Not the whole trace");
  return result;
}

const from = new Uint8Array(8192).fill(1);
const to = new Uint8Array(8192);
const PAGE = 4096;

Deno.bench("copy two pages, as often as the loop has round trips", {
  group: `${RUNS} round trips`,
  baseline: true,
}, () => {
  for (let i = 0; i < RUNS; i++) {
    to.set(from.subarray(0, PAGE), 0);
    to.set(from.subarray(PAGE), PAGE);
  }
});

const TRACES = { "steady loop": steadyLoop, "mix, half failing": mix } as const;
const digests = new Map<string, string>();

for (const [name, make] of Object.entries(TRACES)) {
  const chunks = await encode(make(UPSTREAM, RUNS));
  Deno.bench(`replay, ${name}`, { group: `${RUNS} round trips` }, async () => {
    const { digest } = await replay(chunks, RUNS);
    // The same trace and policy always give the same.
    if ((digests.get(name) ?? digest) !== digest) throw new Error("The digest changed");
    digests.set(name, digest);
  });
  Deno.bench(`diff of two policies, ${name}`, { group: `${RUNS} round trips` }, async () => {
    await diff(chunks, RUNS);
  });
}

const many = await encode(steadyLoop(UPSTREAM, MANY));
const once = { group: `${MANY} VMRUNs`, n: 1, warmup: 0 };
Deno.bench(`replay ${MANY} VMRUNs`, { ...once, baseline: true }, async () => {
  await replay(many, MANY);
});
Deno.bench(`diff ${MANY} VMRUNs`, once, async () => {
  await diff(many, MANY);
});
