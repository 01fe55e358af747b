import { defineCommand, EXIT, FORCE, OUTPUT } from "../command.ts";
import { shown } from "../files.ts";
import { type Form, FORMS, importNotes, openImport } from "../import_sources.ts";
import { reportWritten, writeTrace } from "../trace_output.ts";

/** Turns recordings of other origin into traces. */
export const importCommand = defineCommand({
  name: "import",
  summary: "Turn a recording of another tool into a trace",
  details:
    "Reads what the lab prints (NDJSON records), and KVM's tracepoints as tracefs, trace-cmd report " +
    "or perf script print them, or as trace-cmd stores them (trace.dat); each plain or compressed " +
    "with gzip.\n\n" +
    "What a source could not see is unknown in the trace, not zero: a tracepoint log holds no save " +
    "area. Ctrl-C ends the import; what was read until then is a whole trace.",
  operands: { usage: "FILE", min: 1, max: 1 },
  options: [
    OUTPUT,
    {
      name: "from",
      kind: "text",
      value: "FORM",
      choices: Object.keys(FORMS),
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
    await using input = await openImport(path, options.from as Form | undefined);
    const { signal } = context;
    const meta = { source: input.source, file: shown(path).replace(/^.*\//, "") };
    using progress = context.progress("events");
    const written = await writeTrace(context, options, async (open) => {
      const writer = open(meta);
      for await (const batch of input.batches) {
        signal.throwIfAborted();
        for (const event of batch) writer.write(event);
        progress.update(writer.events);
      }
    });
    progress.done();
    for (const note of input.stats ? importNotes(input.stats) : []) context.note(note);
    reportWritten(context, options.output, written, { import: input.stats });
    return EXIT.ok;
  },
});
