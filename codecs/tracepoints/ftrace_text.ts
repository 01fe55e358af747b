/**
 * Reads tracepoint logs that are text: tracefs `trace` and `trace_pipe`,
 * `trace-cmd report`, `perf script`, the kernel's own log, and what becomes of
 * those when somebody pastes them. One reader for all, since a line's parts
 * say themselves what they are.
 *
 * Lines that do not name a tracepoint of KVM are passed over by a search of
 * the machine's own, without being looked at.
 *
 * @module
 */
import { Buffer } from "node:buffer";
import { TracepointError } from "./error.ts";
import type { RecordSink } from "./kvm_record.ts";
import { lossMark } from "./loss_marks.ts";
import { noteIssue, type TracepointStats } from "./stats.ts";
import { cleanLine } from "./text_line.ts";
import { TextRecords } from "./text_record.ts";

/** Lines longer than this are passed over: no record is a tenth of it. */
const LONGEST_LINE = 64 * 1024;

/** This much text without one line of a log, and the input is none. */
const ENOUGH_TO_TELL = 1024 * 1024;

/** So much of a line is looked at to tell what it is, before anything is known. */
const LONGEST_HEAD = 4096;

const NEWLINE = 0x0a;

/** Words of lines that say that records were lost. */
const MARKS = ["EVENTS", "PERF_RECORD_LOST", "entries-written: "] as const;

/** A record's line in any of the forms with columns. */
const ANY_RECORD =
  /^\s*\S.*[-\s/]\d+\s+(\(\s*[\d-]+\)\s+)?(\[\d{3,}\]\s+(\S+\s+)?)?\d+(\.\d+)?:\s+(\d+\s+)?[\w:.-]+:/;
