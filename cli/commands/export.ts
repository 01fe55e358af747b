/**
 * The subcommand `export`.
 *
 * @module
 */
import { type PerfettoNotes, perfettoPackets, perfettoText } from "../../codecs/mod.ts";
import type { TraceEvent } from "../../engine/event.ts";
import { Breather } from "../breather.ts";
import { defineCommand, EXIT, FORCE, OUTPUT } from "../command.ts";
import { Differ, Findings } from "../../engine/diff/mod.ts";
import type { Policy } from "../../engine/policy.ts";
import { POLICIES_OPTION, policiesOf, PROCESSOR } from "../policy_options.ts";
import { STEP_LIMIT } from "../step_limit.ts";
import { UsageError } from "../errors.ts";
import { shown, STANDARD } from "../files.ts";
import { declaredEvents, eventTotal, openTrace } from "../inputs.ts";
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

/** Events that Perfetto's window can still show: it has 4 GiB of memory, some 200 bytes for each. */
const MOST_EVENTS = 10_000_000;

function tooMany(path: string, events: string): UsageError {
  return new UsageError(
    `${shown(path)} holds ${events} events, and Perfetto shows no more than ` +
      `${MOST_EVENTS.toLocaleString("en")}: take a part of it, see vmtape cut`,
  );
}

/** Bytes that are handed on at once. */
const CHUNK = 1 << 16;

/** Text as bytes, many pieces at once. */
async function* encoded(pieces: AsyncIterable<string>): AsyncGenerator<Uint8Array<ArrayBuffer>> {
  const encoder = new TextEncoder();
  let text = "";
  for await (const piece of pieces) {
    text += piece;
    if (text.length < CHUNK) continue;
    yield encoder.encode(text);
    text = "";
  }
  yield encoder.encode(text);
}

/** Writes a trace for another tool. */
export const exportCommand = defineCommand({
  name: "export",
  summary: "Write a trace in another tool's format, such as Perfetto's",
  details:
    "perfetto is Perfetto's own format, for ui.perfetto.dev and trace_processor; perfetto-json, " +
    "several times as large, the Trace Event Format that chrome://tracing opens, too. Each " +
    "vCPU is a track with VMRUN, L2 and #VMEXIT as slices; failed checks, and exits of L2 that L0 " +
    "handles, are instants. A recording without times gets a microsecond for each event. A file " +
    "whose name ends with .gz is compressed, which ui.perfetto.dev opens as it is.",
  operands: { usage: "TRACE", min: 1, max: 1 },
  options: [
    {
      name: "to",
      kind: "text",
      value: "FORMAT",
      choices: ["perfetto", "perfetto-json"],
      required: true,
      doc: "Format to write",
    },
    {
      ...POLICIES_OPTION,
      doc: "Two or more policies: what they leave different is a track of its own",
    },
    PROCESSOR,
    STEP_LIMIT,
    OUTPUT,
    FORCE,
  ],
  examples: [
    { line: "export run.vmtape --to perfetto -o run.pftrace", doc: "For ui.perfetto.dev" },
    { line: "export run.vmtape --to perfetto -o run.pftrace.gz", doc: "A fraction of the size" },
    { line: "export run.vmtape --to perfetto-json -o run.json", doc: "For other tools" },
  ],
  async run(context, { options, operands: [path = ""] }) {
    const { output, force } = options;
    if (path === STANDARD && options.policies.length > 0) {
      throw new UsageError("With --policies a trace is read twice: name a file, not -");
    }
    const declared = await declaredEvents(path);
    if (declared > MOST_EVENTS) throw tooMany(path, declared.toLocaleString("en"));
    const notes = options.policies.length === 0
      ? undefined
      : await findingsOf(path, await policiesOf(options.policies, 2, options.processor));
    const trace = await openTrace(path);
    using file = wholeFile(context, { output, force });
    using progress = context.progress("events", await eventTotal(context, path));
    const { signal } = context;
    const breather = new Breather();
    let events = 0;
    const all = async function* (): AsyncGenerator<TraceEvent> {
      for await (const block of trace.blocks()) {
        for (const event of block.shared()) {
          yield event;
          events++;
        }
        if (events > MOST_EVENTS) throw tooMany(path, "more");
        progress.update(events);
        await breather.rest();
        signal.throwIfAborted();
      }
    };
    const title = path === STANDARD ? "trace" : path.replace(/^.*[/\\]/, "");
    const pieces = options.to === "perfetto"
      ? perfettoPackets(all(), notes)
      : encoded(perfettoText(all(), title, notes));
    const chunks = output.endsWith(".gz")
      ? ReadableStream.from(pieces).pipeThrough(new CompressionStream("gzip"))
      : pieces;
    for await (const chunk of chunks) file.bytes(chunk);
    file.done();
    progress.done();
    if (context.json && output !== STANDARD) context.out.json({ output, events });
    else context.note(`${events} events, in ${output}`);
    return EXIT.ok;
  },
});
