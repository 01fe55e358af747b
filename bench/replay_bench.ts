/**
 * What replay and diff cost beside the least they could: copying the two pages
 * of 4 KiB that a round trip has to touch.
 *
 * All in one run on one machine, so that the figures go together. Traces are
 * encoded, in memory; decoding them is part of what is measured. Every replay
 * holds all that was recorded against what it does, and folds all modelled
 * state into its digest: nothing is skipped to be fast. A run that comes again,
 * byte for byte from the same state, may be taken over; the rows "each carried
 * out" are without that, and every VMRUN of the loop that varies is another.
 *
 *     deno bench --allow-all bench/replay_bench.ts
 *     deno run --allow-all bench/replay_bench.ts table               a table
 *     deno run --allow-all bench/replay_bench.ts table --baseline    and keep it
 *
 * @module
 */
import { readTrace } from "../codecs/mod.ts";
import type { TraceEvent } from "../engine/event.ts";
import {
  Differ,
  EARLY_EXIT,
  Findings,
  MemoizedDiffer,
  MemoizedReplayer,
  Replayer,
  UNIFIED,
  UPSTREAM,
} from "../engine/mod.ts";
import { machine, median, print, writeBaseline } from "./table.ts";
import { encode, mix, steadyLoop, varyingLoop } from "./round_trips.ts";

/** VMRUNs in one iteration. */
const RUNS = 20_000;
/** Iterations that are not counted, and those that are. */
const WARM = 3, COUNTED = 7;
const PAGE = 4096;

/** Feeds a trace to a replay or a diff. */
async function feed(chunks: readonly Uint8Array[], take: (event: TraceEvent) => void) {
  for await (const block of (await readTrace(chunks)).blocks()) {
    for (const event of block.shared()) take(event);
  }
}

/** Replays, and proves that it was the whole trace and as recorded. */
async function replay(chunks: readonly Uint8Array[], memoize: boolean): Promise<void> {
  const replayer = new (memoize ? MemoizedReplayer : Replayer)(UPSTREAM);
  await feed(chunks, (event) => replayer.feed(event));
  const { runs, agreed } = replayer.finish();
  if (runs !== RUNS || agreed !== runs) throw new Error("Not what was recorded");
}

async function diff(chunks: readonly Uint8Array[], memoize: boolean): Promise<void> {
  const findings = new Findings();
  const differ = new (memoize ? MemoizedDiffer : Differ)(
    [EARLY_EXIT, UNIFIED],
    (found) => findings.add(found),
  );
  await feed(chunks, (event) => differ.feed(event));
  if (differ.finish().runs !== RUNS || findings.list().length === 0) throw new Error("Not it all");
}

async function decode(chunks: readonly Uint8Array[]): Promise<void> {
  let runs = 0;
  await feed(chunks, (event) => {
    if (event.kind === "vmrun") runs++;
  });
  if (runs !== RUNS) throw new Error("Not the whole trace");
}

const from = new Uint8Array(2 * PAGE).fill(1);
const to = new Uint8Array(2 * PAGE);

/** Copies two pages as often as there are VMRUNs. */
function copies(): void {
  for (let i = 0; i < RUNS; i++) {
    to.set(from.subarray(0, PAGE), 0);
    to.set(from.subarray(PAGE), PAGE);
  }
}

const WORKLOADS = {
  "steady loop": () => steadyLoop(UPSTREAM, RUNS),
  "loop that varies": () => varyingLoop(UPSTREAM, RUNS),
  "mix, half failing": () => mix(UPSTREAM, RUNS),
} as const;

const WORK = {
  decode,
  replay: (chunks: readonly Uint8Array[]) => replay(chunks, true),
  "replay, each carried out": (chunks: readonly Uint8Array[]) => replay(chunks, false),
  diff: (chunks: readonly Uint8Array[]) => diff(chunks, true),
  "diff, each carried out": (chunks: readonly Uint8Array[]) => diff(chunks, false),
} as const;

/** Microseconds a VMRUN: best and median of several iterations. */
async function measure(
  work: () => void | Promise<void>,
): Promise<{ best: number; middle: number }> {
  const times: number[] = [];
  for (let i = 0; i < WARM + COUNTED; i++) {
    const start = performance.now();
    await work();
    if (i >= WARM) times.push(1000 * (performance.now() - start) / RUNS);
  }
  return { best: Math.min(...times), middle: median(times) };
}

async function table(baseline: boolean): Promise<void> {
  const copy = await measure(copies);
  const rows = [{ workload: "", what: "copy two pages", ...copy, copies: 1 }];
  await print("| workload | what | us | a second | copies of two pages | replays |");
  await print("| --- | --- | ---: | ---: | ---: | ---: |");
  await print(`| | copy two pages | ${copy.middle.toFixed(3)} | | 1 | |`);
  for (const [workload, make] of Object.entries(WORKLOADS)) {
    const chunks = await encode(make());
    const replays = new Map<string, number>();
    for (const [what, work] of Object.entries(WORK)) {
      const cost = await measure(() => work(chunks));
      replays.set(what, cost.middle);
      const row = { workload, what, ...cost, copies: cost.middle / copy.middle };
      rows.push(row);
      const beside = what.startsWith("diff")
        ? replays.get(what.replace("diff", "replay"))
        : undefined;
      const ratio = beside === undefined ? "" : (cost.middle / beside).toFixed(2);
      await print(
        `| ${workload} | ${what} | ${cost.middle.toFixed(2)} | ${
          Math.round(1e6 / cost.middle).toLocaleString("en")
        } | ${row.copies.toFixed(0)} | ${ratio} |`,
      );
    }
  }
  if (!baseline) return;
  await writeBaseline("replay.json", {
    machine: machine(),
    what: `microseconds a VMRUN: best and median of ${COUNTED} iterations of ${RUNS}`,
    rows,
  });
}

if (import.meta.main && Deno.args[0] === "table") await table(Deno.args.includes("--baseline"));
else {
  for (const [workload, make] of Object.entries(WORKLOADS)) {
    const group = `${RUNS} VMRUNs, ${workload}`;
    const chunks = await encode(make());
    Deno.bench(`copy two pages for each (${workload})`, { group, baseline: true }, copies);
    for (const [what, work] of Object.entries(WORK)) {
      Deno.bench(`${what} (${workload})`, { group, n: 3, warmup: 2 }, () => work(chunks));
    }
  }
}
