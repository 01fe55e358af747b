/**
 * Reads the records in lines that name a tracepoint of KVM. A line with the
 * columns of a tracer is read where it is; one that does not fit is cleaned of
 * what is not the tracer's and read again.
 *
 * @module
 */
import { Buffer } from "node:buffer";
import { LineHead, readHead } from "./ftrace_head.ts";
import { readValues } from "./ftrace_values.ts";
import { KvmRecord, type RecordSink } from "./kvm_record.ts";
import { ISA_VMX, SLOT, TRACEPOINT_BY_NAME } from "./kvm_tracepoints.ts";
import { noteIssue, type TracepointStats } from "./stats.ts";
import { type CleanLine, cleanLine, isSoftBroken, isWrapped } from "./text_line.ts";
import {
  endOfName,
  FREE,
  holdsAnother,
  isName,
  missingFields,
  NAMED,
  skipBlanks,
} from "./text_names.ts";
import { readShape, SINCE } from "./text_shapes.ts";
import { goesOn, HEAD_ALONE, isRest, MOST_LINES } from "./text_wrap.ts";

const SPACE = 0x20, COLON = 0x3a, HASH = 0x23, CR = 0x0d, EQUALS = 0x3d;

/** What was done with a name in a line. */
type Reading =
  /** It is no record's. */
  | "foreign"
  /** It is a record's, or that of a tracepoint that is passed over. */
  | "read"
  /** It is that of a record that lacks something, or has something that cannot be. */
  | { readonly name: string; readonly fault: string };

/** A record whose text ended before it was whole: the next line may be the rest of it. */
interface Open {
  /** What there is of it. */
  readonly clean: CleanLine;
  /** Its first line. */
  readonly line: number;
  /** How many lines it has besides. */
  readonly more: number;
  /** What is wrong with it. */
  readonly fault: string;
  /** Name of its tracepoint. */
  readonly name: string;
  /** Its CPU and thread, -1 where they are not known. */
  readonly cpu: number;
  readonly pid: number;
}

const NO_HEAD = "No thread, CPU and time before the name of a tracepoint";

/** Reads records line by line. */
export class TextRecords {
  readonly #stats: TracepointStats;
  readonly #sink: RecordSink;
  readonly #record = new KvmRecord();
  readonly #head = new LineHead();
  readonly #names = new Map<string, { name: string; known: boolean; count: number }>();
  readonly #tasks = new Map<number, { bytes: Uint8Array; name: string }>();
  readonly #every: boolean;
  /** Whether some record had a thread: one without is not believed then. */
  #threads = false;
  #open: Open | undefined;
  /** The line that was read last, cleaned and whole. */
  #text = "";
  /** What stands after the text of a record of the shape that was read last. */
  #after: RegExp | undefined;
  #bytes: Buffer = Buffer.alloc(0);
  /** Records handed on. */
  count = 0;
  /** Where {@linkcode TextRecords.word} is next, where the line that was read last tells; else -1. */
  next = -1;

