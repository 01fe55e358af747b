/**
 * The subcommand `stats`.
 *
 * @module
 */
import { Latency, type LatencyRow } from "../../engine/latency.ts";
import type { Policy } from "../../engine/policy.ts";
import { defineCommand, EXIT, FORCE } from "../command.ts";
import type { Context } from "../context.ts";
import { POLICIES_OPTION, policiesOf, PROCESSOR } from "../policy_options.ts";
import { STEP_LIMIT } from "../step_limit.ts";
import { UsageError } from "../errors.ts";
import { type Given, refuseBoth } from "../exclusive.ts";
import { STANDARD } from "../files.ts";
import { eventTotal, openTraceFile } from "../inputs.ts";
import { ratioText } from "../pass_ratios.ts";
import {
  type LatencyNotes,
  latencyNotes,
  measurePasses,
  orderedRows,
  recordedTimes,
} from "../passes.ts";
import { StepCosts } from "../../engine/step_costs.ts";
import { Measurement, RECORDED, RecordedTimes } from "../measurement.ts";
import { POLICIES } from "../../engine/policies/mod.ts";
import { eachEvent } from "../shares/groups.ts";
import { groupsOfShard, SHARD, type Shard, shardOf } from "../shares/plan.ts";
import { statsShardFile } from "../shares/shard_file.ts";
import { exactRarity, writeDistributions } from "../hgrm.ts";
import { wrap } from "../help.ts";
import { plural } from "../../engine/plural.ts";
import { formatTable } from "../table.ts";

const PASSES = 5;

function ns(value: number): string {
  return value < 1e6 ? String(Math.round(value)) : `${(value / 1e6).toFixed(1)}e6`;
}

/** What is printed beside the histograms. */
export interface StatsPrint extends LatencyNotes {
  /** Costs of steps, when they were asked for. */
  readonly steps?: StepCosts;
  /** Distributions for HdrHistogram's plotters, instead of the table. */
  readonly form?: "hgrm" | "hlog" | undefined;
}

/** The table's rows, with the median's ratio to the first policy's. */
function cellsOf(rows: readonly LatencyRow[], { policies, ratios }: StatsPrint): string[][] {
  return orderedRows(rows, policies).map((row) => {
    const { kind, policy, count, min, p50, p90, p99, p999, max, mean } = row;
    const base = rows.find((one) => one.kind === kind && one.policy === policies[0])?.p50;
    const known = ratios?.find((ratio) => ratio.kind === kind && ratio.policy === policy);
    const plain = policy === RECORDED || !base ? "" : (p50 / base).toFixed(2);
    const times = [min, p50, p90, p99, p999, max, mean].map(ns);
    return [`${kind}, ${policy}`, String(count), ...times, known ? ratioText(known) : plain];
  });
}

/** Characters in a line of text beside a table. */
const LINE = 88;

function print(context: Context, rows: readonly LatencyRow[], given: StatsPrint): void {
  const { out } = context;
  if (rows.length === 0) {
    out.line("No transition could be timed: the trace has neither the inputs to replay nor times");
    return;
  }
  const head = ["ns", "count", "min", "p50", "p90", "p99", "p99.9", "max", "mean", "p50 ratio"];
  out.text(formatTable(head, cellsOf(rows, given)));
  for (const note of latencyNotes(rows, given)) {
    for (const line of wrap(note, LINE)) out.line(line);
  }
}

/**
 * Prints what was measured.
 *
 * @param context Where to.
 * @param latency The histograms.
 * @param given What else there is.
 */
export function printStats(context: Context, latency: Latency, given: StatsPrint): void {
  const { timerCost, passes, ratios, steps, form } = given;
  const { out } = context;
  const rows = latency.rows();
  if (context.json) {
    out.json({
      unit: "ns",
      timerCost,
      passes,
      rows,
      ...(ratios && { ratios }),
      ...(steps && { steps: steps.rows() }),
    });
  } else if (form === "hlog") out.text(latency.log());
  else if (form === "hgrm") {
    for (const { policy, kind } of rows) {
      out.line(`# ${kind}, ${policy}`);
      out.text(`${exactRarity(latency.distribution(policy, kind) ?? "")}\n`);
    }
  } else {
    print(context, rows, given);
    if (steps !== undefined) printSteps(context, steps);
  }
}

