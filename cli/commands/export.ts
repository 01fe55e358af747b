/**
 * The subcommand `export`.
 *
 * @module
 */
import { type PerfettoNotes, perfettoText } from "../../codecs/perfetto.ts";
import type { TraceEvent } from "../../engine/event.ts";
import { Breather } from "../breather.ts";
import { defineCommand, EXIT, FORCE, OUTPUT } from "../command.ts";
import { Differ, Findings } from "../../engine/diff/mod.ts";
import type { Policy } from "../../engine/policy.ts";
import { POLICIES_OPTION, policiesOf, PROCESSOR } from "../policy_options.ts";
import { UsageError } from "../errors.ts";
import { STANDARD } from "../files.ts";
import { openTrace } from "../inputs.ts";
import { wholeFile } from "../whole_file.ts";

/** Titles of the findings that each run is part of, by the event that begins it. */
async function findingsOf(path: string, policies: readonly Policy[]): Promise<PerfettoNotes> {
  const findings = new Findings();
  const keys = new Map<number, string[]>();
  const differ = new Differ(policies, (difference) => {
    keys.set(difference.event, [
      ...keys.get(difference.event) ?? [],
      ...findings.add(difference),
    ]);
  });
  const trace = await openTrace(path);
  for await (const block of trace.blocks()) {
    for (const event of block.shared()) differ.feed(event);
  }
  differ.finish();
  // A key's place is looked for once: there are few of them, and many runs.
  const list = findings.list();
  const titles = new Map<string, string>();
  const titleOf = (key: string) => {
    const known = titles.get(key) ?? list[findings.indexOf(key)]?.title ?? key;
    titles.set(key, known);
    return known;
  };
  return new Map([...keys].map(([event, all]) => [event, all.map(titleOf)]));
}

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
    {
      ...POLICIES_OPTION,
      doc: "Two or more policies: what they leave different is a track of its own",
    },
    PROCESSOR,
    OUTPUT,
    FORCE,
  ],
  examples: [
    { line: "export run.vmtape --to perfetto -o run.json", doc: "For ui.perfetto.dev" },
    { line: "export run.vmtape --to perfetto -o run.json.gz", doc: "A fraction of the size" },
  ],
  async run(context, { options, operands: [path = ""] }) {
    const { output, force } = options;
    if (path === STANDARD && options.policies.length > 0) {
      throw new UsageError("With --policies a trace is read twice: name a file, not -");
    }
    const notes = options.policies.length === 0
      ? undefined
      : await findingsOf(path, await policiesOf(options.policies, 2, options.processor));
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
    const pieces = perfettoText(all(), title, notes);
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
