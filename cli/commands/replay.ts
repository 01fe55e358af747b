/**
 * The subcommand `replay`.
 *
 * @module
 */
import type { TraceEvent } from "../../engine/event.ts";
import { plainMismatch } from "../../engine/replay/agreement.ts";
import type { Mismatch, ReplayResult } from "../../engine/replay/replayer.ts";
import { POLICIES } from "../../engine/policies/mod.ts";
import type { PartialResult } from "../../engine/replay/partial.ts";
import { defineCommand, EXIT } from "../command.ts";
import type { Context } from "../context.ts";
import { POLICY, PROCESSOR } from "../policy_options.ts";
import { STEP_LIMIT } from "../step_limit.ts";
import { plural } from "../../engine/plural.ts";
import { UsageError } from "../errors.ts";
import { openTrace } from "../inputs.ts";
import { pickedPolicy, type SaidPolicies, underPicked } from "../picked_policy.ts";
import { loadPolicy, onChosen } from "../policy_input.ts";
import { replayFrom } from "../replay_from.ts";
import { jobsOf, shardOf, SHARES, withShares } from "../shares/plan.ts";
import { ReplaySession } from "../../engine/session.ts";
import type { Task } from "../shares/jobs.ts";
import { Mismatches, type ReplayShare, ReplayTotal } from "../shares/replay_share.ts";
import { shardFile } from "../shares/shard_file.ts";
import { formatTable } from "../table.ts";
import { atEvent } from "../watchdog.ts";

const LISTED = 40;

function partialJson({ sets, ...rest }: PartialResult) {
  const rows = [...sets].map(([name, { verdicts, needs }]) =>
    [name, { verdicts, needs: Object.fromEntries(needs) }] as const
  );
  return { ...rest, sets: Object.fromEntries(rows) };
}

const NEEDS = 4;

/** What was found in transitions that were recorded without memory. */
function* partialLines(policy: string, partial: PartialResult): Generator<string> {
  const { transitions, agreed, unexplained, sets, all, rsm } = partial;
  yield `${policy}: ${agreed} of ${transitions} transitions contradict nothing that was recorded`;
  if (unexplained > 0) yield `  ${unexplained} fit no state that is known to this version`;
  if (rsm.transitions > 0) {
    const does = rsm.checks
      ? `checks vmcb12, and shuts the vCPU down when a check fails`
      : `does not check vmcb12`;
    yield `  ${rsm.transitions} of them went back into L2 by RSM, where ${policy} ${does}`;
  }
  const rows = [...sets].map(([name, { verdicts, needs }]) => {
    const most = [...needs].sort((a, b) => b[1] - a[1]).map(([field]) => field);
    const more = most.length > NEEDS ? ", …" : "";
    return [
      name,
      String(verdicts.fails),
      String(verdicts.passes),
      String(verdicts.unknown),
      most.slice(0, NEEDS).join(", ") + more,
    ];
  });
  const table = formatTable(["checks", "fail", "pass", "cannot tell", "needs"], rows);
  yield* table.trimEnd().split("\n");
  yield `  under every set: ${all.fails} fail, ${all.passes} pass; ${all.unknown} differ or cannot be told`;
}

function resultJson(result: ReplayResult) {
  const { outcomes, unmodelled, partial, digested: _, ...rest } = result;
  return {
    ...rest,
    ...(partial && { partial: partialJson(partial) }),
    outcomes: Object.fromEntries(outcomes),
    unmodelled: Object.fromEntries(unmodelled),
  };
}

function line(mismatch: Mismatch): string {
  const { event, scenario, recorded, replayed } = mismatch;
  const where = scenario === undefined ? `event ${event}` : `event ${event} (${scenario})`;
  return `${where}: recorded ${recorded}, replayed ${replayed}`;
}

/** Prints one mismatch as it is found. */
export function printMismatch(context: Context, mismatch: Mismatch): void {
  if (context.json) context.out.json(plainMismatch(mismatch));
  else context.out.line(`${mismatch.field}: ${line(mismatch)}`);
}

/**
 * Prints what a replay found.
 *
 * @param context Where to.
 * @param results A result for each stretch of one policy.
 * @param found All mismatches.
 * @returns The exit status.
 */
export function printReplay(
  context: Context,
  results: readonly ReplayResult[],
  found: Mismatches,
): number {
  if (context.json) {
    context.out.json({
      replays: results.map(resultJson),
      mismatches: found.count,
      fields: found.groups(),
    });
  } else print(context, results, found);
  const whole = results.every(({ unmodelled }) => unmodelled.size === 0);
  return found.count === 0 && whole ? EXIT.ok : EXIT.differs;
}

function print(context: Context, results: readonly ReplayResult[], found: Mismatches): void {
  const { out } = context;
  for (const result of results) {
    const { policy, runs, agreed, skipped, outcomes, digest, unmodelled, partial } = result;
    if (partial !== undefined) { for (const row of partialLines(policy, partial)) out.line(row); }
    if (partial !== undefined && runs === 0) continue;
    const left = skipped > 0
      ? `, ${plural(skipped, "more lacks its inputs", "more lack their inputs")}`
      : "";
    out.line(
      runs === 0 && skipped === 0
        ? `${policy}: there is no VMRUN to replay`
        : `${policy}: ${agreed} of ${runs} runs agree in everything${left}`,
    );
    const rows = [...outcomes].map(([kind, { compared, agreed }]) => [
      kind,
      String(compared),
      String(agreed),
    ]);
    out.text(formatTable(["outcome", "compared", "agreed"], rows));
    out.line(`  digest ${digest}`);
    for (const [what, count] of unmodelled) {
      const left = plural(count, "run is", "runs are");
      out.line(`  Not modelled: ${what}: ${left} left unknown`);
    }
  }
  const groups = found.groups();
  for (const { field, count, examples } of groups.slice(0, LISTED)) {
    out.line();
    out.line(`${count} × ${field}`);
    for (const example of examples) out.line(`  ${line(example)}`);
  }
  if (groups.length <= LISTED) return;
  out.line();
  out.line(`and ${groups.length - LISTED} more fields`);
}

