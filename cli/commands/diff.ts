/**
 * The subcommand `diff`.
 *
 * @module
 */
import {
  Differ,
  type DiffResult,
  type Finding,
  Findings,
  plainDifference,
  plainFinding,
  type RunDifference,
} from "../../engine/diff/mod.ts";
import { MemoizedDiffer } from "../../engine/memo/mod.ts";
import { defineCommand, EXIT } from "../command.ts";
import type { Context } from "../context.ts";
import { DIFF_OUTPUT, diffLines, failsOn, markdownLines, runLines } from "../diff_output.ts";
import { POLICIES_OPTION, policiesOf, PROCESSOR } from "../policy_options.ts";
import { STEP_LIMIT } from "../step_limit.ts";
import { UsageError } from "../errors.ts";
import { eventTotal, openTrace } from "../inputs.ts";
import { diffRecordings } from "../recordings_diff.ts";
import { DiffTotal } from "../shares/diff_share.ts";
import { jobsOf, shardOf, SHARES, withShares } from "../shares/plan.ts";
import { shardFile } from "../shares/shard_file.ts";
import { atEvent } from "../watchdog.ts";

/** Prints one run that ends differently. */
export function printRun(context: Context, difference: RunDifference): void {
  if (context.json) context.out.json(plainDifference(difference));
  else for (const line of runLines(difference)) context.out.line(line);
}

/** How a diff is printed, and what it fails on. */
export interface DiffPrint {
  /** So many fields of a finding; the usual number when left out. */
  readonly limit?: number | undefined;
  /** `markdown`, or text. */
  readonly format?: string | undefined;
  /** What ends with status 1; see {@linkcode failsOn}. */
  readonly failOn?: string | undefined;
  /** Name of the trace, for the commands that show a finding. */
  readonly trace: string;
  /** How the policies were named. */
  readonly policies: readonly string[];
}

/**
 * Prints what a diff found.
 *
 * @param context Where to.
 * @param result Counts.
 * @param findings What was found.
 * @param print How.
 * @returns The exit status.
 */
export function printDiff(
  context: Context,
  result: DiffResult,
  findings: readonly Finding[],
  { limit, format, failOn, trace, policies }: DiffPrint,
): number {
  const output = { result, findings, trace, policies, limit };
  if (context.json) context.out.json({ ...result, findings: findings.map(plainFinding) });
  else {
    const lines = format === "markdown" ? markdownLines(output) : diffLines(output, context.color);
    for (const line of lines) context.out.line(line);
  }
  return failsOn(output, failOn) ? EXIT.differs : EXIT.ok;
}

/** Options that mean nothing where two recordings are compared. */
function refusePolicies(options: {
  readonly policies: readonly string[];
  readonly each: boolean;
  readonly jobs: unknown;
  readonly shard: unknown;
}): void {
  const given = [
    ["--policies", options.policies.length > 0],
    ["--each", options.each],
    ["--jobs", options.jobs !== undefined],
    ["--shard", options.shard !== undefined],
  ] as const;
  for (const [name, is] of given) {
    if (is) throw new UsageError(`Option ${name} and a second trace exclude each other`);
  }
}

/** Re-executes a trace under several policies and says what differs. */
export const diff = defineCommand({
  name: "diff",
  summary: "Re-execute a trace under several policies, and say what they leave different and why",
  details:
    "Each policy is compared with the first. Differences of one mechanism are one finding, with " +
    "the step that parted the policies, the fields and their values in the first run that shows it. " +
    "A follow-on is what differs only because of the state that an earlier run left. Given two " +
    "traces and no policies, they are taken as recordings of the same thing (two kernels, before " +
    "and after a patch, two nights): runs are aligned by scenario, else by vCPU and sequence, and " +
    "what was recorded is compared. Ends with 1 when anything differs, or as --fail-on says.",
  operands: { usage: "TRACE [TRACE]", min: 1, max: 2 },
  options: [
    POLICIES_OPTION,
    PROCESSOR,
    STEP_LIMIT,
    { name: "runs", kind: "flag", doc: "Every run that ends differently, with all its fields" },
    ...DIFF_OUTPUT,
    ...SHARES,
  ],
  examples: [
    { line: "diff run.vmtape --policies early-exit,unified", doc: "What the patch changes" },
    {
      line: "diff run.vmtape --policies early-exit,unified --format markdown",
      doc: "The same for a pull request",
    },
    {
      line: "diff before.vmtape after.vmtape --fail-on outcome",
      doc: "Two recordings, in CI: fails when one enters L2 where the other does not",
    },
    {
      line: "diff run.vmtape --policies linux-6.12,./mine.ts --fail-on outcome",
      doc: "In CI: fails only when one enters L2 where the other does not",
    },
    {
      line: "diff run.vmtape --policies linux-6.12,./mine.ts --runs",
      doc: "What a policy of your own does otherwise, VMRUN by VMRUN",
    },
  ],
  async run(context, { options, operands: [path = "", other] }) {
    if (other !== undefined) {
      refusePolicies(options);
      return await diffRecordings(context, [path, other], options);
    }
    if (options.policies.length === 0) {
      throw new UsageError(
        "Option -p, --policies A,B… is needed, or a second recording to compare with",
      );
    }
    const policies = await policiesOf(options.policies, 2, options.processor);
    const jobs = jobsOf(options.jobs);
    const shard = shardOf(options.shard, context.json);
    const { runs, limit, format } = options;
    const print = {
      limit,
      format,
      failOn: options["fail-on"],
      trace: path,
      policies: options.policies,
    };
    if (jobs > 1 || shard !== undefined) {
      const { policies: named, processor, each } = options;
      const task = { command: "diff", policies: named, processor, each, runs } as const;
      return await withShares(context, path, task, { jobs, shard }, async (work) => {
        if (shard !== undefined) {
          context.out.json(await shardFile(shard, work, { ...task, print }, policies));
          return EXIT.ok;
        }
        const total = new DiffTotal(
          runs ? (difference) => printRun(context, difference) : undefined,
        );
        for await (const share of work.shares) total.add(share);
        return printDiff(context, total.result, total.findings, print);
      });
    }
    const trace = await openTrace(path);
    const findings = new Findings();
    const differ = new (options.each ? Differ : MemoizedDiffer)(policies, (difference) => {
      findings.add(difference);
      if (runs) printRun(context, difference);
    }, { each: options.each });
    using progress = context.progress("events", await eventTotal(context, path));
    let events = 0;
    for await (const block of trace.blocks()) {
      for (const event of block.shared()) {
        atEvent(events);
        differ.feed(event);
        events++;
      }
      progress.update(events);
    }
    progress.done();
    return printDiff(context, differ.finish(), findings.list(), print);
  },
});
