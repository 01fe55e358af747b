/**
 * Reads tracepoint logs that are text: tracefs `trace` and `trace_pipe`,
 * `trace-cmd report`, `perf script`. One reader for all, since a line's parts
 * say themselves what they are.
 *
 * Lines that do not name a tracepoint of KVM are passed over by a search of
 * the machine's own, without being looked at.
 *
 * @module
 */
import { Buffer } from "node:buffer";
import { LineHead, readHead } from "./ftrace_head.ts";
import { readValues } from "./ftrace_values.ts";
import { KvmRecord, type RecordSink } from "./kvm_record.ts";
import { TRACEPOINT_BY_NAME } from "./kvm_tracepoints.ts";
import { TracepointError } from "./error.ts";
import type { TracepointStats } from "./stats.ts";
import { noteIssue } from "./stats.ts";

/** Lines longer than this are passed over: no record is a tenth of it. */
const LONGEST_LINE = 64 * 1024;

/** This much text without one line of a log, and the input is none. */
const ENOUGH_TO_TELL = 1024 * 1024;

const NEWLINE = 0x0a, SPACE = 0x20, COLON = 0x3a;

/** A record's line in any of the forms. */
const ANY_RECORD =
  /^\s*\S.*[-\s/]\d+\s+(\(\s*[\d-]+\)\s+)?(\[\d{3,}\]\s+(\S+\s+)?)?\d+(\.\d+)?:\s+(\d+\s+)?[\w:.-]+:/;
