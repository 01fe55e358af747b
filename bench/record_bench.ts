/**
 * What recording from the emulator costs beside replaying the same: VMRUNs of a
 * loop that varies, and generated cases, each on a machine of its own or going
 * on with the one before.
 *
 * Two thirds of what generated cases cost is what their L2s do: a few fault for thousands of entries,
 * or run through memory until they are stopped.
 *
 * Times are of the processor, all threads of the process together, so that
 * another program on the machine changes them little.
 *
 *     deno bench --allow-all bench/record_bench.ts
 *     deno run --allow-all bench/record_bench.ts table               a table
 *     deno run --allow-all bench/record_bench.ts table --baseline    and keep it
 *
 * @module
 */
import process from "node:process";
import { LINUX_6_12, Replayer } from "../engine/mod.ts";
import { generate } from "../traces/generate/generate.ts";
import { recordScenarios } from "../traces/scenarios/record.ts";
import type { Scenario } from "../traces/scenarios/scenario.ts";
import { parseScenario } from "../traces/scenarios/scenario_reader.ts";
import { encode, varyingScenarios } from "./round_trips.ts";
import { machine, median, print, writeBaseline } from "./table.ts";

/** Scenarios in one iteration. */
const COUNT = 5_000;
/** Iterations that are not counted, and those that are. */
const WARM = 6, COUNTED = 9;

/** What is recorded, with what one of it is called, and how many a second it is meant to be. */
const WORKLOADS: Readonly<
  Record<string, { readonly make: () => Scenario[]; readonly goal: number }>
> = {
  "loop that varies": { make: () => varyingScenarios(COUNT), goal: 50_000 },
  "generated cases": {
    make: () => [...generate({ seed: 5, count: COUNT })].map((line) => parseScenario(line)),
    goal: 5_000,
  },
};

/** Records, and counts the runs that began. */
function record(scenarios: readonly Scenario[]): void {
  let runs = 0;
  for (const event of recordScenarios(scenarios, LINUX_6_12)) {
    if (event.kind === "setstate" || event.kind === "vmrun" && event.regs) runs++;
  }
  if (runs !== scenarios.length) throw new Error(`${runs} runs of ${scenarios.length}`);
}

async function recordAndEncode(scenarios: readonly Scenario[]): Promise<void> {
  await encode(recordScenarios(scenarios, LINUX_6_12));
}

/** Records and replays what comes, each run carried out: recording is what remains. */
function recordAndReplay(scenarios: readonly Scenario[]): void {
  const replayer = new Replayer(LINUX_6_12);
  for (const event of recordScenarios(scenarios, LINUX_6_12)) replayer.feed(event);
  if (replayer.finish().runs !== scenarios.length) throw new Error("Not all were replayed");
}

const WORK = {
  record,
  "record and encode": recordAndEncode,
  "record and replay": recordAndReplay,
} as const;

/** Microseconds of processor time a scenario: best and median of several iterations. */
async function measure(work: () => Promise<void> | void) {
  const times: number[] = [];
  for (let i = 0; i < WARM + COUNTED; i++) {
    const start = process.cpuUsage();
    await work();
    const { user, system } = process.cpuUsage(start);
    if (i >= WARM) times.push((user + system) / COUNT);
  }
  return { best: Math.min(...times), middle: median(times) };
}

async function table(baseline: boolean): Promise<void> {
  const rows = [];
  await print("| workload | what | us of processor time | a second | goal |");
  await print("| --- | --- | ---: | ---: | ---: |");
  for (const [workload, { make, goal }] of Object.entries(WORKLOADS)) {
    const scenarios = make();
    for (const [what, work] of Object.entries(WORK)) {
      const cost = await measure(() => work(scenarios));
      rows.push({ workload, what, ...cost });
      const wanted = what === "record" ? goal.toLocaleString("en") : "";
      const rate = Math.round(1e6 / cost.middle).toLocaleString("en");
      await print(`| ${workload} | ${what} | ${cost.middle.toFixed(1)} | ${rate} | ${wanted} |`);
    }
  }
  if (!baseline) return;
  await writeBaseline("record.json", {
    machine: machine(),
    what: `microseconds of processor time a scenario: best and median of ${COUNTED} iterations ` +
      `of ${COUNT}`,
    rows,
  });
}

if (import.meta.main && Deno.args[0] === "table") await table(Deno.args.includes("--baseline"));
else {
  for (const [workload, { make }] of Object.entries(WORKLOADS)) {
    const scenarios = make();
    const group = `${COUNT} scenarios, ${workload}`;
    for (const [what, work] of Object.entries(WORK)) {
      Deno.bench(
        `${what} (${workload})`,
        { group, baseline: what === "record", n: 3, warmup: 1 },
        () => work(scenarios),
      );
    }
  }
}
