import { type EventBlock, type EventRange, readTrace } from "../../codecs/mod.ts";
import { formatEvent } from "../../codecs/text.ts";
import { EVENTS, type TraceEvent } from "../../engine/event.ts";
import { defineCommand, EXIT, type Values } from "../command.ts";
import type { Context } from "../context.ts";
import { UsageError } from "../errors.ts";
import { decodedLines, eventJson } from "../event_text.ts";
import { STANDARD } from "../files.ts";
import { openChunks, openTraceFile } from "../inputs.ts";
import { RANGE, rangeOf } from "../range.ts";

const KINDS = EVENTS.map((row) => row.kind);

const OPTIONS = [
  ...RANGE,
  { name: "kind", kind: "list", choices: KINDS, doc: "Only events of these kinds" },
  { name: "fields", kind: "flag", doc: "Under each event its images, field by field" },
  { name: "follow", kind: "flag", doc: "Wait for more at the end, as of a recorder at work" },
] as const;

type Options = Values<typeof OPTIONS>;

/** Prints events. */
class Printer {
  readonly #context: Context;
  readonly #kinds: ReadonlySet<string>;
  readonly #fields: boolean;

  constructor(context: Context, options: Options) {
    this.#context = context;
    this.#kinds = new Set(options.kind);
    this.#fields = options.fields;
  }

  event(number: number, event: TraceEvent): void {
    if (this.#kinds.size > 0 && !this.#kinds.has(event.kind)) return;
    const { out, json } = this.#context;
    if (json) out.json(eventJson(number, event));
    else {
      out.line(formatEvent(number, event));
      if (this.#fields) { for (const line of decodedLines(event)) out.line(line); }
    }
  }

  block(block: EventBlock, { from = 0, to = Infinity }: EventRange): void {
    for (const [number, event] of block.entries()) {
      if (number >= from && number < to) this.event(number, event);
    }
  }
}

/** All of a stream is read, since there is no going back and forth in it. */
async function dumpStream(context: Context, path: string, options: Options): Promise<void> {
  const { follow } = options;
  const range = rangeOf(options);
  const { signal } = follow ? context : {};
  const chunks = await openChunks(path, { follow, ...(signal ? { signal } : {}) });
  const trace = await readTrace(chunks, { unfinished: follow });
  const printer = new Printer(context, options);
  for await (const block of trace.blocks()) {
    if (block.head.firstEvent >= (range.to ?? Infinity)) return;
    printer.block(block, range);
    if (follow) context.out.flush();
  }
}

async function dumpFile(context: Context, path: string, options: Options): Promise<void> {
  using file = await openTraceFile(path);
  const { trace } = file;
  const range = rangeOf(options, trace);
  const printer = new Printer(context, options);
  for await (const block of trace.blocks(range)) printer.block(block, range);
  trace.requireIntact();
}

/** Prints the events of a trace. */
export const dump = defineCommand({
  name: "dump",
  summary: "Print the events of a trace, one a line",
  details:
    "A line holds number, time in nanoseconds (or -), vCPU, kind, and the fields that the source " +
    "could see. An image (a VMCB, a page, registers) is shown as its size and CRC-32; --fields " +
    "shows what is in it, --json its words that are not zero.",
  operands: { usage: "TRACE", min: 1, max: 1 },
  options: OPTIONS,
  examples: [
    { line: "dump run.vmtape --from 1200 --to 1210", doc: "Ten events" },
    { line: "dump run.vmtape --kind vmrun,exit --fields", doc: "VMCBs before and after, decoded" },
    { line: "dump run.vmtape --follow", doc: "What a recorder is writing right now" },
  ],
  async run(context, { options, operands: [path = ""] }) {
    if (options.follow && options.to !== undefined) {
      throw new UsageError("Options --follow and --to exclude each other");
    }
    // A trace without an end is told from a whole one by reading all of it.
    const whole = options.from === undefined && options.to === undefined;
    if (path === STANDARD || options.follow || whole) await dumpStream(context, path, options);
    else await dumpFile(context, path, options);
    return EXIT.ok;
  },
});
