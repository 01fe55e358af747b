/**
 * Traces out of traces: put together, cut, filtered.
 *
 * @module
 */
import type { Image, TraceEvent } from "../../engine/event.ts";
import { offsets } from "../../engine/layout.ts";
import { CONTROL_FIELDS } from "../../engine/svm/vmcb_fields.ts";
import { eventWeight } from "../../engine/event_weight.ts";
import { copyEvent } from "../../engine/image/fields.ts";
import { TraceError } from "../errors.ts";
import { BLOCK } from "./format.ts";
import type { TraceStream } from "./reader.ts";
import type { EventRange, TraceFile } from "./trace_file.ts";
import type { TraceWriter } from "./writer.ts";

const EXIT_CODE = offsets(CONTROL_FIELDS).exit_code;

/** Kinds that what follows cannot be replayed without. */
const GROUND: ReadonlySet<string> = new Set(["session", "memory", "lost"]);

/** What is kept at most of a scenario that is not decided about, in bytes of its events. */
const MOST_TOGETHER = 32 << 20;

/**
 * Writes the events of several traces, one after the other. Blocks are copied as they are.
 *
 * @param traces The traces.
 * @param writer Where to; left open.
 * @throws {TraceError} Whatever reading or writing throws.
 * @example
 * ```ts
 * import { catTraces, readTrace, TraceWriter } from "@vmtape/vmtape/codecs";
 * const make = (...texts: string[]) => {
 *   const chunks: Uint8Array[] = [];
 *   const writer = new TraceWriter({ write: (chunk) => void chunks.push(chunk) });
 *   for (const text of texts) writer.write({ kind: "warn", vcpu: 0, text });
 *   writer.close();
 *   return chunks;
 * };
 * const chunks: Uint8Array[] = [];
 * const writer = new TraceWriter({ write: (chunk) => void chunks.push(chunk) });
 * await catTraces([await readTrace(make("a", "b")), await readTrace(make("c"))], writer);
 * writer.close();
 * const events = await Array.fromAsync((await readTrace(chunks)).events());
 * if (events.length !== 3) throw new Error("Not as asked");
 * ```
 */
export async function catTraces(
  traces: Iterable<TraceStream> | AsyncIterable<TraceStream>,
  writer: TraceWriter,
): Promise<void> {
  for await (const trace of traces) {
    for await (const raw of trace.raw()) {
      if (raw.head.type === BLOCK.events || raw.head.type === BLOCK.checkpoint) {
        writer.copy(raw, trace.header);
      }
    }
  }
}

/**
 * Writes the events of a range, behind the session and the memory that they stand on. Whole blocks
 * are copied as they are.
 *
 * @param trace The trace.
 * @param range Which events.
 * @param writer Where to; left open.
 * @throws {TraceError} Whatever reading or writing throws.
 * @example
 * ```ts
 * import { cutTrace, memorySource, readTrace, TraceFile, TraceWriter } from "@vmtape/vmtape/codecs";
 * const make = (...texts: string[]) => {
 *   const chunks: Uint8Array[] = [];
 *   const writer = new TraceWriter({ write: (chunk) => void chunks.push(chunk) });
 *   for (const text of texts) writer.write({ kind: "warn", vcpu: 0, text });
 *   writer.close();
 *   return chunks;
 * };
 * const chunks: Uint8Array[] = [];
 * const writer = new TraceWriter({ write: (chunk) => void chunks.push(chunk) });
 * const blob = new Blob(make("a", "b", "c") as BlobPart[]);
 * const trace = await TraceFile.open(memorySource(new Uint8Array(await blob.arrayBuffer())));
 * await cutTrace(trace, { from: 1, to: 2 }, writer);
 * writer.close();
 * const events = await Array.fromAsync((await readTrace(chunks)).events());
 * if (events.length !== 1) throw new Error("Not as asked");
 * ```
 */
export async function cutTrace(
  trace: TraceFile,
  range: EventRange,
  writer: TraceWriter,
): Promise<void> {
  const from = range.from ?? 0;
  const to = range.to ?? Infinity;
  if (from > 0) { for (const event of await groundOf(trace, from)) writer.write(event); }
  let next = from;
  for (const entry of trace.index) {
    const end = entry.firstEvent + entry.events;
    const events = entry.type === BLOCK.events;
    if (!events && entry.type !== BLOCK.checkpoint) continue;
    trace.requireEvents(next, Math.min(to, entry.firstEvent));
    next = Math.max(next, end);
    if (entry.firstEvent >= from && end <= to) {
      writer.copy(await trace.raw(entry), trace.header);
    } else if (events && entry.firstEvent < to && end > from) {
      const part = { from: Math.max(from, entry.firstEvent), to: Math.min(to, end) };
      for await (const block of trace.blocks(part)) {
        for (const event of block.shared()) writer.write(event);
      }
    }
  }
  trace.requireEvents(next, to);
  trace.requireIntact();
}

/** The last session of each vCPU before an event, and the memory set since. */
async function groundOf(trace: TraceFile, before: number): Promise<TraceEvent[]> {
  const sessions = new Map<number, TraceEvent[]>();
  const pages = new Map<string, TraceEvent>();
  for await (const block of trace.blocks({ to: before })) {
    for (const event of block.shared()) {
      if (event.kind === "session") {
        sessions.set(event.vcpu, [copyEvent(event)]);
        for (const key of pages.keys()) if (key.startsWith(`${event.vcpu} `)) pages.delete(key);
      } else if (event.kind === "memory") {
        pages.set(`${event.vcpu} ${event.gpa}`, copyEvent(event));
      }
    }
  }
  return [...[...sessions.values()].flat(), ...pages.values()];
}

