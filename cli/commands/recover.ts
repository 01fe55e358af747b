/**
 * The subcommand `recover`.
 *
 * @module
 */
import { recoverTrace, type Recovery } from "../../codecs/container/verify.ts";
import { defineCommand, EXIT, FORCE, OUTPUT } from "../command.ts";
import { openSpooled } from "../spool.ts";
import { reportWritten, writeTrace } from "../trace_output.ts";

/** Makes a whole trace of a damaged one. */
export const recover = defineCommand({
  name: "recover",
  summary: "Write a whole trace with everything that is intact in a damaged one",
  details:
    "Works on a trace that was cut off, as by a crash of its recorder (look for a file whose name " +
    "ends in .part), and on one whose bytes were changed. Where events are missing, the new trace " +
    "says so; checkpoints behind them are left out, since nothing leads there any more. Ends with 1 " +
    "when nothing could be saved.",
  operands: { usage: "TRACE", min: 1, max: 1 },
  options: [OUTPUT, FORCE],
  examples: [
    { line: "recover run.vmtape.part -o run.vmtape", doc: "After a crash of the recorder" },
    { line: "recover - -o run.vmtape < received", doc: "What came through a pipe" },
  ],
  async run(context, { options, operands: [path = ""] }) {
    using source = await openSpooled(path, options.output, context.signal);
    let recovery: Recovery | undefined;
    const written = await writeTrace(context, options, async (open) => {
      recovery = await recoverTrace(source, open);
    });
    const { events, lost, skipped } = recovery!;
    context.note(`${events} events saved, ${lost} are lost, ${skipped} bytes belong to no block`);
    reportWritten(context, options.output, written, { saved: events, lost, skipped });
    return events > 0 ? EXIT.ok : EXIT.differs;
  },
});
