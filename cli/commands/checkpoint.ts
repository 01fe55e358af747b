/**
 * The subcommand `checkpoint`.
 *
 * @module
 */
import type { TraceEvent } from "../../engine/event.ts";
import { checkpointDigest } from "../../engine/replay/checkpoint.ts";
import { MemoizedReplayer } from "../../engine/memo/replayer.ts";
import { defineCommand, EXIT, FORCE, OUTPUT } from "../command.ts";
import { POLICY, policyOf } from "../policy_options.ts";
import { STEP_LIMIT } from "../step_limit.ts";
import { plural } from "../../engine/plural.ts";
import { UsageError } from "../errors.ts";
import { openTrace } from "../inputs.ts";
import { reportWritten, writeTrace } from "../trace_output.ts";

const EVERY = 100_000;

/** Whether a run may begin here, so that the one before is over. */
function beginsRun(event: TraceEvent): boolean {
  return event.kind === "case" || event.kind === "setstate" ||
    event.kind === "vmrun" && event.regs !== undefined;
}

/** Writes a trace anew with states to begin at. */
export const checkpoint = defineCommand({
  name: "checkpoint",
  summary: "Write a trace with the machine's state every so many events, to begin replays there",
  details: "The state is that of a replay under one policy; `replay --from` under that policy " +
    "begins at the last one before the event that is asked for, and ends with the digest of a " +
    "replay from the start.",
  operands: { usage: "TRACE", min: 1, max: 1 },
  options: [
    POLICY,
    STEP_LIMIT,
    {
      name: "every",
      kind: "number",
      doc: `At the first run or scenario after so many events (${EVERY})`,
    },
    OUTPUT,
    FORCE,
  ],
  examples: [
    {
      line: "checkpoint long.vmtape --policy linux-6.12 -o seek.vmtape",
      doc: "Let replays under linux-6.12 begin anywhere",
    },
    {
      line: "checkpoint long.vmtape -p linux-6.12 --every 1000000 -o - | vmtape verify -",
      doc: "Fewer of them, and look whether all is well",
    },
  ],
  async run(context, { options, operands: [path = ""] }) {
    const every = options.every ?? EVERY;
    if (every < 1) throw new UsageError("--every takes a number of at least 1");
    const policy = await policyOf(options);
    const trace = await openTrace(path);
    const replayer = new MemoizedReplayer(policy);
    using progress = context.progress("events");
    let checkpoints = 0;
    const written = await writeTrace(context, options, async (open) => {
      const writer = open(trace.header.meta, trace.header);
      let events = 0, last = 0;
      for await (const block of trace.blocks()) {
        for (const event of block.shared()) {
          if (beginsRun(event) && events - last >= every) {
            const state = replayer.save();
            if (state !== undefined) {
              writer.checkpoint(state, checkpointDigest(state));
              checkpoints++;
              last = events;
            }
          }
          replayer.feed(event);
          writer.write(event);
          events++;
        }
        progress.update(events);
      }
      replayer.finish();
    });
    progress.done();
    reportWritten(context, options.output, written);
    if (checkpoints === 0) {
      context.note(
        `No checkpoint: they are set where a run begins, the first after ${every} events ` +
          "(--every), and not in logs of transitions",
      );
    } else context.note(`${plural(checkpoints, "checkpoint")} of ${policy.name}`);
    return EXIT.ok;
  },
});
