import type { TraceStream } from "../../codecs/mod.ts";
import { catTraces } from "../../codecs/edit.ts";
import { defineCommand, EXIT, FORCE, OUTPUT } from "../command.ts";
import { openTrace } from "../inputs.ts";
import { reportWritten, writeTrace } from "../trace_output.ts";

async function* opened(first: TraceStream, rest: readonly string[]): AsyncGenerator<TraceStream> {
  yield first;
  for (const path of rest) yield await openTrace(path);
}

/** Puts traces together. */
export const cat = defineCommand({
  name: "cat",
  summary: "Write the events of several traces into one, in order",
  operands: { usage: "TRACE…", min: 1 },
  options: [OUTPUT, FORCE],
  examples: [{ line: "cat monday.vmtape tuesday.vmtape -o week.vmtape", doc: "One trace of two" }],
  async run(context, { options, operands: [first = "", ...rest] }) {
    const trace = await openTrace(first);
    const written = await writeTrace(
      context,
      options,
      (open) => catTraces(opened(trace, rest), open(trace.header.meta)),
    );
    reportWritten(context, options.output, written);
    return EXIT.ok;
  },
});
