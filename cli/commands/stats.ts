import { Latency, type LatencyRow, TRANSITION_KINDS } from "../../engine/latency.ts";
import type { Policy } from "../../engine/policy.ts";
import { defineCommand, EXIT } from "../command.ts";
import type { Context } from "../context.ts";
import { POLICIES_OPTION, policiesOf } from "../emulation.ts";
import { UsageError } from "../errors.ts";
import { STANDARD } from "../files.ts";
import { openTrace, openTraceFile } from "../inputs.ts";
import { Measurement, RECORDED, RecordedTimes } from "../measurement.ts";
import { POLICY_NAMES } from "../policy_input.ts";
import { eachEvent } from "../shares/groups.ts";
import { groupsOfShard, SHARD, type Shard, shardOf } from "../shares/plan.ts";
import { statsShardFile } from "../shares/shard_file.ts";
import { formatTable } from "../table.ts";

const PASSES = 3;

function ns(value: number): string {
  return value < 1e6 ? String(Math.round(value)) : `${(value / 1e6).toFixed(1)}e6`;
}

/** Rows of one kind together, with the median's ratio to that of the kind's first policy. */
function cellsOf(rows: readonly LatencyRow[]): string[][] {
  return Object.keys(TRANSITION_KINDS).flatMap((kind) => {
    const same = rows.filter((row) => row.kind === kind);
    const base = same.find((row) => row.policy !== RECORDED)?.p50;
    return same.map(({ policy, count, min, p50, p90, p99, p999, max, mean }) => {
      const ratio = policy === RECORDED || !base ? "" : (p50 / base).toFixed(2);
      const times = [min, p50, p90, p99, p999, max, mean].map(ns);
      return [`${kind}, ${policy}`, String(count), ...times, ratio];
    });
  });
}

function print(
  context: Context,
  rows: readonly LatencyRow[],
  timerCost: number,
  passes: number,
): void {
  const { out } = context;
  if (rows.length === 0) {
    out.line("No transition could be timed: the trace has neither the inputs to replay nor times");
    return;
  }
  const head = ["ns", "count", "min", "p50", "p90", "p99", "p99.9", "max", "mean", "p50 ratio"];
  out.text(formatTable(head, cellsOf(rows)));
  if (rows.some((row) => row.policy !== RECORDED)) {
    out.line(
      `Replayed times are of the model on this machine, in ${passes} passes after one to warm up;`,
    );
    out.line(
      `two clock reads (${Math.round(timerCost)} ns, calibrated) are taken off each sample.`,
    );
  }
  if (rows.some((row) => row.policy === RECORDED)) {
    out.line('Rows "recorded" are by the recording\'s own clock, not to be compared with replays.');
  }
}

/**
 * Prints what was measured.
 *
 * @param context Where to.
 * @param latency The histograms.
 * @param given Cost of the clock, number of passes, and whether to print distributions.
 */
export function printStats(
  context: Context,
  latency: Latency,
  given: { readonly timerCost: number; readonly passes: number; readonly hgrm: boolean },
): void {
  const { timerCost, passes, hgrm } = given;
  const rows = latency.rows();
  if (context.json) context.out.json({ unit: "ns", timerCost, passes, rows });
  else if (hgrm) {
    for (const { policy, kind } of rows) {
      context.out.line(`# ${kind}, ${policy}\n${latency.distribution(policy, kind) ?? ""}`);
    }
  } else print(context, rows, timerCost, passes);
}

async function measureShard(
  context: Context,
  path: string,
  shard: Shard,
  policies: readonly Policy[],
  passes: number,
): Promise<void> {
  using latency = await Latency.create();
  using warmUp = await Latency.create();
  using file = await openTraceFile(path);
  const groups = await groupsOfShard(file.trace, shard, true);
  for (let pass = 0; pass <= passes; pass++) {
    const measurement = new Measurement(policies, pass === 0 ? warmUp : latency);
    const recorded = pass === 0 ? new RecordedTimes(latency) : undefined;
    for (const group of groups) {
      await eachEvent(file.trace, group, false, (event) => {
        measurement.feed(event);
        recorded?.feed(event);
      });
    }
  }
  const firsts = groups.map((group) => group.from);
  context.out.json(statsShardFile(shard, file.trace, firsts, latency, { passes, policies }));
}

/** Measures what transitions cost. */
export const stats = defineCommand({
  name: "stats",
  summary: "Measure what each kind of transition costs under each policy, in percentiles",
  operands: { usage: "TRACE", min: 1, max: 1 },
  options: [
    POLICIES_OPTION,
    { name: "passes", kind: "number", doc: `How many times the trace is replayed (${PASSES})` },
    {
      name: "hgrm",
      kind: "flag",
      doc: "Print the distributions as HdrHistogram's plotters take them",
    },
    SHARD,
  ],
  examples: [
    { line: "stats run.vmtape", doc: "All built-in policies" },
    {
      line: "stats run.vmtape --policies early-exit,unified --passes 20",
      doc: "Two, more precisely",
    },
  ],
  async run(context, { options, operands: [path = ""] }) {
    const { passes = PASSES } = options;
    if (passes === 0) throw new UsageError("Option --passes is at least 1");
    if (path === STANDARD) {
      throw new UsageError("A trace is read several times: name a file, not -");
    }
    const names = options.policies.length > 0 ? options.policies : POLICY_NAMES;
    const policies = await policiesOf(names, 1);
    const shard = shardOf(options.shard, context.json);
    if (shard !== undefined) {
      await measureShard(context, path, shard, policies, passes);
      return EXIT.ok;
    }
    using latency = await Latency.create();
    using warmUp = await Latency.create();
    using progress = context.progress("events");
    let events = 0;
    for (let pass = 0; pass <= passes; pass++) {
      const measurement = new Measurement(policies, pass === 0 ? warmUp : latency);
      const recorded = pass === 0 ? new RecordedTimes(latency) : undefined;
      const trace = await openTrace(path);
      for await (const block of trace.blocks()) {
        for (const event of block.shared()) {
          measurement.feed(event);
          recorded?.feed(event);
          events++;
        }
        progress.update(events);
      }
    }
    progress.done();
    const { timerCost } = latency;
    printStats(context, latency, { timerCost, passes, hgrm: options.hgrm });
    return EXIT.ok;
  },
});