const HEADER = /^(# tracer: |cpus=\d+$|version = \d+$|# entries-in-buffer|# ={8})/;

/** What happened to a line that names a tracepoint of KVM. */
const enum Outcome {
  Foreign,
  Read,
}

/** Reads text in pieces of any size; what it finds goes to a {@linkcode RecordSink}. */
export class FtraceText {
  readonly #stats: TracepointStats;
  readonly #sink: RecordSink;
  readonly #record = new KvmRecord();
  readonly #head = new LineHead();
  readonly #names = new Map<string, { name: string; known: boolean; count: number }>();
  readonly #tasks = new Map<number, { bytes: Uint8Array; name: string }>();
  readonly #every: boolean;
  #rest = new Uint8Array(0);
  #consumed = 0;
  #records = 0;
  #recognized = false;
  #overlong = false;
  #bytes: Buffer = Buffer.alloc(0);

  /**
   * @param sink Receives the records.
   * @param stats Counts them.
   * @param every Whether tracepoints that KVM's table does not have are wanted too.
   */
  constructor(sink: RecordSink, stats: TracepointStats, every = false) {
    this.#sink = sink;
    this.#stats = stats;
    this.#every = every;
    this.#record.source = {
      text: ({ start, end }) => this.#bytes.toString("utf8", start, end),
      fields: ({ tracepoint }) => tracepoint === undefined ? {} : undefined,
    };
  }

  /**
   * Takes the next piece; an unfinished last line waits for the rest of it.
   *
   * @throws {TracepointError} `not-a-trace` when enough of it was seen to tell.
   */
  push(piece: Uint8Array): void {
    let data = piece;
    if (this.#rest.length > 0) {
      data = new Uint8Array(this.#rest.length + piece.length);
      data.set(this.#rest);
      data.set(piece, this.#rest.length);
    }
    const end = data.lastIndexOf(NEWLINE) + 1;
    this.#lines(data, end);
    this.#consumed += end;
    this.#rest = data.slice(end);
    if (this.#rest.length > LONGEST_LINE) {
      if (!this.#overlong) {
        noteIssue(this.#stats, { line: this.#stats.lines + 1, what: "A line of over 64 KiB" });
      }
      this.#overlong = true;
      this.#consumed += this.#rest.length;
      this.#rest = new Uint8Array(0);
    }
    if (!this.#recognized && this.#consumed >= ENOUGH_TO_TELL) this.#refuse();
    this.#countSkipped();
  }

  /**
   * Says that there is no more.
   *
   * @throws {TracepointError} `not-a-trace` when none of it was of a log.
   */
  end(): void {
    if (this.#rest.length > 0) {
      const line = this.#stats.lines + 1;
      if (!this.#recognized) {
        this.#lines(new Uint8Array([...this.#rest, NEWLINE]), this.#rest.length + 1);
      } else {
        this.#stats.lines++;
        if (Buffer.from(this.#rest).includes("kvm_")) {
          this.#stats.malformed++;
          noteIssue(this.#stats, { line, what: "The last line is cut off: no line end" });
        }
      }
      this.#rest = new Uint8Array(0);
    }
    if (!this.#recognized) this.#refuse();
    this.#countSkipped();
    this.#countOthers();
  }

  #refuse(): never {
    throw new TracepointError(
      "not-a-trace",
      this.#stats.lines === 0
        ? "The input is empty: expected the text of tracefs trace or trace_pipe, of " +
          "`trace-cmd report` or `perf script`, or a trace.dat file"
        : `Not a tracepoint log: none of ${this.#stats.lines} lines has a thread, a CPU in ` +
          "brackets, a time and a tracepoint's name; expected the text of tracefs trace or " +
          "trace_pipe, of `trace-cmd report` or `perf script`, or a trace.dat file",
      { line: 1 },
    );
  }

  #lines(data: Uint8Array, end: number): void {
    if (end === 0) return;
    const bytes = Buffer.from(data.buffer, data.byteOffset, end);
    this.#bytes = bytes;
    const stats = this.#stats;
    let at = 0;
    if (this.#overlong) {
      at = bytes.indexOf(NEWLINE) + 1;
      this.#overlong = false;
      stats.lines++;
    }
    while (!this.#recognized && at < end) at = this.#recognize(bytes, at);
    // One-byte text: a search in it is several times as fast as one in bytes.
    const text = bytes.toString("latin1", 0, end);
    let event = find(text, this.#every ? ": " : "kvm_", at);
    let lost = find(text, "EVENTS", at);
    let perfLost = find(text, "PERF_RECORD_LOST", at);
    let written = find(text, "entries-written: ", at);
    while (at < end) {
      const next = Math.min(event, lost, perfLost, written);
      const stop = Math.min(next, end);
      let lineStart = at;
      for (let i = at; i < stop; i++) {
        if (bytes[i] === NEWLINE) {
          stats.lines++;
          lineStart = i + 1;
        }
      }
      if (next >= end) break;
      const lineEnd = data.indexOf(NEWLINE, next);
      stats.lines++;
      if (next === event) this.#eventLine(bytes, text, lineStart, event, lineEnd);
      else this.#mark(text.slice(lineStart, lineEnd));
      at = lineEnd + 1;
      if (event < at) event = find(text, this.#every ? ": " : "kvm_", at);
      if (lost < at) lost = find(text, "EVENTS", at);
      if (perfLost < at) perfLost = find(text, "PERF_RECORD_LOST", at);
      if (written < at) written = find(text, "entries-written: ", at);
    }
  }

  /** Looks at one line before the form is known; returns where to go on. */
  #recognize(bytes: Buffer, at: number): number {
    const lineEnd = bytes.indexOf(NEWLINE, at);
    const line = bytes.toString("latin1", at, Math.min(lineEnd, at + 4096)).trimEnd();
    if (line.startsWith("cpus=")) this.#stats.form = "trace-cmd";
    else if (line.startsWith("# tracer")) this.#stats.form = "ftrace";
    if (HEADER.test(line) || ANY_RECORD.test(line) || lostMark(line) !== undefined) {
      this.#recognized = true;
      return at;
    }
    this.#stats.lines++;
    return lineEnd + 1;
  }

  #eventLine(
    bytes: Buffer,
    text: string,
    lineStart: number,
    found: number,
    lineEnd: number,
  ): void {
    for (
      let name = found;
      name < lineEnd;
      name = find(text, this.#every ? ": " : "kvm_", name + 1)
    ) {
      const start = this.#every ? skipBlanks(bytes, name + 2, lineEnd) : name;
      if (this.#eventAt(bytes, text, lineStart, start, lineEnd) === Outcome.Read) return;
    }
    if (bytes[lineStart] === 0x23) return;
    if (/kvm_nested_\w+: /.test(text.slice(found, lineEnd))) {
      this.#malformed("No thread, CPU and time before the name of a tracepoint");
    }
  }

  #eventAt(
    bytes: Buffer,
    text: string,
    lineStart: number,
    start: number,
    lineEnd: number,
  ): Outcome {
    let nameEnd = start;
    while (nameEnd < lineEnd && isName(bytes[nameEnd]!)) nameEnd++;
    if (nameEnd === start || bytes[nameEnd] !== COLON) return Outcome.Foreign;
    let nameStart = start;
    if (this.#every && isName(bytes[nameEnd + 1]!)) {
      nameStart = nameEnd + 1;
      nameEnd = nameStart;
      while (nameEnd < lineEnd && isName(bytes[nameEnd]!)) nameEnd++;
      if (bytes[nameEnd] !== COLON) return Outcome.Foreign;
    }
    const head = this.#head;
    if (!readHead(bytes, lineStart, nameStart, head)) return Outcome.Foreign;
    const record = this.#record;
    const stats = this.#stats;
    const name = text.slice(nameStart, nameEnd);
    const entry = this.#names.get(name) ??
      this.#newName(bytes.toString("latin1", nameStart, nameEnd));
    let end = lineEnd;
    while (end > nameEnd + 1 && (bytes[end - 1]! === SPACE || bytes[end - 1]! === 0x0d)) end--;
    let at = nameEnd + 1;
    while (at < end && bytes[at] === SPACE) at++;
    if (stats.form === undefined) {
      stats.form = head.perf ? "perf" : head.flags ? "ftrace" : "trace-cmd";
    }
    if (stats.resolution === undefined) stats.resolution = head.resolution;
    if (!entry.known && !this.#every) {
      entry.count++;
      return Outcome.Read;
    }
    const tracepoint = TRACEPOINT_BY_NAME.get(entry.name);
    record.tracepoint = tracepoint;
    record.name = entry.name;
    record.cpu = head.cpu;
    record.pid = head.pid;
    record.time = head.time;
    if (tracepoint === undefined || tracepoint.free) record.present = 0;
    else {
      const fault = readValues(bytes, at, end, record);
      if (fault !== undefined) return this.#malformed(`${entry.name} with ${fault}`);
      if ((record.present & tracepoint.needs) !== tracepoint.needs) {
        return this.#malformed(`${entry.name} without all of its values`);
      }
    }
    record.start = at + missingFields(bytes, at, end);
    record.end = end;
    record.task = this.#task(bytes, head);
    entry.count++;
    this.#records++;
    this.#sink.record(record);
    return Outcome.Read;
  }

  #newName(name: string): { name: string; known: boolean; count: number } {
    const entry = { name, known: TRACEPOINT_BY_NAME.has(name), count: 0 };
    // No kernel has as many: garbage may.
    if (this.#names.size < 10_000) this.#names.set(name, entry);
    return entry;
  }

  #task(bytes: Buffer, head: LineHead): string {
    const known = this.#tasks.get(head.pid);
    const length = head.taskEnd - head.taskStart;
    if (known !== undefined && known.bytes.length === length) {
      let i = 0;
      while (i < length && known.bytes[i] === bytes[head.taskStart + i]) i++;
      if (i === length) return known.name;
    }
    const name = bytes.toString("utf8", head.taskStart, head.taskEnd);
    if (this.#tasks.size > 100_000) this.#tasks.clear();
    this.#tasks.set(head.pid, {
      bytes: new Uint8Array(bytes.subarray(head.taskStart, head.taskEnd)),
      name,
    });
    return name;
  }

  #malformed(what: string): Outcome {
    this.#stats.malformed++;
    noteIssue(this.#stats, { line: this.#stats.lines, what });
    return Outcome.Read;
  }

  /** A line that says that records were lost. */
  #mark(line: string): void {
    const written = /entries-in-buffer\/entries-written: (\d+)\/(\d+)/.exec(line);
    if (written !== null) {
      const missing = Number(written[2]) - Number(written[1]);
      if (missing > 0) this.#sink.lost(-1, missing, undefined);
      return;
    }
    const mark = lostMark(line);
    if (mark !== undefined) this.#sink.lost(mark.cpu, mark.count, undefined);
  }

  #countSkipped(): void {
    const { lines, malformed, lostMarks } = this.#stats;
    this.#stats.skipped = lines - this.#records - malformed - lostMarks;
  }

  #countOthers(): void {
    for (const { name, known, count } of this.#names.values()) {
      if (count > 0 && !known) this.#stats.others[name] = (this.#stats.others[name] ?? 0) + count;
    }
  }
}

/** Where a word is, or a place beyond every line. */
function find(text: string, word: string, from: number): number {
  const at = text.indexOf(word, from);
  return at < 0 ? Infinity : at;
}

function skipBlanks(bytes: Uint8Array, at: number, end: number): number {
  while (at < end && bytes[at] === SPACE) at++;
  return at;
}

function isName(c: number): boolean {
  return c === 0x5f || (c >= 0x61 && c <= 0x7a) || (c >= 0x30 && c <= 0x39) ||
    (c >= 0x41 && c <= 0x5a);
}

/** Length of what libtraceevent's plugin leaves behind when it gives up on a record. */
function missingFields(bytes: Buffer, at: number, end: number): number {
  if (bytes[at] !== 0x3c || bytes.toString("latin1", at, at + 16) !== "<CANT FIND FIELD") return 0;
  let from = at;
  while (from < end && bytes[from] === 0x3c) {
    const close = bytes.indexOf(0x3e, from);
    if (close < 0 || close >= end) break;
    from = skipBlanks(bytes, close + 1, end);
  }
  return from - at;
}

function lostMark(line: string): { cpu: number; count: number | undefined } | undefined {
  const match =
    /^\s*CPU:(\d+) \[(?:LOST (?:(\d+) )?EVENTS|(?:(\d+) )?EVENTS DROPPED)\]/.exec(line) ??
      /\[(\d+)\]\s.*PERF_RECORD_LOST(?:_SAMPLES)?\s+lost\s+(\d+)/.exec(line);
  if (match === null) return undefined;
  const count = match[2] ?? match[3];
  return { cpu: Number(match[1]), count: count === undefined ? undefined : Number(count) };
}
