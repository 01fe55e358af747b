/**
 * The recordings of other origin that can be imported, behind one face.
 *
 * @module
 */
import { constants, gunzipSync } from "node:zlib";
import {
  fileSpool,
  importTracepoints,
  tracepointFile,
  type TracepointForm,
  type TracepointSource,
  type TracepointStats,
} from "../codecs/mod.ts";
import { readLabRecords } from "../codecs/lab/record.ts";
import type { TraceEvent } from "../engine/event.ts";
import { importLab } from "../traces/scenarios/lab_import.ts";
import { UsageError } from "./errors.ts";
import { openInput, shown, STANDARD } from "./files.ts";
import { fingerprint } from "./fingerprint.ts";
import { isGzip, isTrace } from "./inputs.ts";
import type { HowWritten } from "./trace_output.ts";
import { plural } from "../engine/plural.ts";

/** Reading recordings of a form of its own. */
interface Importer {
  /** What is read, for the help. */
  readonly doc: string;
  /** Where such a recording comes from, for the trace's metadata. */
  readonly source: string;
  /** Whether a recording is one, by the beginning of what it holds, decompressed. */
  recognizes(head: string): boolean;
  /** Reads it, compressed or not; `file` is its name, for messages. */
  read(stream: ReadableStream<Uint8Array>, file: string): AsyncIterable<TraceEvent>;
}

/** The forms that are read by an importer of their own. */
const IMPORTERS = {
  lab: {
    doc: "what the lab prints (NDJSON records)",
    source: "lab",
    recognizes: (head) => head.trimStart().startsWith("{"),
    read: (stream, file) => importLab(readLabRecords(stream, { file })),
  },
} as const satisfies Readonly<Record<string, Importer>>;

/** Forms of tracepoint logs, which are told apart as they are read, with the importer's own names. */
const LOGS = {
  ftrace: "ftrace",
  "trace-cmd": "trace-cmd",
  perf: "perf",
  "trace-dat": "trace.dat",
  printk: "printk",
  bare: "bare",
} as const satisfies Readonly<Record<string, TracepointForm>>;

/** Name of a form. */
export type Form = keyof typeof IMPORTERS | keyof typeof LOGS;

/** The forms there are. */
export const FORMS: readonly string[] = [...Object.keys(IMPORTERS), ...Object.keys(LOGS)];

/** What of other forms than tracepoint logs is read, for the help. */
export const READ: readonly string[] = Object.values(IMPORTERS).map(({ doc }) => doc);

/** A recording being imported. */
export interface ImportSource extends AsyncDisposable {
  /** The events in batches, in order. */
  readonly batches: AsyncIterable<readonly TraceEvent[]>;
  /** Counts of a tracepoint log, which grow meanwhile. */
  readonly stats?: TracepointStats;
  /** Where it comes from, for the trace's metadata. */
  readonly source: string;
  /** How its trace is to be written. */
  readonly how: HowWritten;
}

const HEAD = 512;

/** How long what came of a live log waits to be seen, in milliseconds, twice at most. */
const SOON = 250;

/** The beginning of what is compressed, or of what is not. */
function plainHead(head: Uint8Array): Uint8Array {
  if (!isGzip(head)) return head;
  try {
    return gunzipSync(head, { finishFlush: constants.Z_SYNC_FLUSH });
  } catch {
    return head;
  }
}

function importerOf(form: Form | undefined, head: Uint8Array): Importer | undefined {
  if (form !== undefined) return Object.hasOwn(IMPORTERS, form) ? ROWS[form] : undefined;
  const text = new TextDecoder().decode(plainHead(head));
  return Object.values(ROWS).find((importer) => importer.recognizes(text));
}

const ROWS: Readonly<Record<string, Importer>> = IMPORTERS;

async function* one(events: AsyncIterable<TraceEvent>): AsyncGenerator<readonly TraceEvent[]> {
  for await (const event of events) yield [event];
}

/** As much of a stream as tells what it is: a live one may give one line, and nothing for hours. */
async function firstOf(
  stream: ReadableStream<Uint8Array>,
): Promise<{ head: Uint8Array; stream: ReadableStream<Uint8Array> }> {
  const reader = stream.getReader();
  const chunks: Uint8Array[] = [];
  let text = "";
  while (text.length < HEAD && !/\S[^]*\n/.test(text)) {
    const { value, done } = await reader.read();
    if (done) break;
    chunks.push(value);
    text += new TextDecoder("latin1").decode(value.subarray(0, HEAD));
  }
  const waiting = chunks.slice();
  return {
    head: Uint8Array.from(chunks.flatMap((chunk) => [...chunk.subarray(0, HEAD)])),
    stream: new ReadableStream({
      async pull(controller) {
        const chunk = waiting.shift() ?? (await reader.read()).value;
        if (chunk === undefined) controller.close();
        else controller.enqueue(chunk);
      },
      cancel: (reason) => reader.cancel(reason),
    }, { highWaterMark: 0 }),
  };
}

