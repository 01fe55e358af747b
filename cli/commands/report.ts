/**
 * The subcommand `report`.
 *
 * @module
 */
import type { TraceHeader } from "../../codecs/mod.ts";
import { Latency } from "../../engine/latency.ts";
import type { TraceEvent } from "../../engine/event.ts";
import type { Policy } from "../../engine/policy.ts";
import {
  ReportCollector,
  type ReportData,
  type ReportLatency,
  reportPage,
} from "../../report/mod.ts";
import { defineCommand, EXIT, FORCE, OUTPUT } from "../command.ts";
import type { Context } from "../context.ts";
import { POLICIES_OPTION, policiesOf, PROCESSOR } from "../policy_options.ts";
import { STEP_LIMIT } from "../step_limit.ts";
import { UsageError } from "../errors.ts";
import { STANDARD } from "../files.ts";
import { eventTotal, openTrace } from "../inputs.ts";
import { RecordedTimes } from "../measurement.ts";
import { plural } from "../../engine/plural.ts";
import { reportLatency } from "../report_latency.ts";
import { findingTexts, ReportSharing } from "../report_sharing.ts";
import { EACH, JOBS, jobsOf, withShares } from "../shares/plan.ts";
import { ReportTotal } from "../shares/report_share.ts";
import { atEvent } from "../watchdog.ts";
import { writeWhole } from "../whole_file.ts";

/** As many as tell a difference from noise. */
const PASSES = 3;
/** VMRUNs that a pass measures: enough for a tail, and little beside a diff of a long trace. */
const MEASURED = 1000;
/** A trace of so many bytes is carried along. */
const SMALL = 256 * 1024;

/** How a report is gathered. */
interface Gathering {
  /** Its title. */
  readonly title: string;
  /** How the policies are named, and on how many threads they are run. */
  readonly named: {
    readonly policies: readonly string[];
    readonly processor: string | undefined;
    readonly each: boolean;
    readonly jobs: number | undefined;
  };
  /** Receives the trace's header. */
  readonly begin: (header: TraceHeader) => void;
  /** Receives every event. */
  readonly look: (event: TraceEvent) => void;
}

/** Runs a trace under policies, on this thread or on several. */
async function gather(
  context: Context,
  path: string,
  policies: readonly Policy[],
  { title, named, begin, look }: Gathering,
): Promise<ReportData> {
  const jobs = jobsOf(named.jobs);
  const total = await eventTotal(context, path);
  const collector = jobs > 1 ? undefined : new ReportCollector(policies, { each: named.each });
  {
    const what = collector === undefined ? "events read" : "events";
    using progress = context.progress(what, total);
    const trace = await openTrace(path);
    begin(trace.header);
    let events = 0;
    for await (const block of trace.blocks()) {
      for (const event of block.shared()) {
        atEvent(events);
        collector?.feed(event);
        look(event);
        events++;
      }
      progress.update(events);
    }
  }
  if (collector !== undefined) return collector.finish(title);
  const { policies: names, processor, each } = named;
  const task = { command: "report", policies: names, processor, each } as const;
  return await withShares(context, path, task, { jobs, shard: undefined }, async (work) => {
    using progress = context.progress("events", total);
    const sum = new ReportTotal(policies);
    for await (const share of work.shares) {
      sum.add(share);
      progress.update(share.to);
    }
    return sum.finish(title);
  });
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
    JOBS,
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
    const sharing = new ReportSharing();
    const recorded = new RecordedTimes(latency);
    const gathered = await gather(context, path, policies, {
      title: options.title ?? name,
      named: options,
      begin: (header) => sharing.begin(header),
      look: (event) => {
        sharing.feed(event);
        if (passes > 0) recorded.feed(event);
      },
    });
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
