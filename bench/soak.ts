/**
 * Whether memory stays flat: records, encodes, replays and diffs for some
 * minutes, and prints how much memory the process held in each.
 *
 *     deno task soak           ten minutes
 *     deno task soak 1         one
 *
 * Ends with 1 when the least memory of the last third of the time is more than
 * a tenth above that of the first.
 *
 * @module
 */
import { readTrace, TraceWriter } from "../codecs/mod.ts";
import type { TraceEvent } from "../engine/event.ts";
import { Differ, EARLY_EXIT, Findings, Replayer, UNIFIED, UPSTREAM } from "../engine/mod.ts";
import { generate } from "../traces/generate.ts";
import { recordScenarios } from "../traces/record.ts";
import { parseScenario } from "../traces/scenario.ts";
import { mix, steadyLoop, varyingLoop } from "./round_trips.ts";
import { print } from "./table.ts";

const MINUTE = 60_000;
/** Times that memory is looked at. */
const LOOKS = 30;
/** Bytes that do not count as growth: the collector is free to wait. */
const SLACK = 16e6;

/** Scenarios that no round before had: states, pages and texts that are new. */
function fresh(seed: number): AsyncGenerator<TraceEvent> {
  const scenarios = [...generate({ seed, count: 300 })].map((line) => parseScenario(line));
  return recordScenarios(scenarios, UPSTREAM);
}

async function* round(seed: number): AsyncGenerator<TraceEvent> {
  yield* steadyLoop(UPSTREAM, 20_000);
  yield* varyingLoop(UPSTREAM, 1_000);
  yield* mix(UPSTREAM, 1_000);
  yield* fresh(seed);
}

/** Records, replays and diffs one round; gives its runs. */
async function once(seed: number): Promise<number> {
  const chunks: Uint8Array[] = [];
  const writer = new TraceWriter({ write: (chunk) => void chunks.push(chunk) });
  for await (const event of round(seed)) writer.write(event);
  writer.close();
  const replayer = new Replayer(UPSTREAM);
  const findings = new Findings();
  const differ = new Differ([EARLY_EXIT, UNIFIED], (found) => findings.add(found));
  for await (const block of (await readTrace(chunks)).blocks()) {
    for (const event of block.shared()) {
      replayer.feed(event);
      differ.feed(event);
    }
  }
  const { runs, agreed } = replayer.finish();
  if (runs !== agreed || differ.finish().runs !== runs) throw new Error("Not what was recorded");
  return runs;
}

async function soak(minutes: number): Promise<boolean> {
  const start = performance.now();
  const least: number[] = [];
  let seed = 1, runs = 0;
  await print("| minutes | runs | least MB | most MB |\n| ---: | ---: | ---: | ---: |");
  for (let look = 1; look <= LOOKS; look++) {
    let low = Infinity, high = 0;
    while (performance.now() - start < look * minutes * MINUTE / LOOKS) {
      runs += await once(seed++);
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
  const third = Math.ceil(least.length / 3);
  const before = Math.min(...least.slice(0, third)), after = Math.min(...least.slice(-third));
  const flat = after <= before * 1.1 + SLACK;
  await print(
    `\nleast memory: ${(before / 1e6).toFixed(0)} MB in the first third, ` +
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