/**
 * How the trace of an input is written. One that comes from a file is the same
 * each time: no clock cuts its blocks, and its identity is of the file. One
 * that comes as it happens is to be seen soon.
 */
function howWritten(path: string): { live: boolean; how: HowWritten } {
  const id = fingerprint(path);
  return id === undefined
    ? { live: true, how: { flushInterval: SOON } }
    : { live: false, how: { id, flushInterval: 0 } };
}

/**
 * Opens a recording.
 *
 * @param path The file, or `-`.
 * @param form What it is; found out by its first bytes when left out.
 * @returns Its events.
 * @throws {FileError} When it cannot be read.
 */
export async function openImport(path: string, form?: Form): Promise<ImportSource> {
  const { live, how } = howWritten(path);
  const { head, stream } = await firstOf(await openInput(path));
  if (isTrace(head)) {
    await stream.cancel();
    throw new UsageError(`${shown(path)} is a vmtape trace already; use it as it is`);
  }
  const importer = importerOf(form, head);
  if (importer !== undefined) {
    return {
      batches: one(importer.read(stream, shown(path))),
      source: importer.source,
      how,
      [Symbol.asyncDispose]: async () => {},
    };
  }
  let log: TracepointSource & Partial<Disposable> = stream;
  // What is read once only, such as trace_pipe, has lost its beginning when it is opened again.
  if (path !== STANDARD && !live) {
    await stream.cancel();
    log = tracepointFile(path);
  }
  const reading = importTracepoints(log, { spool: fileSpool, ...(live ? { idle: SOON } : {}) });
  return {
    batches: checked(reading, reading.stats, path, form as keyof typeof LOGS | undefined),
    stats: reading.stats,
    source: "kvm",
    how,
    [Symbol.asyncDispose]: () => Promise.resolve(log[Symbol.dispose]?.()),
  };
}

/** The same batches, once it is sure that they come from the form that was asked for. */
async function* checked(
  batches: AsyncIterable<readonly TraceEvent[]>,
  stats: TracepointStats,
  path: string,
  form: keyof typeof LOGS | undefined,
): AsyncGenerator<readonly TraceEvent[]> {
  for await (const batch of batches) {
    if (form !== undefined && stats.form !== undefined && stats.form !== LOGS[form]) {
      throw new UsageError(
        `${shown(path)} is of the form ${stats.form}, not ${form}; leave out --from`,
      );
    }
    yield batch;
  }
}

/** Counts by name, the most first. */
function byName(counts: Readonly<Record<string, number>>): string {
  const rows = Object.entries(counts).sort((a, b) => b[1] - a[1]);
  const shown = rows.slice(0, NAMED).map(([name, count]) => `${name} ${count}`).join(", ");
  return rows.length > NAMED ? `${shown}, …` : shown;
}

/** Most names of tracepoints that are listed. */
const NAMED = 6;

function total(counts: Readonly<Record<string, number>>): number {
  return Object.values(counts).reduce((a, b) => a + b, 0);
}

/** What was passed over, in lines for people. */
export function importNotes(stats: TracepointStats): string[] {
  const { lines, skipped, others, vmx, continued } = stats;
  const from = lines > 0 ? ` of ${plural(lines, "line")}` : "";
  const named = total(others) === 0 ? "" : ` (${byName(others)})`;
  const notes = [
    `${plural(total(stats.events), "record")}${from} imported, of the form ${
      stats.form ?? "unknown"
    }` +
    (skipped > 0 ? `; ${plural(skipped, "other")} passed over${named}` : ""),
  ];
  if (continued > 0) {
    notes.push(
      plural(
        continued,
        "line was the rest of the record before it",
        "lines were the rest of the record before them",
      ),
    );
  }
  if (total(vmx) > 0) {
    notes.push(
      `${plural(total(vmx), "record")} of VMX, which is Intel's, passed over: ${byName(vmx)}`,
    );
  }
  if (total(stats.events) > 0 && stats.resolution === undefined) {
    notes.push("The log has no times: the order is known, and no latency");
  }
  if (stats.lostMarks > 0) {
    notes.push(
      `The source lost records at ${
        plural(stats.lostMarks, "place")
      }, ${stats.lost} that it counted`,
    );
  }
  if (stats.malformed > 0) {
    notes.push(`${plural(stats.malformed, "record")} could not be understood`);
  }
  for (const { line, offset, what } of stats.issues) {
    const where = line !== undefined
      ? `line ${line}: `
      : offset !== undefined
      ? `byte ${offset}: `
      : "";
    notes.push(`  ${where}${what}`);
  }
  return notes;
}
