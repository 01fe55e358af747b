/**
 * The subcommand `import`.
 *
 * @module
 */
import type { TraceWriter } from "../../codecs/mod.ts";
import { defineCommand, EXIT, FORCE, OUTPUT } from "../command.ts";
import { shown } from "../files.ts";
import { type Form, FORMS, importNotes, openImport, READ } from "../import_sources.ts";
import { reportWritten, writeTrace, type Written } from "../trace_output.ts";
import { orAborted, untilAborted } from "../until_aborted.ts";

/** An input had no event in it. */
class NothingError extends Error {}

/** Turns recordings of other origin into traces. */
export const importCommand = defineCommand({
  name: "import",
  summary: "Turn a recording of another tool into a trace",
  details: `Reads ${READ.join(", ")}, and KVM's tracepoints as tracefs, trace-cmd report ` +
    "or perf script print them, or as trace-cmd stores them (trace.dat); each plain or compressed " +
    "with gzip.\n\n" +
    "What a source could not see is unknown in the trace, not zero: a tracepoint log holds no save " +
    "area. Ctrl-C ends the import; what was read until then is a whole trace. A file gives the same " +
    "trace each time, byte for byte. Ends with 1, and writes nothing, when there was nothing to import.",
  operands: { usage: "FILE", min: 1, max: 1 },
  options: [
    OUTPUT,
    {
      name: "from",
      kind: "text",
      value: "FORM",
      choices: FORMS,
      doc: "Form of the file; recognized by its content when left out",
    },
    FORCE,
  ],
  examples: [
    { line: "import records.ndjson.gz -o lab.vmtape", doc: "Import what a real kernel did" },
    { line: "import trace.dat -o night.vmtape", doc: "Import what trace-cmd recorded" },
    { line: "import - -o live.vmtape < /sys/kernel/tracing/trace_pipe", doc: "Follow a machine" },
  ],
  async run(context, { options, operands: [path = ""] }) {
    const { signal } = context;
    await using input = await orAborted(openImport(path, options.from as Form | undefined), signal);
    const meta = { source: input.source, file: shown(path).replace(/^.*\//, "") };
    using progress = context.progress("events");
    let written: Written | undefined;
    try {
      written = await writeTrace(context, options, async (open) => {
        let writer: TraceWriter | undefined;
        for await (const batch of untilAborted(input.batches, signal)) {
          // Nothing is written for nothing, to a pipe neither.
          if (batch.length > 0) writer ??= open(meta, undefined, input.how);
          for (const event of batch) writer?.write(event);
          progress.update(writer?.events ?? 0);
        }
        if (writer === undefined) throw new NothingError();
      });
    } catch (error) {
      if (!(error instanceof NothingError)) throw error;
    }
    progress.done();
    for (const note of input.stats ? importNotes(input.stats) : []) context.note(note);
    if (written === undefined) {
      context.warn(`Nothing to import was in ${shown(path)}; no trace was written`);
      if (context.json) context.out.json({ events: 0, import: input.stats });
      return EXIT.differs;
    }
    reportWritten(context, options.output, written, { import: input.stats });
    return EXIT.ok;
  },
});
