import { readLabRecords } from "../../codecs/lab_record.ts";
import { importLab } from "../../traces/lab_import.ts";
import { defineCommand, EXIT, FORCE, OUTPUT } from "../command.ts";
import { openInput, shown } from "../files.ts";
import { reportWritten, writeTrace } from "../trace_output.ts";

const FORMS = ["lab"] as const;

/** Turns recordings of other origin into traces. */
export const importCommand = defineCommand({
  name: "import",
  summary: "Turn a recording of another tool into a trace",
  details: "Reads the records that the lab prints (NDJSON), plain or compressed with gzip. " +
    "A trace holds everything a record holds, and can be replayed without it.",
  operands: { usage: "FILE", min: 1, max: 1 },
  options: [
    OUTPUT,
    {
      name: "from",
      kind: "text",
      value: "FORM",
      choices: FORMS,
      doc: "Form of the file; recognized by its first bytes when left out",
    },
    FORCE,
  ],
  examples: [
    { line: "import records.ndjson.gz -o lab.vmtape", doc: "Import what a real kernel did" },
    { line: "import - --from lab -o lab.vmtape < records.ndjson", doc: "The same from a pipe" },
  ],
  async run(context, { options, operands: [path = ""] }) {
    const stream = await openInput(path);
    const { signal } = context;
    const meta = { source: "lab", file: shown(path).replace(/^.*\//, "") };
    using progress = context.progress("events");
    const written = await writeTrace(
      context,
      { path: options.output, force: options.force, meta },
      async (writer) => {
        const records = readLabRecords(stream, { file: shown(path) });
        for await (const event of importLab(records)) {
          signal.throwIfAborted();
          writer.write(event);
          progress.update(writer.events);
        }
      },
    );
    progress.done();
    reportWritten(context, options.output, written);
    return EXIT.ok;
  },
});
