/**
 * Exits of L2 per second, by reason, as a table of tab-separated values:
 *
 *     deno run --allow-read examples/exits_per_second.ts night.vmtape
 *
 * @module
 */
import { openTrace } from "@vmtape/vmtape";
import { exitCodeName, shortExitName } from "@vmtape/vmtape/engine";

const NANOSECONDS = 1e9;

/**
 * Counts exits by second and reason.
 *
 * @param path The trace.
 * @returns For each second since the first exit, how many exits there were of each reason.
 */
export async function exitsPerSecond(path: string): Promise<Map<string, number>[]> {
  const seconds: Map<string, number>[] = [];
  let start: number | undefined;
  using file = await openTrace(path);
  for await (const event of file.events()) {
    // An event without a time, or an exit whose code was not seen, counts nowhere.
    if (event.kind !== "l2exit" || event.time === undefined || event.exit_code === undefined) {
      continue;
    }
    start ??= event.time;
    const second = Math.floor((event.time - start) / NANOSECONDS);
    const reason = shortExitName(exitCodeName(event.exit_code));
    const counts = seconds[second] ??= new Map();
    counts.set(reason, (counts.get(reason) ?? 0) + 1);
  }
  return Array.from(seconds, (counts) => counts ?? new Map());
}

if (import.meta.main) {
  const [path = "night.vmtape"] = Deno.args;
  const seconds = await exitsPerSecond(path);
  const reasons = [...new Set(seconds.flatMap((counts) => [...counts.keys()]))].sort();
  const lines = seconds.map((
    counts,
    second,
  ) => [second, ...reasons.map((r) => counts.get(r) ?? 0)]);
  const text = [["second", ...reasons], ...lines].map((cells) => cells.join("\t")).join("\n");
  await Deno.stdout.write(new TextEncoder().encode(`${text}\n`));
}