/** Re-executes a trace. */
export const replay = defineCommand({
  name: "replay",
  summary: "Re-execute a trace, and hold the outcome against what was recorded",
  details: "Without --policy, under the policy that the trace was recorded with: then whatever " +
    "differs is a fault of the model. Where that is a kernel that is not modelled, the nearest one " +
    "by version; where the trace says nothing of it, what `identify` finds. Under another one, it is " +
    "what the policy changes. The digest is over all modelled state: the same trace and policy always " +
    "give the same. Ends with 1 when anything differs, or a run met what is not modelled.",
  operands: { usage: "TRACE", min: 1, max: 1 },
  options: [
    { ...POLICY, doc: "Policy to replay under; the recorded one when left out" },
    PROCESSOR,
    STEP_LIMIT,
    {
      name: "from",
      kind: "number",
      value: "N",
      doc: "Begin at the last checkpoint before event N; tell what differs from N on",
    },
    { name: "all", kind: "flag", doc: "Print every mismatch as it is found" },
    ...SHARES,
  ],
  examples: [
    { line: "replay run.vmtape", doc: "Does the model do what was recorded?" },
    { line: "replay run.vmtape --policy linux-6.12", doc: "What would another policy have done?" },
  ],
  async run(context, { options, operands: [path = ""] }) {
    const { from, processor, all, each } = options;
    if (from !== undefined) {
      if (options.policy === undefined) {
        throw new UsageError("--from begins at a checkpoint of a policy: name it with --policy");
      }
      const policy = await loadPolicy(options.policy, processor);
      const found = new Mismatches();
      const result = await replayFrom(context, path, policy, from, (mismatch) => {
        found.add(mismatch);
        if (all) printMismatch(context, mismatch);
      }, each);
      return printReplay(context, [result], found);
    }
    const jobs = jobsOf(options.jobs);
    const shard = shardOf(options.shard, context.json);
    if (shard !== undefined) {
      const name = options.policy ?? await pickedPolicy(context, path);
      const task = { command: "replay", policy: name, processor, all, each } as const;
      // Without a policy that is named, the recorded ones are replayed under: any of them.
      const policies = name === undefined
        ? Object.values(POLICIES).map((one) => onChosen(one, processor))
        : [await loadPolicy(name, processor)];
      return await withShares(context, path, task, { jobs, shard }, async ({ trace, shares }) => {
        const work = { trace, shares: withoutReasons(shares) };
        context.out.json(await shardFile(shard, work, { ...task }, policies));
        return EXIT.ok;
      });
    }
    const replayed = (name: string | undefined, said?: SaidPolicies) =>
      jobs > 1
        ? replayShared(
          context,
          path,
          { command: "replay", policy: name, processor, all, each },
          jobs,
          said,
        )
        : replayAlone(context, path, name, { processor, all, each }, said);
    const { results, found } = options.policy !== undefined
      ? await replayed(options.policy)
      // What is printed as it is found cannot be taken back.
      : all
      ? await replayed(await pickedPolicy(context, path))
      : await underPicked(context, path, replayed);
    return printReplay(context, results, found);
  },
});

/** What a replay found. */
interface Replayed {
  /** A result for each stretch of one policy. */
  readonly results: readonly ReplayResult[];
  /** All mismatches. */
  readonly found: Mismatches;
}

/** Replays a trace on this thread. */
async function replayAlone(
  context: Context,
  path: string,
  name: string | undefined,
  { processor, all, each }: {
    readonly processor: string | undefined;
    readonly all: boolean;
    readonly each: boolean;
  },
  said?: SaidPolicies,
): Promise<Replayed> {
  const policy = name === undefined ? undefined : await loadPolicy(name, processor);
  const trace = await openTrace(path);
  const found = new Mismatches();
  const session = new ReplaySession(policy, (mismatch) => {
    found.add(mismatch);
    if (all) printMismatch(context, mismatch);
  }, { each });
  using progress = context.progress("events");
  let events = 0;
  const watch = {
    check: (event: TraceEvent) => {
      atEvent(events++);
      said?.check(event);
    },
  };
  for await (const block of trace.blocks()) {
    const shared = block.shared();
    let other: string | undefined;
    while ((other = session.feedAll(shared, watch)) !== undefined) {
      session.begin(await loadPolicy(other, processor));
    }
    progress.update(events);
  }
  progress.done();
  return { results: session.finish(), found };
}

/** Replays a trace on several threads. */
async function replayShared(
  context: Context,
  path: string,
  task: Task & { readonly command: "replay" },
  jobs: number,
  said?: SaidPolicies,
): Promise<Replayed> {
  return await withShares(context, path, task, { jobs, shard: undefined }, async ({ shares }) => {
    const total = new ReplayTotal();
    for await (const share of shares) {
      total.add(share);
      for (const mismatch of share.all) printMismatch(context, mismatch);
      for (const [name, why] of share.reasons ?? []) said?.reasons.set(name, why);
    }
    return total;
  });
}

/** What parts of shared work hold: what is told to people is told where each of them is made. */
async function* withoutReasons(shares: AsyncIterable<ReplayShare>): AsyncGenerator<ReplayShare> {
  for await (const { reasons: _, ...share } of shares) yield share;
}
