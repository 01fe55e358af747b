/**
 * How time and memory grow with the length of a trace: writes traces of a steady
 * loop, replays and diffs them with the real commands, each in a process of its
 * own, and prints a line per length. Each command runs twice there: the first
 * time the program is compiled meanwhile, the second time it is warm.
 *
 *     deno task scale                       10^4 to 10^7 round trips
 *     deno task scale 1000000 3000000       those
 *     deno task scale --no-diff 10000000    without the diff
 *     deno task scale --baseline            and keep the result
 *
 * @module
 */
import { fileSink, TraceWriter } from "../codecs/mod.ts";
import { UPSTREAM } from "../engine/mod.ts";
import { run } from "../cli/app.ts";
import { EXIT } from "../cli/command.ts";
import { runApart, timed } from "./process.ts";
import { steadyLoop } from "./round_trips.ts";
import { machine, print, writeBaseline } from "./table.ts";

const SIZES = [1e4, 1e5, 1e6, 1e7];
const SELF = new URL(import.meta.url).pathname;
const text = new TextEncoder();

/** What a process of its own says at its end. */
interface Cost {
  /** Seconds of work, without starting the process. */
  readonly seconds: number;
  /** The same when it is done again in the same process; of writing, not measured. */
  readonly warm: number | undefined;
  /** Seconds that its threads computed. */
  readonly cpu: number;
  /** Most memory it held, in bytes (VmHWM). */
  readonly peak: number;
}

/** Most memory this process ever held, in bytes. */
function peak(): number {
  const status = Deno.readTextFileSync("/proc/self/status");
  return Number(/VmHWM:\s+(\d+) kB/.exec(status)?.[1] ?? 0) * 1024;
}

/** Seconds that this process has computed, in all its threads. */
function computed(): number {
  const fields = Deno.readTextFileSync("/proc/self/stat").replace(/^.*\) /, "").split(" ");
  // utime and stime, in ticks of 10 ms.
  return (Number(fields[11]) + Number(fields[12])) / 100;
}

async function write(path: string, rounds: number): Promise<void> {
  using sink = fileSink(path);
  const writer = new TraceWriter(sink, { meta: { source: "emulator", policy: UPSTREAM.name } });
  for await (const event of steadyLoop(UPSTREAM, rounds)) writer.write(event);
  writer.close();
}

async function command(what: string, args: readonly string[]): Promise<void> {
  const nowhere = { writeSync: (bytes: Uint8Array) => bytes.length };
  const world = { out: nowhere, err: Deno.stderr, color: false, debug: false };
  const status = await run([what, ...args], world);
  if (status !== EXIT.ok && status !== EXIT.differs) Deno.exit(status);
}

async function work(what: string, args: readonly string[]): Promise<void> {
  const writes = what === "write";
  const once = () => writes ? write(args[0]!, Number(args[1])) : command(what, args);
  const seconds = await timed(once);
  const first = { seconds, cpu: computed(), peak: peak() };
  const cost: Cost = { ...first, warm: writes ? undefined : await timed(once) };
  await Deno.stdout.write(text.encode(JSON.stringify(cost)));
}

async function child(...args: readonly string[]): Promise<Cost> {
  return JSON.parse(await runApart(SELF, "child", ...args));
}

function cells({ seconds, warm, cpu, peak }: Cost, rounds: number): string {
  return [
    seconds.toFixed(2),
    Math.round(rounds / seconds).toLocaleString("en"),
    (1e6 * seconds / rounds).toFixed(2),
    warm === undefined ? "" : (1e6 * warm / rounds).toFixed(2),
    (1e6 * cpu / rounds).toFixed(2),
    (peak / 1e6).toFixed(0),
  ].join(" | ");
}

async function table(
  sizes: readonly number[],
  kinds: readonly string[],
  baseline: boolean,
): Promise<void> {
  await print(
    "| round trips | what | s | a second | us each | us each, warm | us of CPU each | peak MB |\n" +
      "| ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
  );
  const rows: unknown[] = [];
  const folder = await Deno.makeTempDir();
  try {
    for (const size of sizes) {
      const trace = `${folder}/${size}.vmtape`;
      const row = async (what: string, cost: Cost) => {
        rows.push({ roundTrips: size, what, ...cost });
        await print(`| ${size.toLocaleString("en")} | ${what} | ${cells(cost, size)} |`);
      };
      await row("write", await child("write", trace, String(size)));
      if (kinds.includes("replay")) await row("replay", await child("replay", trace));
      if (kinds.includes("diff")) {
        await row("diff", await child("diff", trace, "--policies", "early-exit,unified"));
      }
      await Deno.remove(trace);
    }
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
  if (baseline) {
    await writeBaseline("scale.json", { machine: machine(), what: "seconds and bytes", rows });
  }
}

if (import.meta.main) {
  const [first, ...rest] = Deno.args;
  if (first === "child") await work(rest[0]!, rest.slice(1));
  else {
    const sizes = Deno.args.filter((arg) => !arg.startsWith("-")).map(Number);
    const kinds = Deno.args.includes("--no-diff") ? ["replay"] : ["replay", "diff"];
    await table(
      sizes.length > 0 ? sizes : SIZES,
      kinds,
      Deno.args.includes("--baseline"),
    );
  }
}
