/**
 * What threads bring: replays a trace of many sessions, or compares two policies over it, with one
 * thread, with two, and as two processes at once that do half of it each, which is what the machine
 * can give. In turns, so that other work on the machine meets all of them.
 *
 *     deno task threads               a table
 *     deno task threads --baseline    and keep it
 *
 * @module
 */
import { copyEvent, fileSink, TraceWriter } from "../codecs/mod.ts";
import { type TraceEvent, UPSTREAM } from "../engine/mod.ts";
import { runApart, timed } from "./process.ts";
import { machine, median, print, writeBaseline } from "./table.ts";
import { steadyLoop, varyingLoop } from "./round_trips.ts";

const ROUNDS = 3;
const MAIN = new URL("../cli/main.ts", import.meta.url).pathname;

interface Workload {
  readonly what: string;
  readonly sessions: number;
  /** Round trips in each session. */
  readonly runs: number;
  readonly events: () => AsyncIterable<TraceEvent> | Iterable<TraceEvent>;
  /** What is done with it. */
  readonly command: readonly string[];
}

const WORKLOADS: readonly Workload[] = [
  {
    what: "steady loop",
    sessions: 100,
    runs: 100_000,
    events: () => steadyLoop(UPSTREAM, 100_000),
    command: ["replay"],
  },
  {
    what: "loop that varies, each carried out",
    sessions: 80,
    runs: 10_000,
    events: () => varyingLoop(UPSTREAM, 10_000),
    command: ["replay", "--each"],
  },
  {
    what: "loop that varies, diff of two policies",
    sessions: 80,
    runs: 10_000,
    events: () => varyingLoop(UPSTREAM, 10_000),
    command: ["diff", "--policies", "early-exit,unified", "--fail-on", "none"],
  },
];

async function write(path: string, { sessions, events }: Workload): Promise<void> {
  using sink = fileSink(path);
  const writer = new TraceWriter(sink, { meta: { source: "emulator", policy: UPSTREAM.name } });
  const session: TraceEvent[] = [];
  for await (const event of events()) session.push(copyEvent(event));
  for (let i = 0; i < sessions; i++) for (const event of session) writer.write(event);
  writer.close();
}

/** Seconds of each way to do it: medians. */
async function measure(path: string, command: readonly string[]): Promise<number[]> {
  const run = (...how: readonly string[]) =>
    runApart(MAIN, ...command, path, "-q", "--json", ...how);
  const ways: (() => Promise<unknown>)[] = [
    () => run("--jobs", "1"),
    () => run("--jobs", "2"),
    () => Promise.all(["0/2", "1/2"].map((shard) => run("--shard", shard))),
  ];
  const times: number[][] = ways.map(() => []);
  for (let round = 0; round < ROUNDS; round++) {
    for (const [i, way] of ways.entries()) times[i]!.push(await timed(way));
  }
  return times.map(median);
}

if (import.meta.main) {
  const rows: unknown[] = [];
  const folder = await Deno.makeTempDir();
  try {
    await print(
      "| trace | round trips | sessions | one thread, s | two threads, s | times as fast | two processes, s | times as fast |\n" +
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    );
    for (const workload of WORKLOADS) {
      const { what, sessions, command } = workload;
      const path = `${folder}/t.vmtape`;
      await write(path, workload);
      const [one = 0, two = 0, processes = 0] = await measure(path, command);
      await Deno.remove(path);
      const runs = sessions * workload.runs;
      rows.push({ what, runs, sessions, one, two, processes });
      const cells = [one, two, one / two, processes, one / processes].map((n) => n.toFixed(2));
      await print(
        `| ${what} | ${runs.toLocaleString("en")} | ${sessions} | ${cells.join(" | ")} |`,
      );
    }
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
  if (Deno.args.includes("--baseline")) {
    await writeBaseline("threads.json", { machine: machine(), what: "seconds, medians", rows });
  }
}
