/**
 * The subcommand `dump`.
 *
 * @module
 */
import { type EventBlock, type EventRange, readTrace } from "../../codecs/mod.ts";
import { formatEvent } from "../../codecs/text.ts";
import type { TraceEvent } from "../../engine/event.ts";
import { eventLine } from "../../engine/event_line.ts";
import { eventField } from "../../engine/query/mod.ts";
import { plural } from "../../engine/plural.ts";
import { defineCommand, EXIT, type Values } from "../command.ts";
import type { Context } from "../context.ts";
import { POLICY } from "../policy_options.ts";
import { STEP_LIMIT } from "../step_limit.ts";
import { UsageError } from "../errors.ts";
import { type Given, refuseBoth } from "../exclusive.ts";
import { EVENT_FILTER, EventFilter } from "../event_filter.ts";
import { decodedEvent, decodedLines, eventJson } from "../event_text.ts";
import { STANDARD } from "../files.ts";
import { openChunks, openTraceFile } from "../inputs.ts";
import { printState, stateAt } from "../machine_state.ts";
import { loadPolicy } from "../policy_input.ts";
import { RANGE, rangeOf } from "../range.ts";

const OPTIONS = [
  ...RANGE,
  ...EVENT_FILTER,
  { name: "fields", kind: "flag", doc: "Under each event its images, field by field" },
  {
    name: "columns",
    kind: "list",
    value: "A,B…",
    doc: "Print these fields of each event, separated by tabs, such as event,time,exit_code",
  },
  { name: "raw", kind: "flag", doc: "Every field as it is stored, images as size and CRC-32" },
  { name: "at", kind: "number", value: "EVENT", doc: "Print the machine's state after an event" },
  { ...POLICY, doc: "With --at, the policy that leads there (the recorded one)" },
  STEP_LIMIT,
  { name: "follow", kind: "flag", doc: "Wait for more at the end, as of a recorder at work" },
] as const;

type Options = Values<typeof OPTIONS>;

/** Prints events. */
class Printer {
  readonly #context: Context;
  readonly #filter: EventFilter;
  readonly #options: Options;
  readonly #columns: readonly ((event: TraceEvent, number: number) => string)[];

