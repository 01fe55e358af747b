/**
 * The subcommand `export`.
 *
 * @module
 */
import { perfettoText } from "../../codecs/perfetto.ts";
import type { TraceEvent } from "../../engine/event.ts";
import { Breather } from "../breather.ts";
import { defineCommand, EXIT, FORCE, OUTPUT } from "../command.ts";
import { STANDARD } from "../files.ts";
import { openTrace } from "../inputs.ts";
import { wholeFile } from "../whole_file.ts";

/** Text compressed with gzip, which ui.perfetto.dev opens as it is. */
function gzipped(pieces: AsyncIterable<string>): ReadableStream<Uint8Array<ArrayBuffer>> {
  return ReadableStream.from(pieces)
    .pipeThrough(new TextEncoderStream())
    .pipeThrough(new CompressionStream("gzip"));
}

/** Writes a trace for another tool. */
export const exportCommand = defineCommand({
  name: "export",
  summary: "Write a trace in another tool's format, such as Perfetto's",
  details:
    "perfetto is the Trace Event Format: ui.perfetto.dev and chrome://tracing open it. Each " +
    "vCPU is a track with VMRUN, L2 and #VMEXIT as slices; failed checks, and exits of L2 that L0 " +
    "handles, are instants. A recording without times gets a microsecond for each event. A file " +
    "whose name ends with .gz is compressed, which ui.perfetto.dev opens as it is.",
  operands: { usage: "TRACE", min: 1, max: 1 },
  options: [
    {
      name: "to",
      kind: "text",
      value: "FORMAT",
      choices: ["perfetto"],
      required: true,
      doc: "Format to write",
    },
    OUTPUT,
    FORCE,
  ],
  examples: [
    { line: "export run.vmtape --to perfetto -o run.json", doc: "For ui.perfetto.dev" },
    { line: "export run.vmtape --to perfetto -o run.json.gz", doc: "A fraction of the size" },
  ],
  async run(context, { options, operands: [path = ""] }) {
    const { output, force } = options;
    const trace = await openTrace(path);
    using file = wholeFile(context, { output, force });
    using progress = context.progress("events");
    const { signal } = context;
    const breather = new Breather();
    let events = 0;
    const all = async function* (): AsyncGenerator<TraceEvent> {
      for await (const block of trace.blocks()) {
        for (const event of block.shared()) {
          yield event;
          events++;
        }
        progress.update(events);
        await breather.rest();
        signal.throwIfAborted();
      }
    };
    const title = path === STANDARD ? "trace" : path.replace(/^.*[/\\]/, "");
    const pieces = perfettoText(all(), title);
    if (output.endsWith(".gz")) {
      for await (const chunk of gzipped(pieces)) file.bytes(chunk);
    } else for await (const piece of pieces) file.write(piece);
    file.done();
    progress.done();
    if (context.json && output !== STANDARD) context.out.json({ output, events });
    else context.note(`${events} events, in ${output}`);
    return EXIT.ok;
  },
});
