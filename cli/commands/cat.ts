/**
 * The subcommand `cat`.
 *
 * @module
 */
import type { TraceStream } from "../../codecs/mod.ts";
import { catTraces } from "../../codecs/container/edit.ts";
import { defineCommand, EXIT, FORCE, OUTPUT } from "../command.ts";
import { inTrace, openTrace } from "../inputs.ts";
import { reportWritten, writeTrace } from "../trace_output.ts";

/** Puts traces together. */
export const cat = defineCommand({
  name: "cat",
  summary: "Write the events of several traces into one, in order",
  operands: { usage: "TRACE…", min: 1 },
  options: [OUTPUT, FORCE],
  examples: [{ line: "cat monday.vmtape tuesday.vmtape -o week.vmtape", doc: "One trace of two" }],
  async run(context, { options, operands: [first = "", ...rest] }) {
    let reading = first;
    async function* opened(trace: TraceStream): AsyncGenerator<TraceStream> {
      yield trace;
      for (reading of rest) yield await openTrace(reading);
    }
    try {
      const trace = await openTrace(first);
      const written = await writeTrace(
        context,
        options,
        (open) => catTraces(opened(trace), open(trace.header.meta, trace.header)),
      );
      reportWritten(context, options.output, written);
      return EXIT.ok;
    } catch (error) {
      throw inTrace(reading, error);
    }
  },
});
