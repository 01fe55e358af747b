/**
 * The subcommand `cut`.
 *
 * @module
 */
import { cutTrace } from "../../codecs/container/edit.ts";
import { defineCommand, EXIT, FORCE, OUTPUT } from "../command.ts";
import { openTraceFile } from "../inputs.ts";
import { RANGE, rangeOf } from "../range.ts";
import { reportWritten, writeTrace } from "../trace_output.ts";

/** Takes a range of events out of a trace. */
export const cut = defineCommand({
  name: "cut",
  summary: "Write a range of a trace's events into a trace of its own, which replays",
  details:
    "The session and the memory that the range stands on are written before it. What earlier " +
    "scenarios left in the hypervisor is not: where one goes on from them (keepvm), cut before the first.",
  operands: { usage: "TRACE", min: 1, max: 1 },
  options: [...RANGE, OUTPUT, FORCE],
  examples: [
    { line: "cut run.vmtape --from 1200 --to 1300 -o part.vmtape", doc: "Events 1200 to 1299" },
  ],
  async run(context, { options, operands: [path = ""] }) {
    using file = await openTraceFile(path);
    const { trace } = file;
    const range = rangeOf(options, trace);
    const written = await writeTrace(
      context,
      options,
      (open) => cutTrace(trace, range, open(trace.header.meta, trace.header)),
    );
    reportWritten(context, options.output, written);
    return EXIT.ok;
  },
});
