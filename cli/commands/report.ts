/**
 * The subcommand `report`.
 *
 * @module
 */
import type { TraceHeader } from "../../codecs/mod.ts";
import { Latency } from "../../engine/latency.ts";
import { EACH } from "../shares/plan.ts";
import { ReportCollector, type ReportLatency, reportPage } from "../../report/mod.ts";
import { defineCommand, EXIT, FORCE, OUTPUT } from "../command.ts";
import { POLICIES_OPTION, policiesOf, PROCESSOR } from "../policy_options.ts";
import { STEP_LIMIT } from "../step_limit.ts";
import { UsageError } from "../errors.ts";
import { STANDARD } from "../files.ts";
import { eventTotal, openTrace } from "../inputs.ts";
import { RecordedTimes } from "../measurement.ts";
import { plural } from "../../engine/plural.ts";
import { reportLatency } from "../report_latency.ts";
import { findingTexts, ReportSharing } from "../report_sharing.ts";
import { writeWhole } from "../whole_file.ts";

/** As many as tell a difference from noise. */
const PASSES = 3;
/** VMRUNs that a pass measures: enough for a tail, and little beside a diff of a long trace. */
const MEASURED = 2000;
/** A trace of so many bytes is carried along. */
const SMALL = 256 * 1024;

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
    STEP_LIMIT,
    OUTPUT,
    FORCE,
    EACH,
    { name: "title", kind: "text", doc: "Title of the page; the trace's name when left out" },
    {
      name: "passes",
      kind: "number",
      doc: `How many times the trace is replayed to measure it (${PASSES}); 0 for no latencies`,
    },
    {
      name: "measured",
      kind: "number",
      doc: `How many VMRUNs each pass measures, from the first on (${MEASURED}); vmtape stats ` +
        "measures all",
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
    const { passes = PASSES, measured = MEASURED, output, force } = options;
    if (measured === 0) {
      throw new UsageError("Option --measured is at least 1; --passes 0 measures nothing");
    }
    const policies = await policiesOf(options.policies, 2, options.processor);
    const name = path.replace(/^.*[/\\]/, "");
    using latency = await Latency.create();
    const collector = new ReportCollector(policies, { each: options.each });
    const sharing = new ReportSharing();
    const recorded = new RecordedTimes(latency);
    {
      using progress = context.progress("events", await eventTotal(context, path));
      await feedAll(path, progress, (event) => {
        collector.feed(event);
        sharing.feed(event);
        if (passes > 0) recorded.feed(event);
      }, (header) => sharing.begin(header));
    }
    const gathered = collector.finish(options.title ?? name);
    const { runs } = gathered.result;
    let notes: string[] = [];
    let rows: ReportLatency[] = [];
    if (passes > 0) {
      const total = Math.min(measured, runs) * (passes + 1);
      using progress = context.progress("VMRUNs measured", total);
      const update = (_: number, runs: number) => progress.update(runs);
      const most = runs > measured ? measured : undefined;
      ({ rows, notes } = await reportLatency(path, policies, { passes, latency, most, update }));
    }
    const data = { ...gathered, latency: rows };
    const extras = {
      provenance: sharing.provenance(),
      markdown: findingTexts(data, name),
      minimal: await sharing.minimal(data, policies),
      file: await smallFile(path),
      latencyNotes: notes,
    };
    writeWhole(context, { output, force }, reportPage(data, name, extras));
    const { findings, result } = data;
    if (context.json && output !== STANDARD) {
      context.out.json({ output, runs: result.runs, findings: findings.length });
    } else {
      const found = `${plural(findings.length, "finding")} in ${plural(result.runs, "VMRUN")}`;
      context.note(`${found}, in ${output}`);
    }
    const missed = Object.keys(result.unmodelled).length > 0;
    return missed || result.different.some((count) => count > 0) ? EXIT.differs : EXIT.ok;
  },
});