  constructor(context: Context, options: Options) {
    this.#context = context;
    this.#filter = new EventFilter(options);
    this.#options = options;
    this.#columns = options.columns.map((name) => {
      const text = eventField(name);
      if (typeof text === "string") throw new UsageError(`Option --columns: ${text}`);
      return text;
    });
  }

  event(number: number, event: TraceEvent): void {
    if (!this.#filter.wants(event, number)) return;
    const { out, json } = this.#context;
    const { raw, fields } = this.#options;
    if (this.#columns.length > 0) {
      const cells = this.#columns.map((text) => text(event, number));
      if (json) {
        out.json(Object.fromEntries(this.#options.columns.map((name, i) => [name, cells[i]])));
      } else out.cells(cells);
    } else if (json) out.json(raw ? eventJson(number, event) : decodedEvent(number, event));
    else {
      out.line(
        raw
          ? formatEvent(number, event)
          : `${number} ${event.time ?? "-"} ${event.vcpu} ${event.kind} ${eventLine(event)}`
            .trimEnd(),
      );
      if (fields) { for (const line of decodedLines(event)) out.line(line); }
    }
  }

  block(block: EventBlock, { from = 0, to = Infinity }: EventRange): void {
    for (const [number, event] of block.entries()) {
      if (number >= from && number < to) this.event(number, event);
    }
  }

  done(): void {
    const { unsettled } = this.#filter;
    if (unsettled === 0) return;
    this.#context.note(
      `Of ${plural(unsettled, "more event")} too little was recorded to tell`,
    );
  }
}

/** All of a stream is read, since there is no going back and forth in it. */
async function dumpStream(context: Context, path: string, options: Options): Promise<void> {
  const { follow } = options;
  const range = rangeOf(options);
  const printer = new Printer(context, options);
  const { signal } = follow ? context : {};
  const chunks = await openChunks(path, { follow, ...(signal ? { signal } : {}) });
  const trace = await readTrace(chunks, { unfinished: follow });
  for await (const block of trace.blocks()) {
    if (block.head.firstEvent >= (range.to ?? Infinity)) break;
    printer.block(block, range);
    if (follow) context.out.flush();
  }
  printer.done();
}

async function dumpFile(context: Context, path: string, options: Options): Promise<void> {
  const printer = new Printer(context, options);
  using file = await openTraceFile(path);
  const { trace } = file;
  const range = rangeOf(options, trace);
  for await (const block of trace.blocks(range)) printer.block(block, range);
  trace.requireIntact();
  printer.done();
}

async function dumpState(context: Context, path: string, event: number, policy?: string) {
  using file = await openTraceFile(path);
  const named = policy === undefined ? undefined : await loadPolicy(policy);
  printState(context, event, await stateAt(file.trace, event, named));
}

/** What cannot be asked for together. */
function refuse(options: Options): void {
  const { follow, to, at, raw, columns, fields, policy } = options;
  const fromTo: readonly Given[] = [["--to", to !== undefined], [
    "--from",
    options.from !== undefined,
  ]];
  const form: readonly Given[] = [["--columns", columns.length > 0], ["--fields", fields]];
  refuseBoth(["--follow", follow], ["--to", to !== undefined], ["--at", at !== undefined]);
  refuseBoth(["--raw", raw], ...form);
  refuseBoth(["--fields", fields], ["--columns", columns.length > 0]);
  // The state after an event is one thing, in one form.
  const chosen = EVENT_FILTER.map(({ name }): Given => {
    const value = options[name];
    return [`--${name}`, value !== undefined && (typeof value !== "object" || value.length > 0)];
  });
  refuseBoth(["--at", at !== undefined], ["--raw", raw], ...form, ...fromTo, ...chosen);
  if (policy !== undefined && at === undefined) {
    throw new UsageError("Option --policy is for --at, and means nothing without it");
  }
}

/** Prints the events of a trace. */
export const dump = defineCommand({
  name: "dump",
  summary: "Print the events of a trace, one a line",
  details:
    "A line holds number, time in nanoseconds (or -), vCPU, kind, and what happened in words. " +
    "--fields shows what is in VMCBs, pages and registers, --raw every field as it is stored, --json " +
    "all of it by name. Conditions (--where) take ==, !=, <, <=, >, >=, & (any of these bits), &&, " +
    "||, ! and parentheses, names of exit codes and bits; an event of which too little was recorded " +
    "to tell is not printed, but counted.",
  operands: { usage: "TRACE", min: 1, max: 1 },
  options: OPTIONS,
  examples: [
    { line: "dump run.vmtape --from 1200 --to 1210", doc: "Ten events" },
    { line: "dump night.vmtape --exit NPF --vcpu 1", doc: "Nested page faults of one vCPU" },
    {
      line: "dump run.vmtape -w 'control.exit_code==NPF && save.rip>=0x8000' --fields",
      doc: "VMCBs that meet a condition, decoded",
    },
    {
      line: "dump run.vmtape --kind l2exit --columns event,time,exit_code,rip",
      doc: "A table for another tool",
    },
    { line: "dump run.vmtape --at 20", doc: "The whole state of the vCPU after an event" },
    { line: "dump run.vmtape --follow", doc: "What a recorder is writing right now" },
  ],
  async run(context, { options, operands: [path = ""] }) {
    refuse(options);
    if (options.at !== undefined) {
      await dumpState(context, path, options.at, options.policy);
      return EXIT.ok;
    }
    // A trace without an end is told from a whole one by reading all of it.
    const whole = options.from === undefined && options.to === undefined;
    if (path === STANDARD || options.follow || whole) await dumpStream(context, path, options);
    else await dumpFile(context, path, options);
    return EXIT.ok;
  },
});