function printSteps(context: Context, steps: StepCosts): void {
  const { out } = context;
  const cells = steps.rows().map(({ policy, step, count, p50, mean, share }) => [
    `${policy}: ${step}`,
    String(count),
    ns(p50),
    ns(mean),
    `${(100 * share).toFixed(1)} %`,
  ]);
  out.line();
  out.text(formatTable(["ns of each step", "count", "p50", "mean", "share"], cells));
  out.line("A clock is read at every step here, which slows them all: compare steps with steps.");
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
  const groups = await groupsOfShard(file.trace, shard, true, null);
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
  const given = { passes, policies };
  context.out.json(await statsShardFile(shard, file.trace, groups, latency, given));
}

/** Measures what transitions cost. */
export const stats = defineCommand({
  name: "stats",
  summary: "Measure what each kind of transition costs under each policy, in percentiles",
  operands: { usage: "TRACE", min: 1, max: 1 },
  options: [
    POLICIES_OPTION,
    PROCESSOR,
    STEP_LIMIT,
    { name: "passes", kind: "number", doc: `How many times the trace is replayed (${PASSES})` },
    {
      name: "hgrm",
      kind: "flag",
      doc: "Print the distributions as HdrHistogram's plotters take them",
    },
    {
      name: "hlog",
      kind: "flag",
      doc: "Print all histograms as a log, as HdrHistogram's tools do",
    },
    {
      name: "output",
      short: "o",
      kind: "file",
      value: "FOLDER",
      doc: "Folder for --hgrm: a file for each kind and policy",
    },
    FORCE,
    { name: "steps", kind: "flag", doc: "Measure each step too, in a pass of its own" },
    SHARD,
  ],
  examples: [
    { line: "stats run.vmtape", doc: "All built-in policies" },
    {
      line: "stats run.vmtape --policies early-exit,unified --passes 20",
      doc: "Two, more precisely",
    },
    { line: "stats run.vmtape --hgrm -o hgrm", doc: "For HdrHistogram's plotter" },
    { line: "stats run.vmtape --hlog > run.hlog", doc: "For HdrHistogram's log analyzer" },
  ],
  async run(context, { options, operands: [path = ""] }) {
    const { passes = PASSES, output, force } = options;
    const { hgrm, hlog, steps: stepping } = options;
    const folder: Given = ["--output", output !== undefined];
    refuseBoth(["--hgrm", hgrm], ["--hlog", hlog], ["--steps", stepping]);
    refuseBoth(["--hlog", hlog], ["--steps", stepping]);
    refuseBoth(["--json", context.json], ["--hgrm", hgrm], ["--hlog", hlog]);
    refuseBoth(["--shard", options.shard !== undefined], ["--steps", stepping], folder);
    if (output !== undefined && !hgrm) {
      throw new UsageError("Option --output is the folder for --hgrm, and needs it");
    }
    if (output === STANDARD) throw new UsageError("Option --output is a folder, not -");
    if (passes === 0) throw new UsageError("Option --passes is at least 1");
    if (path === STANDARD) {
      throw new UsageError("A trace is read several times: name a file, not -");
    }
    const names = options.policies.length > 0 ? options.policies : Object.keys(POLICIES);
    const policies = await policiesOf(names, 1, options.processor);
    const shard = shardOf(options.shard, context.json);
    if (shard !== undefined) {
      await measureShard(context, path, shard, policies, passes);
      return EXIT.ok;
    }
    using latency = await Latency.create();
    const steps = stepping ? new StepCosts(latency.timerCost) : undefined;
    const total = await eventTotal(context, path);
    using progress = context.progress("events", total && total * (passes + (steps ? 2 : 1)));
    await recordedTimes(path, latency);
    const ratios = await measurePasses(path, policies, {
      passes,
      latency,
      steps,
      update: (events) => progress.update(events),
    });
    progress.done();
    if (output !== undefined) {
      const files = writeDistributions(context, latency, { folder: output, force });
      context.note(`${plural(files, "distribution")}, in ${output}`);
      return EXIT.ok;
    }
    const { timerCost } = latency;
    const order = policies.map(({ name }) => name);
    const form = hlog ? "hlog" : hgrm ? "hgrm" : undefined;
    printStats(context, latency, {
      timerCost,
      passes,
      policies: order,
      ratios,
      ...(steps && { steps }),
      form,
    });
    return EXIT.ok;
  },
});
