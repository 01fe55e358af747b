/**
 * The latencies of a report.
 *
 * @module
 */
import type { Latency, LatencyRow } from "../engine/latency.ts";
import type { Policy } from "../engine/policy.ts";
import type { ReportLatency } from "../report/mod.ts";
import { type PassRatio, ratioText } from "./pass_ratios.ts";
import { latencyNotes, measurePasses, orderedRows, type Passes } from "./passes.ts";

/** Steps from the shortest time to the longest: half a percentile each. */
const STEPS = 200;
/** Points between a time and one that is ten times as rare. */
const PER_DECADE = 20;

/** How the passes compare a policy with the first. */
function ratioOf(ratios: readonly PassRatio[], { policy, kind }: LatencyRow): string {
  const found = ratios.find((one) => one.policy === policy && one.kind === kind);
  return found === undefined ? "" : ratioText(found);
}

/** Times by how rare they are: one in 1, and so on to the rarest that was counted. */
function tailOf(latency: Latency, { policy, kind, count }: LatencyRow): [number, number][] {
  const decades = Math.log10(Math.max(1, count));
  const rare = Array.from(
    { length: Math.floor(decades * PER_DECADE) + 1 },
    (_, i) => 10 ** (i / PER_DECADE),
  );
  const times = latency.valuesAt(policy, kind, rare.map((one) => 100 * (1 - 1 / one))) ?? [];
  return times.map((ns, i) => [rare[i] as number, ns]);
}

/**
 * Measures a trace for a report.
 *
 * @param path The trace's file.
 * @param policies The policies.
 * @param given How, and where the recording's own times are filed already.
 * @returns The rows, and what they do not say themselves.
 */
export async function reportLatency(
  path: string,
  policies: readonly Policy[],
  given: Passes,
): Promise<{ rows: ReportLatency[]; notes: string[] }> {
  const { latency, passes, most } = given;
  const ratios = await measurePasses(path, policies, given);
  const names = policies.map(({ name }) => name);
  const rows = orderedRows(latency.rows(), names).map((row): ReportLatency => ({
    policy: row.policy,
    kind: row.kind,
    count: row.count,
    p999: row.p999,
    mean: row.mean,
    ratio: ratioOf(ratios, row),
    tail: tailOf(latency, row),
    quantiles: latency.quantiles(row.policy, row.kind, STEPS) ?? [],
  }));
  const { timerCost } = latency;
  return { rows, notes: latencyNotes(rows, { timerCost, passes, most, policies: names, ratios }) };
}