const HEADER = /^(# tracer: |cpus=\d+$|version = \d+$|# entries-in-buffer|# ={8})/;
/** What `perf trace` prints: fields by name, other ones than `perf script`. */
const PERF_TRACE = /\bkvm:kvm_\w+\(/;

/** Reads text in pieces of any size; what it finds goes to a {@linkcode RecordSink}. */
export class FtraceText {
  readonly #stats: TracepointStats;
  readonly #sink: RecordSink;
  readonly #records: TextRecords;
  #rest = new Uint8Array(0);
  #consumed = 0;
  #recognized = false;
  #perfTrace = false;
  #overlong = false;
  /** The last line of the piece before. */
  #last = "";

  /**
   * @param sink Receives the records.
   * @param stats Counts them.
   * @param every Whether tracepoints that KVM's table does not have are wanted too.
   */
  constructor(sink: RecordSink, stats: TracepointStats, every = false) {
    this.#sink = sink;
    this.#stats = stats;
    this.#records = new TextRecords(sink, stats, every);
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
        this.#records.close();
        this.#stats.lines++;
        if (Buffer.from(this.#rest).includes("kvm_")) {
          this.#stats.malformed++;
          noteIssue(this.#stats, { line, what: "The last line is cut off: no line end" });
        }
      }
      this.#rest = new Uint8Array(0);
    }
    this.#records.close();
    if (!this.#recognized) this.#refuse();
    this.#countSkipped();
    this.#records.countOthers();
  }

  #refuse(): never {
    const expected = "expected the text of tracefs trace or trace_pipe, of `trace-cmd report` or " +
      "`perf script`, the kernel's log, or a trace.dat file";
    const { lines } = this.#stats;
    throw new TracepointError(
      "not-a-trace",
      lines === 0
        ? `The input is empty: ${expected}`
        : this.#perfTrace
        ? "This is what `perf trace` prints, which leaves out what a recording needs: record with " +
          "`perf record`, or `perf trace record`, and pass it through `perf script`"
        : `Not a tracepoint log: none of ${lines} lines has the name of one of KVM's ` +
          `tracepoints after a thread, a CPU in brackets and a time, or at its beginning; ${expected}`,
      { line: 1 },
    );
  }

  #lines(data: Uint8Array, end: number): void {
    if (end === 0) return;
    const bytes = Buffer.from(data.buffer, data.byteOffset, end);
    const stats = this.#stats, records = this.#records;
    let at = 0;
    if (this.#overlong) {
      records.close();
      at = bytes.indexOf(NEWLINE) + 1;
      this.#overlong = false;
      stats.lines++;
    }
    while (!this.#recognized && at < end) at = this.#recognize(bytes, at);
    // One-byte text: a search in it is several times as fast as one in bytes.
    const text = bytes.toString("latin1", 0, end);
    const { word } = records;
    let event = find(text, word, at);
    const marks = MARKS.map((mark) => find(text, mark, at));
    while (at < end) {
      if (records.waits) {
        const lineEnd = bytes.indexOf(NEWLINE, at);
        if (records.rest(bytes.toString("utf8", at, lineEnd))) {
          stats.lines++;
          at = lineEnd + 1;
          if (event < at) event = find(text, word, at);
          continue;
        }
      }
      const next = Math.min(event, marks[0]!, marks[1]!, marks[2]!);
      const stop = Math.min(next, end);
      let lineStart = at;
      for (let i = at; i < stop; i++) {
        if (bytes[i] === NEWLINE) {
          stats.lines++;
          lineStart = i + 1;
        }
      }
      if (next >= end) break;
      const lineEnd = bytes.indexOf(NEWLINE, next);
      stats.lines++;
      if (next === event) {
        const before = () => this.#lineBefore(bytes, lineStart);
        records.next = -1;
        records.line(bytes, text, lineStart, event, lineEnd, before);
        if (records.next > lineEnd) event = records.next;
      } else this.#mark(bytes.toString("utf8", lineStart, lineEnd));
      at = lineEnd + 1;
      if (event < at) event = find(text, word, at);
      for (let i = 0; i < marks.length; i++) {
        if (marks[i]! < at) marks[i] = find(text, MARKS[i]!, at);
      }
    }
    this.#last = this.#lineBefore(bytes, end);
  }

  /** The line that ends before a place. */
  #lineBefore(bytes: Buffer, at: number): string {
    if (at === 0) return this.#last;
    const from = bytes.lastIndexOf(NEWLINE, at - 2) + 1;
    return at < 2 ? "" : bytes.toString("utf8", Math.max(from, at - LONGEST_HEAD), at - 1);
  }

  /** Looks at one line before the form is known; returns where to go on. */
  #recognize(bytes: Buffer, at: number): number {
    const lineEnd = bytes.indexOf(NEWLINE, at);
    const line = cleanLine(bytes.toString("utf8", at, Math.min(lineEnd, at + LONGEST_HEAD))).text;
    if (line.startsWith("cpus=")) this.#stats.form = "trace-cmd";
    else if (line.startsWith("# tracer")) this.#stats.form = "ftrace";
    if (
      HEADER.test(line) || ANY_RECORD.test(line) || lossMark(line) !== undefined ||
      line.includes("kvm_") && this.#records.recognizes(line)
    ) {
      this.#recognized = true;
      return at;
    }
    this.#perfTrace ||= PERF_TRACE.test(line);
    this.#stats.lines++;
    return lineEnd + 1;
  }

  /** A line that says that records were lost. */
  #mark(line: string): void {
    const mark = lossMark(cleanLine(line).text);
    if (mark === undefined) return;
    if (mark.absurd) {
      this.#stats.malformed++;
      const what = "A number of lost records that cannot be";
      noteIssue(this.#stats, { line: this.#stats.lines, what });
    } else this.#sink.lost(mark.cpu, mark.count, undefined);
  }

  #countSkipped(): void {
    const { lines, malformed, lostMarks, continued } = this.#stats;
    this.#stats.skipped = lines - this.#records.count - malformed - lostMarks - continued;
  }
}

/** Where a word is, or a place beyond every line. */
function find(text: string, word: string, from: number): number {
  const at = text.indexOf(word, from);
  return at < 0 ? Infinity : at;
}
