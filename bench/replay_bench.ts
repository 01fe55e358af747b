/**
 * What replay and diff cost beside the least they could: copying the two pages
 * of 4 KiB that a round trip has to touch.
 *
 * All in one run on one machine, so that the figures go together. Traces are
 * encoded, in memory; decoding them is part of what is measured. Every replay
 * holds all that was recorded against what it does, and folds all modelled
 * state into its digest: nothing is skipped to be fast. A run that comes again,
 * byte for byte from the same state, may be taken over; the rows "each carried
 * out" are without that, and every VMRUN of the loop that varies is another. A run that reads what an
 * earlier one read may follow its path with its own values; the rows "step by step" are without that,
 * too.
 *
 *     deno bench --allow-all bench/replay_bench.ts
 *     deno run --allow-all bench/replay_bench.ts table               tables
 *     deno run --allow-all bench/replay_bench.ts table --baseline    and keep them
 *
 * The tables count the thread's processor time where the kernel tells it, so that other work on the
 * machine shows less. The second holds ratios against what they are meant to be.
 *
 * @module
 */
import { readTrace } from "../codecs/mod.ts";
import type { TraceEvent } from "../engine/event.ts";
import {
  Differ,
  EARLY_EXIT,
  Findings,
  identify,
  MemoizedDiffer,
  MemoizedReplayer,
  type Policy,
  Replayer,
  type RunDifference,
  RunPaths,
  UNIFIED,
  UPSTREAM,
} from "../engine/mod.ts";
import { machine, median, print, writeBaseline } from "./table.ts";
import { encode, log, mix, seenWhole, steadyLoop, varyingLoop } from "./round_trips.ts";

/** VMRUNs in one iteration. */
const RUNS = 5_000;
/** VMRUNs of the log. */
const LOGGED = 2000;
/** Iterations that are not counted, and samples that are. */
const WARM = 3, COUNTED = 5;
/** Milliseconds of a sample: the kernel counts a thread's time in ticks of 4. */
const SAMPLE = 200;
const PAGE = 4096;

/** Feeds a trace to a replay or a diff. */
async function feed(chunks: readonly Uint8Array[], take: (event: TraceEvent) => void) {
  for await (const block of (await readTrace(chunks)).blocks()) {
    for (const event of block.shared()) take(event);
  }
}

/** Replays, and proves that it was the whole trace and as recorded. */
async function replay(
  chunks: readonly Uint8Array[],
  replayer: Pick<Replayer, "feed" | "finish">,
): Promise<void> {
  await feed(chunks, (event) => replayer.feed(event));
  const { runs, agreed } = replayer.finish();
  if (runs !== RUNS || agreed !== runs) throw new Error("Not what was recorded");
}

async function diff(
  chunks: readonly Uint8Array[],
  make: (policies: Policy[], add: (found: RunDifference) => void) => Differ | MemoizedDiffer,
): Promise<void> {
  const findings = new Findings();
  const differ = make([EARLY_EXIT, UNIFIED], (found) => findings.add(found));
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
  replay: (chunks: readonly Uint8Array[]) => replay(chunks, new MemoizedReplayer(UPSTREAM)),
  "replay, each carried out": (chunks: readonly Uint8Array[]) =>
    replay(chunks, new Replayer(UPSTREAM, () => {}, new RunPaths(UPSTREAM))),
  "replay, step by step": (chunks: readonly Uint8Array[]) => replay(chunks, new Replayer(UPSTREAM)),
  diff: (chunks: readonly Uint8Array[]) =>
    diff(chunks, (policies, add) => new MemoizedDiffer(policies, add)),
  "diff, each carried out": (chunks: readonly Uint8Array[]) =>
    diff(chunks, (policies, add) => new Differ(policies, add, { paths: true })),
  "diff, step by step": (chunks: readonly Uint8Array[]) =>
    diff(chunks, (policies, add) => new Differ(policies, add)),
} as const;

/** A cost, in microseconds a VMRUN. */
interface Cost {
  readonly best: number;
  readonly middle: number;
}

/** Milliseconds of processor time of this thread; of the clock where the kernel does not tell. */
function clock(): number {
  try {
    const [nanoseconds] = Deno.readTextFileSync("/proc/thread-self/schedstat").split(" ");
    return Number(nanoseconds) / 1e6;
  } catch {
    return performance.now();
  }
}

