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
import { isGzip, isTrace, peek } from "./inputs.ts";

/** Forms by their name on the command line; those of tracepoint logs with the importer's own name. */
export const FORMS = {
  lab: undefined,
  ftrace: "ftrace",
  "trace-cmd": "trace-cmd",
  perf: "perf",
  "trace-dat": "trace.dat",
  printk: "printk",
  bare: "bare",
} as const satisfies Readonly<Record<string, TracepointForm | undefined>>;

/** Name of a form. */
export type Form = keyof typeof FORMS;

/** A recording being imported. */
export interface ImportSource extends AsyncDisposable {
  /** The events in batches, in order. */
  readonly batches: AsyncIterable<readonly TraceEvent[]>;
  /** Counts of a tracepoint log, which grow meanwhile. */
  readonly stats?: TracepointStats;
  /** Where it comes from, for the trace's metadata. */
  readonly source: "lab" | "kvm";
}

const HEAD = 512;

/** The beginning of what is compressed, or of what is not. */
function plainHead(head: Uint8Array): Uint8Array {
  if (!isGzip(head)) return head;
  try {
    return gunzipSync(head, { finishFlush: constants.Z_SYNC_FLUSH });
  } catch {
    return head;
  }
}

function looksLikeLab(head: Uint8Array): boolean {
  return new TextDecoder().decode(plainHead(head)).trimStart().startsWith("{");
}

async function* one(events: AsyncIterable<TraceEvent>): AsyncGenerator<readonly TraceEvent[]> {
  for await (const event of events) yield [event];
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
  const { head, stream } = await peek(await openInput(path), HEAD);
  if (isTrace(head)) {
    await stream.cancel();
    throw new UsageError(`${shown(path)} is a vmtape trace already; use it as it is`);
  }
  if (form === "lab" || (form === undefined && looksLikeLab(head))) {
    return {
      batches: one(importLab(readLabRecords(stream, { file: shown(path) }))),
      source: "lab",
      [Symbol.asyncDispose]: async () => {},
    };
  }
  let log: TracepointSource & Partial<Disposable> = stream;
  if (path !== STANDARD) {
    await stream.cancel();
    log = tracepointFile(path);
  }
  const reading = importTracepoints(log, { spool: fileSpool });
  return {
    batches: checked(reading, reading.stats, path, form),
    stats: reading.stats,
    source: "kvm",
    [Symbol.asyncDispose]: () => Promise.resolve(log[Symbol.dispose]?.()),
  };
}

/** The same batches, once it is sure that they come from the form that was asked for. */
async function* checked(
  batches: AsyncIterable<readonly TraceEvent[]>,
  stats: TracepointStats,
  path: string,
  form: Form | undefined,
): AsyncGenerator<readonly TraceEvent[]> {
  for await (const batch of batches) {
    if (form !== undefined && stats.form !== undefined && stats.form !== FORMS[form]) {
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
  const from = lines > 0 ? ` of ${lines} lines` : "";
  const named = total(others) === 0 ? "" : ` (${byName(others)})`;
  const notes = [
    `${total(stats.events)} records${from} imported, of the form ${stats.form ?? "unknown"}` +
    (skipped > 0 ? `; ${skipped} others passed over${named}` : ""),
  ];
  if (continued > 0) notes.push(`${continued} lines were the rest of the record before them`);
  if (total(vmx) > 0) {
    notes.push(`${total(vmx)} records of VMX, which is Intel's, passed over: ${byName(vmx)}`);
  }
  if (total(stats.events) > 0 && stats.resolution === undefined) {
    notes.push("The log has no times: the order is known, and no latency");
  }
  if (stats.lostMarks > 0) {
    notes.push(
      `The source lost records at ${stats.lostMarks} places, ${stats.lost} that it counted`,
    );
  }
  if (stats.malformed > 0) notes.push(`${stats.malformed} records could not be understood`);
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
