/**
 * Whether memory stays flat: replays and diffs loops, a mix, and scenarios that no
 * round before had, for some minutes, and prints how much memory the process held
 * in each.
 *
 *     deno task soak           ten minutes
 *     deno task soak 1         one
 *
 * Ends with 1 when the least memory of the last third of the time is more than
 * a tenth above that of the third before.
 *
 * @module
 */
import { readTrace } from "../codecs/mod.ts";
import type { TraceEvent } from "../engine/event.ts";
import {
  EARLY_EXIT,
  Findings,
  MemoizedDiffer,
  MemoizedReplayer,
  UNIFIED,
  UPSTREAM,
} from "../engine/mod.ts";
import { generate } from "../traces/generate/generate.ts";
import { recordScenarios } from "../traces/scenarios/record.ts";
import { parseScenario } from "../traces/scenarios/scenario_reader.ts";
import { encode, mix, steadyLoop, varyingLoop } from "./round_trips.ts";
import { print } from "./table.ts";

const MINUTE = 60_000;
/** Times that memory is looked at. */
const LOOKS = 30;
/** Bytes that do not count as growth: the collector is free to wait. */
const SLACK = 16e6;

/** Scenarios that no round before had: states, pages and texts that are new. */
function fresh(seed: number): Generator<TraceEvent> {
  const scenarios = [...generate({ seed, count: 100 })].map((line) => parseScenario(line));
  return recordScenarios(scenarios, UPSTREAM);
}

/** Replays and diffs a trace; gives its runs. */
async function once(chunks: readonly Uint8Array[]): Promise<number> {
  const replayer = new MemoizedReplayer(UPSTREAM);
  const findings = new Findings();
  const differ = new MemoizedDiffer([EARLY_EXIT, UNIFIED], (found) => findings.add(found));
  for await (const block of (await readTrace(chunks)).blocks()) {
    for (const event of block.shared()) {
      replayer.feed(event);
      differ.feed(event);
    }
  }
  const { runs, agreed, unmodelled } = replayer.finish();
  // A random scenario may meet what is not modelled: what its run comes to is unknown.
  const missed = [...unmodelled.values()].reduce((sum, times) => sum + times, 0);
  const all = agreed + missed === runs && differ.finish().runs === runs;
  if (!all) throw new Error("Not what was recorded");
  return runs;
}

async function soak(minutes: number): Promise<boolean> {
  const same = [
    await encode(steadyLoop(UPSTREAM, 20_000)),
    await encode(varyingLoop(UPSTREAM, 1_000)),
    await encode(mix(UPSTREAM, 2_000)),
  ];
  const start = performance.now();
  const least: number[] = [];
  let seed = 1, runs = 0;
  await print("| minutes | runs | least MB | most MB |\n| ---: | ---: | ---: | ---: |");
  for (let look = 1; look <= LOOKS; look++) {
    let low = Infinity, high = 0;
    while (performance.now() - start < look * minutes * MINUTE / LOOKS) {
      for (const chunks of [...same, await encode(fresh(seed++))]) runs += await once(chunks);
      const { rss } = Deno.memoryUsage();
      low = Math.min(low, rss);
      high = Math.max(high, rss);
    }
    if (high === 0) continue;
    least.push(low);
    const at = ((performance.now() - start) / MINUTE).toFixed(2);
    const mb = (bytes: number) => (bytes / 1e6).toFixed(0);
    await print(`| ${at} | ${runs.toLocaleString("en")} | ${mb(low)} | ${mb(high)} |`);
  }
  // The first third is that of compiling, and of the collector's finding out what is wanted.
  const third = Math.floor(least.length / 3);
  const before = Math.min(...least.slice(third, 2 * third));
  const after = Math.min(...least.slice(2 * third));
  const flat = after <= before * 1.1 + SLACK;
  await print(
    `\nleast memory: ${(before / 1e6).toFixed(0)} MB in the second third, ` +
      `${(after / 1e6).toFixed(0)} MB in the last: ${flat ? "flat" : "it grows"}`,
  );
  return flat;
}

if (import.meta.main) {
  const minutes = Number(Deno.args[0] ?? 10);
  if (!(minutes > 0 && minutes <= 600)) {
    await print(`soak takes minutes, up to 600, not ${Deno.args[0]}`);
    Deno.exit(2);
  }
  if (!await soak(minutes)) Deno.exit(1);
}