/**
 * Writes the events of those scenarios that a test holds for. A scenario goes from one `case` event
 * to the next or, where there are none, from one `vmrun` to the next. Sessions, memory and marks of
 * lost events are always kept, so that the result replays; so are the scenarios that one which is
 * kept goes on from (`keepvm`), since what they left behind is part of how it begins. A scenario
 * that is too long to be held until it is decided about is kept.
 *
 * @param trace The trace.
 * @param writer Where to; left open.
 * @param keep The test; {@linkcode failedOnly} is one. When it is told that more of the scenario
 * follows, what it says has to hold for the rest, too; undefined when it cannot know.
 * @throws {TraceError} Whatever reading or writing throws; `range` when what one goes on from is gone.
 * @example
 * ```ts
 * import { filterTrace, readTrace, TraceWriter } from "@vmtape/vmtape/codecs";
 * const make = (...texts: string[]) => {
 *   const chunks: Uint8Array[] = [];
 *   const writer = new TraceWriter({ write: (chunk) => void chunks.push(chunk) });
 *   for (const text of texts) writer.write({ kind: "warn", vcpu: 0, text });
 *   writer.close();
 *   return chunks;
 * };
 * const chunks: Uint8Array[] = [];
 * const writer = new TraceWriter({ write: (chunk) => void chunks.push(chunk) });
 * await filterTrace(await readTrace(make("a", "b")), writer, (events) => events.length === 9);
 * writer.close();
 * const events = await Array.fromAsync((await readTrace(chunks)).events());
 * if (events.length !== 0) throw new Error("Not as asked");
 * ```
 */
export async function filterTrace(
  trace: TraceStream,
  writer: TraceWriter,
  keep: (events: readonly TraceEvent[], more: boolean) => boolean | undefined,
): Promise<void> {
  let together: TraceEvent[] = [];
  let weight = 0;
  // What later scenarios may go on from, and nothing that is kept has needed yet.
  let before: TraceEvent[] = [];
  let weightBefore = 0;
  let named = false;
  // Whether the rest of a scenario is kept that is too long to be held.
  let rest: boolean | undefined;
  // Whether what the scenario under way goes on from was too long to be held, and is gone.
  let gone = false;
  const write = (events: readonly TraceEvent[], kept: boolean) => {
    for (const event of events) if (kept || GROUND.has(event.kind)) writer.write(event);
  };
  const forget = () => {
    before = [];
    weightBefore = 0;
  };
  const decide = (kept: boolean) => {
    if (kept && gone) {
      throw new TraceError(
        "range",
        "A scenario that is to be kept goes on from one that is too long to be held; `vmtape cut` " +
          "takes both",
      );
    }
    if (kept) {
      write(before, true);
      write(together, true);
      forget();
    } else {
      for (const event of together) before.push(event);
      weightBefore += weight;
    }
    together = [];
    weight = 0;
  };
  const end = (next?: TraceEvent) => {
    if (rest === undefined) decide(keep(together, false) === true);
    gone = (gone || rest === false) && next !== undefined && goesOn(next);
    rest = undefined;
    // More than is held is kept rather than lost to what follows.
    if (weightBefore > MOST_TOGETHER) write(before, true);
    else if (next === undefined || !goesOn(next)) write(before, false);
    else return;
    forget();
  };
  for await (const block of trace.blocks()) {
    for (const event of block.shared()) {
      const begins = event.kind === "case" || event.kind === "session" ||
        (event.kind === "vmrun" && !named);
      if (begins) end(event);
      if (event.kind === "case") named = true;
      if (event.kind === "session") named = false;
      if (rest !== undefined) {
        if (rest || GROUND.has(event.kind)) writer.write(event);
        continue;
      }
      together.push(copyEvent(event));
      weight += eventWeight(event);
      if (weight <= MOST_TOGETHER) continue;
      rest = keep(together, true) ?? true;
      decide(rest);
      // What goes on from it would begin in the middle.
      if (!rest) write(before, false);
      forget();
    }
  }
  end();
}

/** Whether a scenario goes on from what the one before it left behind. */
function goesOn(event: TraceEvent): boolean {
  return event.kind === "case" && (event.spec ?? "").split(" ").includes("keepvm");
}

/**
 * Whether a VMRUN failed among events: a consistency check did, or vmcb12 was left with
 * VMEXIT_INVALID.
 *
 * @param events The events.
 * @param more Whether more of the scenario follows.
 * @returns Whether one did as far as is known; undefined when none did, and one may still.
 * @example
 * ```ts
 * import { failedOnly } from "@vmtape/vmtape/codecs";
 * if (!failedOnly([{ kind: "check", vcpu: 0, check: "efer-svme" }])) throw new Error("A check failed");
 * if (failedOnly([{ kind: "exit", vcpu: 0 }])) throw new Error("Nothing is known to have failed");
 * ```
 */
export function failedOnly(events: readonly TraceEvent[], more = false): boolean | undefined {
  const failed = events.some((event) =>
    event.kind === "check" ||
    (event.kind === "exit" && event.vmcb12 !== undefined && isInvalid(event.vmcb12))
  );
  return failed || (more ? undefined : false);
}

function isInvalid(vmcb12: Image): boolean {
  for (let i = EXIT_CODE; i < EXIT_CODE + 8; i++) {
    if (vmcb12.bytes[i] !== 0xff || (vmcb12.known && vmcb12.known[i] !== 0xff)) return false;
  }
  return true;
}