/** Best and median of several samples of so many VMRUNs, each as long as the clock needs. */
async function measure(work: () => unknown, runs: number): Promise<Cost> {
  const begun = clock();
  for (let i = 0; i < WARM; i++) await work();
  const times = Math.ceil(SAMPLE * WARM / Math.max(1, clock() - begun));
  const samples: number[] = [];
  for (let i = 0; i < COUNTED; i++) {
    const start = clock();
    for (let k = 0; k < times; k++) await work();
    samples.push(1000 * (clock() - start) / (times * runs));
  }
  return { best: Math.min(...samples), middle: median(samples) };
}

/** One line of the second table. */
interface Goal {
  readonly what: string;
  readonly beside: string;
  readonly goal: number;
  readonly of: readonly [string, string];
}

const COPY = "copy two pages";

const GOALS: readonly Goal[] = [
  {
    what: "replay, steady loop, each carried out",
    beside: "copies of two pages",
    goal: 30,
    of: ["steady loop: replay, each carried out", COPY],
  },
  {
    what: "replay, loop that varies",
    beside: "copies of two pages",
    goal: 45,
    of: ["loop that varies: replay, each carried out", COPY],
  },
  {
    what: "replay, mix, each carried out",
    beside: "copies of two pages",
    goal: 120,
    of: ["mix, half failing: replay, each carried out", COPY],
  },
  {
    what: "diff of two policies where nothing repeats",
    beside: "replays",
    goal: 2.4,
    of: [
      "loop that varies: diff, each carried out",
      "loop that varies: replay, each carried out",
    ],
  },
  {
    what: "identify of a log, each VMRUN from another place in L2",
    beside: "replays",
    goal: 1.3,
    of: ["log: identify", "log: replay"],
  },
  {
    what: "identify of a log, each VMRUN of another kind",
    beside: "replays",
    goal: 1.3,
    of: ["log of many kinds: identify", "log of many kinds: replay"],
  },
  {
    what: "identify of a log of a debugger, each VMRUN with other registers",
    beside: "replays",
    goal: 1.3,
    of: ["log of a debugger: identify", "log of a debugger: replay"],
  },
];

/** Logs of which replay and identify are measured. */
const LOGS = {
  "log": () => log(LOGGED),
  "log of many kinds": () => log(LOGGED, LOGGED),
  "log of a debugger": () => seenWhole(LOGGED),
} as const;

async function table(baseline: boolean): Promise<void> {
  const costs = new Map<string, Cost>();
  const copy = await measure(copies, RUNS);
  costs.set(COPY, copy);
  await print("| workload | what | us | a second | copies of two pages |");
  await print("| --- | --- | ---: | ---: | ---: |");
  await print(`| | ${COPY} | ${copy.middle.toFixed(3)} | | 1 |`);
  const line = async (workload: string, what: string, work: () => unknown, runs: number) => {
    const cost = await measure(work, runs);
    costs.set(`${workload}: ${what}`, cost);
    await print(
      `| ${workload} | ${what} | ${cost.middle.toFixed(2)} | ${
        Math.round(1e6 / cost.middle).toLocaleString("en")
      } | ${(cost.middle / copy.middle).toFixed(0)} |`,
    );
  };
  for (const [workload, make] of Object.entries(WORKLOADS)) {
    const chunks = await encode(make());
    for (const [what, work] of Object.entries(WORK)) {
      await line(workload, what, () => work(chunks), RUNS);
    }
  }
  for (const [name, make] of Object.entries(LOGS)) {
    const logged = await encode(make());
    await line(name, "replay", () => feed(logged, into(new MemoizedReplayer(UPSTREAM))), LOGGED);
    await line(name, "identify", () => identify(() => events(logged)), LOGGED);
  }
  await print("\n| what | beside | goal | is |");
  await print("| --- | --- | ---: | ---: |");
  const ratios = GOALS.map(({ what, beside, goal, of }) => {
    const [a, b] = of.map((name) => costs.get(name)!);
    return { what, beside, goal, is: a!.middle / b!.middle };
  });
  for (const { what, beside, goal, is } of ratios) {
    await print(`| ${what} | ${beside} | ${goal} | ${is.toFixed(is < 10 ? 1 : 0)} |`);
  }
  if (!baseline) return;
  await writeBaseline("replay.json", {
    machine: machine(),
    what: `microseconds of processor time a VMRUN: best and median of ${COUNTED} samples`,
    rows: [...costs].map(([what, { best, middle }]) => (
      { what, best, middle, copies: middle / copy.middle }
    )),
    ratios,
  });
}

async function* events(chunks: readonly Uint8Array[]): AsyncGenerator<TraceEvent> {
  for await (const block of (await readTrace(chunks)).blocks()) yield* block.shared();
}

function into(replayer: MemoizedReplayer): (event: TraceEvent) => void {
  return (event) => replayer.feed(event);
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
