/**
 * The subcommand `identify`.
 *
 * @module
 */
import { PROCESSOR } from "../policy_options.ts";
import { plainMismatch } from "../../engine/replay/agreement.ts";
import { type Identification, identify } from "../../engine/replay/identify.ts";
import type { Mismatch } from "../../engine/replay/replayer.ts";
import type { TraceEvent } from "../../engine/event.ts";
import { defineCommand, EXIT } from "../command.ts";
import type { Context } from "../context.ts";
import { openTrace } from "../inputs.ts";
import { UsageError } from "../errors.ts";
import { STANDARD } from "../files.ts";
import { plural } from "../../engine/plural.ts";
import { formatTable } from "../table.ts";

function line(mismatch: Mismatch): string {
  const { event, scenario, field, recorded, replayed } = mismatch;
  const where = scenario === undefined ? `event ${event}` : `event ${event} (${scenario})`;
  return `${where}: ${field}: recorded ${recorded}, would be ${replayed}`;
}

/** What was found, mismatches as text alone. */
function plain({ candidates, firstUnexplained, ...rest }: Identification): Identification {
  return {
    ...rest,
    firstUnexplained: firstUnexplained && plainMismatch(firstUnexplained),
    candidates: candidates.map((one) => ({ ...one, first: one.first && plainMismatch(one.first) })),
  };
}

function print(context: Context, found: Identification): void {
  const { out } = context;
  const { runs, telling, unexplained, firstUnexplained, candidates, sentence } = found;
  out.line(context.bold(sentence));
  out.line(`${telling} of ${runs} runs tell`);
  out.line();
  const rows = candidates.map(({ policy, checks, for: agreed, against }) => [
    policy,
    checks,
    String(agreed),
    String(against),
  ]);
  out.text(formatTable(["policy", "checks", "for", "against"], rows));
  const bySet = new Set(candidates.map(({ checks }) => checks)).size > 1;
  for (const { policy, checks, first } of candidates) {
    if (first === undefined) continue;
    out.line();
    out.line(`Not ${policy}${bySet ? ` with ${checks}` : ""}, first by ${line(first)}`);
  }
  if (firstUnexplained !== undefined) {
    out.line();
    out.line(
      `${plural(unexplained, "run")} went as none of these policies says, the first at ` +
        line(firstUnexplained),
    );
  }
}

/** Says what kernel a trace is of. */
export const identifyCommand = defineCommand({
  name: "identify",
  summary: "Say which known policy and checks explain what was recorded",
  details:
    "The trace is replayed under every built-in policy, with its own checks. A run tells when " +
    "some policy explains all of it and another does not. Where no policy fits, the kernels " +
    "between early-exit and linux-6.12 are tried too: every selection of the fixes that lead from " +
    "one to the other. Ends with 0 when one policy fits and the others are ruled out, else with 1.",
  operands: { usage: "TRACE", min: 1, max: 1 },
  options: [{
    ...PROCESSOR,
    doc: "The processor that it was recorded on (what it says, else amd)",
  }],
  examples: [
    { line: "identify mine.vmtape", doc: "Which known kernel does this one behave like?" },
  ],
  async run(context, { options: { processor }, operands: [path = ""] }) {
    if (path === STANDARD) {
      throw new UsageError("The trace may be read twice: name a file, not -");
    }
    using progress = context.progress("events");
    let events = 0;
    const open = async function* (): AsyncGenerator<TraceEvent> {
      const trace = await openTrace(path);
      for await (const block of trace.blocks()) {
        // Copies: the replayers keep what was recorded until a run is over.
        for (const event of block) {
          yield processor !== undefined && event.kind === "session"
            ? { ...event, meta: { ...event.meta, processor_model: processor } }
            : event;
          events++;
        }
        progress.update(events);
      }
    };
    const found = await identify(open);
    progress.done();
    if (context.json) context.out.json(plain(found));
    else print(context, found);
    return found.verdict.kind === "known" ? EXIT.ok : EXIT.differs;
  },
});