  /**
   * @param sink Receives the records.
   * @param stats Counts them.
   * @param every Whether tracepoints that KVM's table does not have are wanted too.
   */
  constructor(sink: RecordSink, stats: TracepointStats, every: boolean) {
    this.#sink = sink;
    this.#stats = stats;
    this.#every = every;
    this.#record.source = {
      text: ({ start, end }) => this.#bytes.toString("utf8", start, end),
      fields: ({ tracepoint }) => tracepoint === undefined ? {} : undefined,
    };
  }

  /** Word that a line has to hold to be of interest. */
  get word(): string {
    return this.#every ? ": " : "kvm_";
  }

  /** Whether a record waits for the line after it. */
  get waits(): boolean {
    return this.#open !== undefined;
  }

  /**
   * Reads a line.
   *
   * @param bytes A piece of the log.
   * @param text The same, a character for each byte.
   * @param lineStart Where the line begins.
   * @param found Where {@linkcode TextRecords.word} is in it.
   * @param lineEnd Where it ends.
   * @param before Gives the line before it.
   */
  line(
    bytes: Buffer,
    text: string,
    lineStart: number,
    found: number,
    lineEnd: number,
    before: () => string,
  ): void {
    this.#bytes = bytes;
    const last = bytes[lineEnd - 1] === CR ? lineEnd - 2 : lineEnd - 1;
    if (bytes[last] === EQUALS) {
      const line = bytes.toString("utf8", lineStart, lineEnd);
      if (isSoftBroken(line)) return this.#broken(cleanLine(line));
    }
    for (let name = found; name >= 0 && name < lineEnd; name = text.indexOf(this.word, name + 1)) {
      const start = this.#every ? skipBlanks(bytes, name + 2, lineEnd) : name;
      const outcome = this.#nameAt(bytes, text, lineStart, start, lineEnd);
      if (outcome === "read") return;
      if (outcome !== "foreign") break;
    }
    if (bytes[lineStart] === HASH) return;
    const clean = cleanLine(bytes.toString("utf8", lineStart, lineEnd));
    const outcome = this.#clean(clean, before);
    if (outcome === "read") return;
    const line = this.#stats.lines;
    if (outcome !== "foreign") {
      const fault = `${outcome.name} ${outcome.fault}`;
      const { cpu, pid } = this.#head;
      const { name } = outcome;
      this.#open = { clean: { ...clean, text: this.#text }, line, more: 0, fault, name, cpu, pid };
      return;
    }
    const name = /kvm_nested_\w+(?=:)/.exec(clean.text)?.[0];
    if (name !== undefined) this.#malformed({ fault: NO_HEAD, line, name, cpu: -1, pid: -1 });
  }

  /** A line that goes on in the next one, in the middle of a word. */
  #broken(clean: CleanLine): void {
    const name = /kvm_\w+/.exec(clean.text)?.[0] ?? "";
    const { lines: line } = this.#stats;
    this.#open = { clean, line, more: 0, fault: NO_HEAD, name, cpu: -1, pid: -1 };
  }

  /**
   * Offers the line after a record that waits for it.
   *
   * @param line The line.
   * @returns Whether it is the rest of that record, or a part of the rest.
   */
  rest(line: string): boolean {
    const open = this.#open;
    if (open === undefined) return false;
    const { text } = cleanLine(line);
    const free = FREE.test(open.clean.text);
    const soft = isSoftBroken(open.clean.text);
    const fits = soft ||
      (free ? text.trim() !== "" && !text.includes("kvm_") : isRest(text));
    if (!fits || open.more + 2 > MOST_LINES) {
      this.close();
      return false;
    }
    this.#open = undefined;
    this.#stats.continued++;
    const joined = soft ? open.clean.text.slice(0, -1) + text : `${open.clean.text} ${text.trim()}`;
    // What is encoded may have been broken in the middle.
    const clean = { ...open.clean, text: soft ? cleanLine(joined).text : joined };
    if (isSoftBroken(clean.text)) {
      this.#open = { ...open, clean, more: open.more + 1 };
      return true;
    }
    const outcome = this.#clean(clean);
    if (typeof outcome === "object") {
      const fault = `${outcome.name} ${outcome.fault}`;
      const { cpu, pid } = this.#head;
      this.#open = { ...open, clean, more: open.more + 1, fault, cpu, pid };
    }
    return true;
  }

  /** No line comes that could be the rest of a record. */
  close(): void {
    const open = this.#open;
    if (open === undefined) return;
    this.#open = undefined;
    // A check's text may end anywhere; any other record lacks values.
    if (FREE.test(open.clean.text) && this.#clean(open.clean, undefined, true) === "read") return;
    this.#malformed(open);
  }

  /**
   * Whether a line is that of a record in some shape, whatever its values.
   *
   * @param line The line.
   */
  recognizes(line: string): boolean {
    const clean = cleanLine(line);
    const { text } = clean;
    for (const match of text.matchAll(NAMED)) {
      const at = match.index;
      if (!match[1]!.startsWith("kvm_")) continue;
      if (this.#front(text.slice(0, at).replace(SINCE, ""), clean)) return true;
    }
    return false;
  }

  /** Adds what was passed over by name to the counts. */
  countOthers(): void {
    const { others } = this.#stats;
    for (const { name, known, count } of this.#names.values()) {
      if (count > 0 && !known) others[name] = (others[name] ?? 0) + count;
    }
  }

  /** Reads a line where it is, if it has the columns of a tracer. */
  #nameAt(
    bytes: Buffer,
    text: string,
    lineStart: number,
    start: number,
    lineEnd: number,
  ): Reading {
    let nameStart = start, nameEnd = endOfName(bytes, start, lineEnd);
    if (nameEnd === start || bytes[nameEnd] !== COLON) return "foreign";
    if (this.#every && isName(bytes[nameEnd + 1]!)) {
      nameStart = nameEnd + 1;
      nameEnd = endOfName(bytes, nameStart, lineEnd);
      if (bytes[nameEnd] !== COLON) return "foreign";
    }
    const head = this.#head;
    if (!readHead(bytes, lineStart, nameStart, head)) return "foreign";
    if (isWrapped(bytes, head.taskStart, head.taskEnd)) return "foreign";
    // The next place of interest; mostly in another line.
    this.next = text.indexOf(this.word, nameEnd);
    const another = this.next >= 0 && this.next < lineEnd;
    return this.#take(bytes, text.slice(nameStart, nameEnd), nameEnd, lineEnd, false, another);
  }

  /** Reads a line without its wrappings. */
  #clean(clean: CleanLine, before?: () => string, final = false): Reading {
    const head = this.#head;
    for (const match of clean.text.matchAll(NAMED)) {
      const name = match[1]!;
      if (!this.#every && !name.startsWith("kvm_")) continue;
      const at = match.index;
      let front = clean.text.slice(0, at).replace(SINCE, "");
      let text = clean.text.slice(at);
      if (!this.#front(front, clean)) continue;
      if (head.form === "bare" && before !== undefined) {
        // The line may have been broken before the name.
        const above = cleanLine(before()).text.trimEnd();
        const joined = `${above} ${front.trimStart()}`;
        if (HEAD_ALONE.test(above) && this.#front(joined, clean)) {
          front = joined;
          // A line that names a record of its own counts as that.
          if (above.search(NAMED) < 0) this.#stats.continued++;
        } else this.#front(front, clean);
      }
      if (head.pid < 0 && this.#threads) continue;
      if (this.#after !== undefined) text = text.replace(this.#after, "");
      this.#text = front + text;
      const bytes = Buffer.from(this.#text);
      const nameStart = Buffer.byteLength(front);
      this.#bytes = bytes;
      return this.#take(bytes, name, nameStart + name.length, bytes.length, final, true);
    }
    return "foreign";
  }

  /** Reads what stands before the name; whether that is of a record. */
  #front(front: string, { time, pid }: CleanLine): boolean {
    const head = this.#head;
    const bytes = Buffer.from(front);
    this.#after = undefined;
    if (readHead(bytes, 0, bytes.length, head)) return true;
    const shape = readShape(front, head);
    if (shape === undefined) return false;
    this.#after = shape.after;
    if (Number.isNaN(head.time) && time !== undefined) {
      head.time = time;
      head.resolution = 1000;
      if (head.form === "bare") head.form = "printk";
    }
    if (head.pid < 0 && pid !== undefined) head.pid = pid;
    return true;
  }

  #take(
    bytes: Buffer,
    said: string,
    nameEnd: number,
    lineEnd: number,
    final: boolean,
    another: boolean,
  ): Reading {
    const head = this.#head, stats = this.#stats, record = this.#record;
    const entry = this.#entry(said);
    let end = lineEnd;
    while (end > nameEnd + 1 && (bytes[end - 1] === SPACE || bytes[end - 1] === CR)) end--;
    const at = skipBlanks(bytes, nameEnd + 1, end);
    stats.form ??= head.form;
    if (head.pid >= 0) this.#threads = true;
    if (!Number.isNaN(head.time)) stats.resolution ??= head.resolution;
    if (!entry.known && !this.#every) {
      entry.count++;
      return "read";
    }
    const { name } = entry;
    if (head.time > Number.MAX_SAFE_INTEGER) {
      return { name, fault: "at a time of 2^53 ns or more, which is 104 days" };
    }
    if (!this.#every && another && holdsAnother(bytes, at, end)) {
      return { name, fault: "and another record in one line" };
    }
    const tracepoint = TRACEPOINT_BY_NAME.get(name);
    let from = at + missingFields(bytes, at, end);
    if (tracepoint?.free) {
      // As fields: `msg=TEXT err=0`.
      const match = /^msg=(.*) err=\d+$/.exec(bytes.toString("utf8", from, end));
      if (match !== null) {
        from += 4;
        end = from + Buffer.byteLength(match[1]!);
      }
    }
    if (tracepoint === undefined) record.present = 0;
    else if (tracepoint.free) {
      record.present = 0;
      if (!final && goesOn(bytes.toString("utf8", from, end))) {
        return { name, fault: "without its text" };
      }
      if (from === end) return { name, fault: "without its text" };
    } else {
      const fault = readValues(bytes, at, end, record);
      const vmx = (record.present >>> SLOT.isa & 1) !== 0 && record.lo[SLOT.isa] === ISA_VMX;
      if (!vmx && fault !== undefined) return { name, fault: `with ${fault}` };
      if (!vmx && (record.present & tracepoint.prints) !== tracepoint.prints) {
        return { name, fault: "without all of its values" };
      }
    }
    record.tracepoint = tracepoint;
    record.name = name;
    record.cpu = head.cpu;
    record.pid = head.pid;
    record.time = head.time;
    record.start = from;
    record.end = end;
    record.task = head.pid < 0 ? "" : head.name ?? this.#task(bytes, head);
    entry.count++;
    this.count++;
    this.#sink.record(record);
    return "read";
  }

  #entry(name: string): { name: string; known: boolean; count: number } {
    let entry = this.#names.get(name);
    if (entry !== undefined) return entry;
    // Cut out of a large text, it would keep all of that.
    const own = Buffer.from(name, "latin1").toString("latin1");
    entry = { name: own, known: TRACEPOINT_BY_NAME.has(own), count: 0 };
    // No kernel has as many: garbage may.
    if (this.#names.size < 10_000) this.#names.set(own, entry);
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

  #malformed({ fault, line, name, cpu, pid }: Omit<Open, "clean" | "more">): void {
    this.#stats.malformed++;
    noteIssue(this.#stats, { line, what: fault });
    this.#sink.unread?.(cpu, pid, name);
  }
}
