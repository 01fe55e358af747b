/**
 * The subcommand `report`.
 *
 * @module
 */
import type { TraceHeader } from "../../codecs/mod.ts";
import { Latency, type LatencyRow, type TransitionKind } from "../../engine/latency.ts";
import type { Policy } from "../../engine/policy.ts";
import { ReportCollector, type ReportLatency, reportPage } from "../../report/mod.ts";
import { defineCommand, EXIT, FORCE, OUTPUT } from "../command.ts";
import type { Context } from "../context.ts";
import { POLICIES_OPTION, policiesOf, PROCESSOR } from "../policy_options.ts";
import { UsageError } from "../errors.ts";
import { STANDARD } from "../files.ts";
import { openTrace } from "../inputs.ts";
import { Measurement, RecordedTimes } from "../measurement.ts";
import { type PassRatio, passRatios, ratioText } from "../pass_ratios.ts";
import { findingTexts, ReportSharing } from "../report_sharing.ts";
import { writeWhole } from "../whole_file.ts";

/** As many as tell a difference from noise. */
const PASSES = 3;
/** A trace of so many bytes is carried along. */
const SMALL = 256 * 1024;
/** Steps from the shortest time to the longest: half a percentile each. */
const STEPS = 200;

/** Feeds all events of a trace. */
async function feedAll(
  path: string,
  progress: { update(events: number): void },
  feed: (event: Parameters<ReportCollector["feed"]>[0]) => void,
  begin?: (header: TraceHeader) => void,
): Promise<void> {
  const trace = await openTrace(path);
  begin?.(trace.header);
  let events = 0;
  for await (const block of trace.blocks()) {
    for (const event of block.shared()) {
      feed(event);
      events++;
    }
    progress.update(events);
  }
}

/** The trace's own bytes, when they are few. */
async function smallFile(path: string): Promise<Uint8Array | undefined> {
  const { isFile, size } = await Deno.stat(path);
  return isFile && size <= SMALL ? await Deno.readFile(path) : undefined;
}

/** How the passes compare a policy with the first. */
function ratioOf(ratios: readonly PassRatio[], policy: string, kind: string): { ratio: string } {
  const found = ratios.find((one) => one.policy === policy && one.kind === kind);
  return { ratio: found === undefined ? "" : ratioText(found) };
}

/** Points between a time and one that is ten times as rare. */
const PER_DECADE = 20;

/** Times by how rare they are: one in 1, and so on to the rarest that was counted. */
function tailOf(
  latency: Latency,
  policy: string,
  kind: TransitionKind,
  count: number,
): [number, number][] {
  const decades = Math.log10(Math.max(1, count));
  const rare = Array.from(
    { length: Math.floor(decades * PER_DECADE) + 1 },
    (_, i) => 10 ** (i / PER_DECADE),
  );
  const times = latency.valuesAt(policy, kind, rare.map((one) => 100 * (1 - 1 / one))) ?? [];
  return times.map((ns, i) => [rare[i] as number, ns]);
}

/** Measures the trace in so many passes after one to warm up. */
async function measure(
  context: Context,
  path: string,
  policies: readonly Policy[],
  passes: number,
): Promise<ReportLatency[]> {
  using latency = await Latency.create();
  using warmUp = await Latency.create();
  using progress = context.progress("events measured");
  const medians: LatencyRow[][] = [];
  for (let pass = 0; pass <= passes; pass++) {
    using samples = await Latency.create();
    const measurement = new Measurement(policies, pass === 0 ? warmUp : samples);
    const recorded = pass === 0 ? new RecordedTimes(latency) : undefined;
    await feedAll(path, progress, (event) => {
      measurement.feed(event);
      recorded?.feed(event);
    });
    if (pass === 0) continue;
    medians.push(samples.rows());
    for (const encoded of samples.encode()) latency.add(encoded);
  }
  const ratios = passRatios(medians, policies.map(({ name }) => name));
  progress.done();
  return latency.rows().map(({ policy, kind, count, p999, mean }) => ({
    ...ratioOf(ratios, policy, kind),
    tail: tailOf(latency, policy, kind, count),
    policy,
    kind,
    count,
    p999,
    mean,
    quantiles: latency.quantiles(policy, kind, STEPS) ?? [],
  }));
}

/** Writes a page. */
export const report = defineCommand({
  name: "report",
  summary: "Write what policies do with a trace into a page to be looked at in a browser",
  details: "The page is one file and asks the network for nothing: findings, a timeline of the " +
    "VMRUNs, the steps and differing fields of each, latencies, and a search. Ends with 1 when " +
    "anything differs.",
  operands: { usage: "TRACE", min: 1, max: 1 },
  options: [
    { ...POLICIES_OPTION, required: true },
    PROCESSOR,
    OUTPUT,
    FORCE,
    { name: "title", kind: "text", doc: "Title of the page; the trace's name when left out" },
    {
      name: "passes",
      kind: "number",
      doc: `How many times the trace is replayed to measure it (${PASSES}); 0 for no latencies`,
    },
  ],
  examples: [
    {
      line: "report run.vmtape --policies early-exit,unified,linux-6.12 -o report.html",
      doc: "Everything on one page",
    },
  ],
  async run(context, { options, operands: [path = ""] }) {
    if (path === STANDARD) {
      throw new UsageError("A trace is read several times: name a file, not -");
    }
    const { passes = PASSES, output, force } = options;
    const policies = await policiesOf(options.policies, 2, options.processor);
    const collector = new ReportCollector(policies);
    using progress = context.progress("events");
    const sharing = new ReportSharing();
    await feedAll(path, progress, (event) => {
      collector.feed(event);
      sharing.feed(event);
    }, (header) => sharing.begin(header));
    progress.done();
    const latency = passes === 0 ? [] : await measure(context, path, policies, passes);
    const name = path.replace(/^.*[/\\]/, "");
    const data = collector.finish(options.title ?? name, latency);
    const extras = {
      provenance: sharing.provenance(),
      markdown: findingTexts(data, name),
      minimal: await sharing.minimal(data, policies),
      file: await smallFile(path),
    };
    writeWhole(context, { output, force }, reportPage(data, name, extras));
    const { findings, result } = data;
    if (context.json && output !== STANDARD) {
      context.out.json({ output, runs: result.runs, findings: findings.length });
    } else context.note(`${findings.length} findings in ${result.runs} VMRUNs, in ${output}`);
    const missed = Object.keys(result.unmodelled).length > 0;
    return missed || result.different.some((count) => count > 0) ? EXIT.differs : EXIT.ok;
  },
});
