import { type Mismatch, Replayer, type ReplayResult } from "../../engine/replay/replayer.ts";
import type { PartialResult } from "../../engine/replay/partial.ts";
import type { TraceEvent } from "../../engine/event.ts";
import type { Policy } from "../../engine/policy.ts";
import { defineCommand, EXIT } from "../command.ts";
import type { Context } from "../context.ts";
import { POLICY } from "../emulation.ts";
import { UsageError } from "../errors.ts";
import { openTrace } from "../inputs.ts";
import { loadPolicy } from "../policy_input.ts";
import { formatTable } from "../table.ts";

const EXAMPLES = 3;
const LISTED = 40;

/** Mismatches of one field. */
interface Group {
  readonly field: string;
  count: number;
  readonly examples: Mismatch[];
}

/** Collects mismatches by field; memory does not grow with their number. */
class Mismatches {
  readonly #groups = new Map<string, Group>();
  #count = 0;

  get count(): number {
    return this.#count;
  }

  add(mismatch: Mismatch): void {
    this.#count++;
    const { field } = mismatch;
    let group = this.#groups.get(field);
    if (!group) this.#groups.set(field, group = { field, count: 0, examples: [] });
    group.count++;
    if (group.examples.length < EXAMPLES) group.examples.push(mismatch);
  }

  /** The most frequent first. */
  groups(): Group[] {
    return [...this.#groups.values()].sort((a, b) =>
      b.count - a.count || (a.field < b.field ? -1 : 1)
    );
  }
}

/** The policy that a session says it was recorded under. */
function recordedPolicy(event: TraceEvent): string | undefined {
  const { policy, kernel } = event.kind === "session" ? event.meta ?? {} : {};
  const name = policy ?? kernel;
  return typeof name === "string" ? name : undefined;
}

/** Replays a trace, under one policy or under those it was recorded with. */
class Session {
  readonly results: ReplayResult[] = [];
  readonly #report: (mismatch: Mismatch) => void;
  #fixed: Policy | undefined;
  #replayer: Replayer | undefined;
  #base = 0;
  #events = 0;

  constructor(policy: Policy | undefined, report: (mismatch: Mismatch) => void) {
    this.#report = report;
    this.#fixed = policy;
  }

  /** Whether a session that an event begins was recorded under another policy than the one before. */
  needs(event: TraceEvent): string | undefined {
    if (this.#fixed || event.kind !== "session") return undefined;
    const name = recordedPolicy(event);
    return name === this.#replayer?.policy.name ? undefined : name;
  }

  /** Goes on under another policy. */
  begin(policy: Policy): void {
    this.#end();
    this.#base = this.#events;
    this.#replayer = new Replayer(
      policy,
      (mismatch) => this.#report({ ...mismatch, event: mismatch.event + this.#base }),
    );
  }

  feed(event: TraceEvent): void {
    if (!this.#replayer) {
      if (!this.#fixed) {
        throw new UsageError(
          "The trace does not say which policy it was recorded under; name one with --policy",
        );
      }
      this.begin(this.#fixed);
    }
    this.#events++;
    this.#replayer!.feed(event);
  }

  finish(): readonly ReplayResult[] {
    this.#end();
    return this.results;
  }

  #end(): void {
    if (this.#replayer) this.results.push(this.#replayer.finish());
    this.#replayer = undefined;
  }
}

function partialJson({ sets, ...rest }: PartialResult) {
  const rows = [...sets].map(([name, { verdicts, needs }]) =>
    [name, { verdicts, needs: Object.fromEntries(needs) }] as const
  );
  return { ...rest, sets: Object.fromEntries(rows) };
}

const NEEDS = 4;

/** What was found in transitions that were recorded without memory. */
function* partialLines(policy: string, partial: PartialResult): Generator<string> {
  const { transitions, agreed, unexplained, sets, all } = partial;
  yield `${policy}: ${agreed} of ${transitions} transitions contradict nothing that was recorded`;
  if (unexplained > 0) yield `  ${unexplained} fit no state that is known to this version`;
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
  yield formatTable(["checks", "fail", "pass", "cannot tell", "needs"], rows).trimEnd();
  yield `  under every set: ${all.fails} fail, ${all.passes} pass; ${all.unknown} differ or cannot be told`;
}

function resultJson(result: ReplayResult) {
  const { outcomes, unmodelled, partial, ...rest } = result;
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

function print(context: Context, results: readonly ReplayResult[], found: Mismatches): void {
  const { out } = context;
  for (const result of results) {
    const { policy, runs, agreed, skipped, outcomes, digest, unmodelled, partial } = result;
    if (partial !== undefined) { for (const row of partialLines(policy, partial)) out.line(row); }
    if (partial !== undefined && runs === 0) continue;
    const left = skipped > 0 ? `, ${skipped} more lack their inputs` : "";
    out.line(`${policy}: ${agreed} of ${runs} runs agree in everything${left}`);
    const rows = [...outcomes].map(([kind, { compared, agreed }]) => [
      kind,
      String(compared),
      String(agreed),
    ]);
    out.text(formatTable(["outcome", "compared", "agreed"], rows));
    out.line(`  digest ${digest}`);
    for (const [what, count] of unmodelled) out.line(`  Not modelled: ${what} (${count} times)`);
  }
  const groups = found.groups();
  for (const { field, count, examples } of groups.slice(0, LISTED)) {
    out.line(`\n${count} × ${field}`);
    for (const example of examples) out.line(`  ${line(example)}`);
  }
  if (groups.length > LISTED) out.line(`\nand ${groups.length - LISTED} more fields`);
}

/** Re-executes a trace. */
export const replay = defineCommand({
  name: "replay",
  summary: "Re-execute a trace, and hold the outcome against what was recorded",
  details: "Without --policy, under the policy that the trace was recorded with: then whatever " +
    "differs is a fault of the model. Under another one, it is what the policy changes. The digest " +
    "is over all modelled state: the same trace and policy always give the same.",
  operands: { usage: "TRACE", min: 1, max: 1 },
  options: [
    { ...POLICY, doc: "Policy to replay under; the recorded one when left out" },
    { name: "all", kind: "flag", doc: "Print every mismatch as it is found" },
  ],
  examples: [
    { line: "replay run.vmtape", doc: "Does the model do what was recorded?" },
    { line: "replay run.vmtape --policy upstream", doc: "What would another policy have done?" },
  ],
  async run(context, { options, operands: [path = ""] }) {
    const policy = options.policy === undefined ? undefined : await loadPolicy(options.policy);
    const trace = await openTrace(path);
    const found = new Mismatches();
    const session = new Session(policy, (mismatch) => {
      found.add(mismatch);
      if (!options.all) return;
      if (context.json) context.out.json(mismatch);
      else context.out.line(`${mismatch.field}: ${line(mismatch)}`);
    });
    using progress = context.progress("events");
    let events = 0;
    for await (const block of trace.blocks()) {
      // Copies: the replayer keeps what was recorded until its run is over.
      for (const event of block) {
        const name = session.needs(event);
        if (name !== undefined) session.begin(await loadPolicy(name));
        session.feed(event);
        events++;
      }
      progress.update(events);
    }
    progress.done();
    const results = session.finish();
    if (context.json) {
      context.out.json({
        replays: results.map(resultJson),
        mismatches: found.count,
        fields: found.groups(),
      });
    } else print(context, results, found);
    return found.count === 0 ? EXIT.ok : EXIT.differs;
  },
});
