/**
 * The subcommand `info`.
 *
 * @module
 */
import type { TraceHeader, TraceStream } from "../../codecs/mod.ts";
import type { TraceEvent } from "../../engine/event.ts";
import { defineCommand, EXIT } from "../command.ts";
import type { Context } from "../context.ts";
import { STANDARD } from "../files.ts";
import { columns } from "../help.ts";
import { openTrace, openTraceFile } from "../inputs.ts";
import { toJson } from "../output.ts";
import { plural } from "../../engine/plural.ts";

/** Different checks, vCPUs and sessions that are listed at most, and characters of them. */
const MOST = 1000, MOST_LETTERS = 400, MOST_SESSION_LETTERS = 1 << 20, MOST_VCPUS = 1 << 20;

/** What is counted together when there are too many to be listed. */
const OTHERS = "others";

/** Counts over the events of a trace. */
class Counts {
  readonly kinds = new Map<string, number>();
  readonly checks = new Map<string, number>();
  readonly vcpus = new Set<number>();
  readonly sessions: Readonly<Record<string, unknown>>[] = [];
  readonly #sessions = new Set<string>();
  #letters = 0;
  #first = Infinity;
  #last = -Infinity;
  #events = 0;

  get events(): number {
    return this.#events;
  }

  /** Nanoseconds between the first and the last event that have a time. */
  get duration(): number | undefined {
    return this.#last >= this.#first ? this.#last - this.#first : undefined;
  }

  add(event: TraceEvent): void {
    this.#events++;
    count(this.kinds, event.kind);
    if (this.vcpus.size < MOST_VCPUS) this.vcpus.add(event.vcpu);
    const { time } = event;
    if (time !== undefined) {
      if (time < this.#first) this.#first = time;
      if (time > this.#last) this.#last = time;
    }
    if (event.kind === "check") count(this.checks, event.check ?? event.text ?? "unknown");
    else if (event.kind === "session") {
      this.#session(event.meta ?? {});
    }
  }

  #session(meta: Readonly<Record<string, unknown>>): void {
    const text = toJson(meta);
    if (this.#sessions.has(text)) return;
    this.#letters += text.length;
    if (this.sessions.length === MOST || this.#letters > MOST_SESSION_LETTERS) return;
    this.#sessions.add(text);
    this.sessions.push({ ...meta });
  }
}

function count(map: Map<string, number>, name: string): void {
  const key = name.length > MOST_LETTERS ? `${name.slice(0, MOST_LETTERS)}…` : name;
  const known = map.has(key) || map.size < MOST ? key : OTHERS;
  map.set(known, (map.get(known) ?? 0) + 1);
}

function sorted(map: ReadonlyMap<string, number>): [string, number][] {
  return [...map].sort(([a, x], [b, y]) => y - x || (a < b ? -1 : 1));
}

async function countEvents(trace: TraceStream, context: Context): Promise<Counts> {
  const counts = new Counts();
  using progress = context.progress("events");
  for await (const block of trace.blocks()) {
    for (const event of block.shared()) counts.add(event);
    progress.update(counts.events);
  }
  return counts;
}

/** What the index says, which needs no event to be read. */
interface Outline {
  readonly size: number;
  readonly blocks: number;
  readonly finished: boolean;
}

async function outline(path: string): Promise<Outline | undefined> {
  if (path === STANDARD) return undefined;
  using file = await openTraceFile(path);
  const { index, finished } = file.trace;
  return { size: file.source.size, blocks: index.length, finished };
}

function describe(header: TraceHeader) {
  return {
    format: `${header.major}.${header.minor}`,
    id: header.id.toHex(),
    meta: header.meta,
  };
}

function print(
  context: Context,
  path: string,
  header: TraceHeader,
  outline: Outline | undefined,
  counts: Counts,
): void {
  const rows: [string, string][] = [["format", `${header.major}.${header.minor}`]];
  for (const [key, value] of Object.entries(header.meta)) {
    rows.push([key, typeof value === "string" ? value : toJson(value)]);
  }
  if (outline) {
    rows.push(["size", plural(outline.size, "byte")], ["blocks", String(outline.blocks)]);
    if (!outline.finished) rows.push(["end", "cut off, or still being written"]);
  }
  rows.push(["events", String(counts.events)], ["vCPUs", String(counts.vcpus.size)]);
  if (counts.duration !== undefined) rows.push(["duration", `${counts.duration} ns`]);
  for (const session of counts.sessions) {
    const said = Object.entries(session).filter(([, value]) => typeof value !== "object");
    rows.push(["session", said.map(([key, value]) => `${key} ${value}`).join(", ")]);
  }
  context.out.line(path);
  context.out.text(columns(rows) + "\n");
  section(context, "Events by kind", counts.kinds);
  section(context, "Failed checks", counts.checks);
}

function section(context: Context, title: string, map: ReadonlyMap<string, number>): void {
  if (map.size === 0) return;
  context.out.line();
  context.out.line(title);
  const width = Math.max(...[...map.values()].map((n) => String(n).length));
  for (const [key, n] of sorted(map)) context.out.line(`  ${String(n).padStart(width)}  ${key}`);
}

/** Says what a trace holds. */
export const info = defineCommand({
  name: "info",
  summary: "Say what a trace holds",
  operands: { usage: "TRACE", min: 1, max: 1 },
  options: [],
  examples: [
    { line: "info run.vmtape", doc: "Origin, sessions, events by kind, failed checks" },
    { line: "info run.vmtape --json", doc: "The same for machines" },
  ],
  async run(context, { operands: [path = ""] }) {
    const trace = await openTrace(path);
    const shape = await outline(path);
    const counts = await countEvents(trace, context);
    if (context.json) {
      context.out.json({
        path,
        ...describe(trace.header),
        ...shape,
        events: counts.events,
        vcpus: counts.vcpus.size,
        duration: counts.duration,
        sessions: counts.sessions,
        kinds: Object.fromEntries(sorted(counts.kinds)),
        checks: Object.fromEntries(sorted(counts.checks)),
      });
    } else print(context, path, trace.header, shape, counts);
    return EXIT.ok;
  },
});
