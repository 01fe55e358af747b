/**
 * Imports tracepoint logs of KVM: text of tracefs, `trace-cmd report` or `perf
 * script`, or a trace.dat, each as it is or in gzip, recognized by content.
 *
 * @module
 */
import type { TraceEvent } from "../../engine/event.ts";
import { FtraceText } from "./ftrace_text.ts";
import { type KvmEventOptions, KvmEvents } from "./kvm_events.ts";
import type { KvmRecord, RecordSink, TracepointRecord } from "./kvm_record.ts";
import { TraceDat } from "./trace_dat.ts";
import { memorySource, type TraceSource } from "../container/trace_file.ts";
import { TracepointError } from "./error.ts";
import {
  gunzip,
  hasAnyPlace,
  memorySpool,
  peek,
  piecesOf,
  sniffTracepoints,
  type Spool,
  type TracepointSource,
} from "./source.ts";
import { emptyTracepointStats, type TracepointStats } from "./stats.ts";

/** What an import may be told. */
export interface TracepointOptions extends KvmEventOptions {
  /**
   * Whether tracepoints that are not about nested virtualization are imported
   * too, as events of kind `tracepoint`. They are counted and passed over when
   * left out.
   */
  readonly every?: boolean;
  /**
   * Makes a place to keep a trace.dat that comes as a stream or in gzip. In
   * memory, up to {@linkcode SPOOLED_IN_MEMORY} bytes, when left out.
   */
  readonly spool?: () => Spool | Promise<Spool>;
  /**
   * Of a live log: after so many milliseconds without more of it, what waits for a record that may
   * follow is handed out as it is. It waits for as long as it takes when left out, so that the same
   * log gives the same events.
   */
  readonly idle?: number;
}

/** Bytes of a streamed trace.dat that are kept in memory when no other place is given. */
export const SPOOLED_IN_MEMORY = 256 << 20;

/** A log being read: iterate it once; the counts grow meanwhile. */
export interface TracepointReading<T> extends AsyncIterable<T[]> {
  /** What was read so far. */
  readonly stats: TracepointStats;
}

/**
 * Imports a tracepoint log as trace events.
 *
 * Each batch is what one piece of the input gave, so that a live
 * `trace_pipe` is followed as it is written. Text is read in one pass and
 * constant memory. A trace.dat needs access at any place: a
 * {@linkcode TraceSource} or a buffer is read where it is; from a stream, or
 * out of gzip, it is spooled first.
 *
 * @param source The log.
 * @param options How.
 * @returns Batches of events in order; iterating throws a {@linkcode TracepointError} at what
 * cannot be read, after everything before it.
 * @example
 * ```ts
 * import { importTracepoints } from "@vmtape/vmtape/codecs";
 * const line = " qemu-7  [000] .....  3.648900: kvm_nested_vmenter_failed: control->asid == 0\n";
 * const log = importTracepoints(new TextEncoder().encode(line));
 * const events = (await Array.fromAsync(log)).flat();
 * if (events.map((event) => event.kind).join() !== "session,check") throw new Error();
 * if (log.stats.events.kvm_nested_vmenter_failed !== 1) throw new Error();
 * ```
 */
export function importTracepoints(
  source: TracepointSource,
  options: TracepointOptions = {},
): TracepointReading<TraceEvent> {
  const stats = emptyTracepointStats();
  const events = new KvmEvents(stats, options);
  return reading(source, options, stats, {
    sink: events,
    take: () => events.take(),
    settle: () => events.finish(),
  });
}

/**
 * Reads a tracepoint log as plain records, without making events of them.
 *
 * @param source The log.
 * @param options How.
 * @returns Batches of records in order; iterating throws a {@linkcode TracepointError} at what
 * cannot be read, after everything before it.
 * @example
 * ```ts
 * import { readTracepoints } from "@vmtape/vmtape/codecs";
 * const line = " qemu-7  [001]  3.5: kvm_skinit: rip: 0x0000000000001000 slb: 0x00008000\n";
 * const [batch] = await Array.fromAsync(readTracepoints(new TextEncoder().encode(line)));
 * if (batch?.[0]?.fields.slb !== 0x8000 || batch[0].time !== 3.5e9) throw new Error();
 * ```
 */
export function readTracepoints(
  source: TracepointSource,
  options: TracepointOptions = {},
): TracepointReading<TracepointRecord> {
  const stats = emptyTracepointStats();
  let records: TracepointRecord[] = [];
  const sink: RecordSink = {
    record(record: KvmRecord) {
      stats.events[record.name] = (stats.events[record.name] ?? 0) + 1;
      records.push(record.plain());
    },
    lost(_cpu, count) {
      stats.lostMarks++;
      stats.lost += count ?? 0;
    },
  };
  return reading(source, options, stats, {
    sink,
    take() {
      const taken = records;
      records = [];
      return taken;
    },
    settle() {},
  });
}

/** Where records go, and what comes of them. */
interface Collector<T> {
  readonly sink: RecordSink;
  take(): T[];
  /** Nothing that waits is waited for any longer. */
  settle(): void;
}

function reading<T>(
  source: TracepointSource,
  options: TracepointOptions,
  stats: TracepointStats,
  collector: Collector<T>,
): TracepointReading<T> {
  return {
    stats,
    async *[Symbol.asyncIterator]() {
      const all = steps(source, options, stats, collector.sink);
      let fault: unknown;
      let waiting = false;
      try {
        for (let more = true; more;) {
          const next = all.next();
          waiting = true;
          if (options.idle !== undefined && !await within(next, options.idle)) {
            collector.settle();
            const batch = collector.take();
            if (batch.length > 0) yield batch;
          }
          more = !(await next).done;
          waiting = false;
          const batch = collector.take();
          if (batch.length > 0) yield batch;
        }
      } catch (error) {
        // Whatever was read before it comes first.
        fault = error;
        waiting = false;
      } finally {
        // An input that gives nothing more cannot be waited for.
        const left = all.return(undefined);
        if (waiting) left.catch(() => {});
        else await left;
      }
      collector.settle();
      const batch = collector.take();
      if (batch.length > 0) yield batch;
      if (fault !== undefined) throw fault;
    },
  };
}

/** Whether something comes within a time. */
async function within(what: Promise<unknown>, milliseconds: number): Promise<boolean> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<false>((resolve) => {
    timer = setTimeout(() => resolve(false), milliseconds);
  });
  try {
    return await Promise.race([what.then(() => true, () => true), late]);
  } finally {
    clearTimeout(timer);
  }
}

async function* steps(
  source: TracepointSource,
  options: TracepointOptions,
  stats: TracepointStats,
  sink: RecordSink,
): AsyncGenerator<void> {
  let peeked = await peek(piecesOf(source));
  let packed = false;
  if (sniffTracepoints(peeked.first) === "gzip") {
    packed = true;
    peeked = await peek(gunzip(peeked.pieces));
  }
  const { first, pieces } = peeked;
  try {
    const kind = sniffTracepoints(first);
    if (kind === "text") return yield* textSteps(pieces, stats, sink, options.every ?? false);
    if (kind === "trace.dat") {
      return yield* datSteps(packed ? undefined : source, pieces, options, stats, sink);
    }
    const foreign = kind === "gzip"
      ? { foreign: "compressed with gzip twice: pass it through `zcat`", compressed: true }
      : kind;
    throw new TracepointError(
      foreign.compressed ? "compression" : "not-a-trace",
      `${foreign.compressed ? "" : "Not a tracepoint log: "}The input is ${foreign.foreign}`,
      { offset: 0 },
    );
  } finally {
    await pieces.return(undefined);
  }
}

async function* textSteps(
  pieces: AsyncIterable<Uint8Array>,
  stats: TracepointStats,
  sink: RecordSink,
  every: boolean,
): AsyncGenerator<void> {
  const reader = new FtraceText(sink, stats, every);
  for await (const piece of pieces) {
    stats.bytes += piece.length;
    reader.push(piece);
    yield;
  }
  reader.end();
  yield;
}

async function* datSteps(
  direct: TracepointSource | undefined,
  pieces: AsyncGenerator<Uint8Array>,
  options: TracepointOptions,
  stats: TracepointStats,
  sink: RecordSink,
): AsyncGenerator<void> {
  const place = new Place(options);
  try {
    yield* datStepsAt(place, direct, pieces, stats, sink, options.every ?? false);
  } finally {
    await place[Symbol.asyncDispose]();
  }
}

async function* datStepsAt(
  place: Place,
  direct: TracepointSource | undefined,
  pieces: AsyncGenerator<Uint8Array>,
  stats: TracepointStats,
  sink: RecordSink,
  every: boolean,
): AsyncGenerator<void> {
  const access = direct instanceof Uint8Array
    ? memorySource(direct)
    : direct !== undefined && hasAnyPlace(direct)
    ? direct
    : await place.keep(pieces);
  const dat = await TraceDat.open(access, sink, stats, every);
  const { textOffset } = dat.header;
  if (textOffset === undefined) yield* dat.steps();
  else yield* textSteps(tail(access, textOffset), stats, sink, every);
  if (place.fault !== undefined) throw place.fault;
}

/** Where a stream is kept while it is read; freed when that is over. */
class Place implements AsyncDisposable {
  readonly #options: TracepointOptions;
  #spool: Spool | undefined;
  /** Why not all of the stream is kept. */
  fault: TracepointError | undefined;

  constructor(options: TracepointOptions) {
    this.#options = options;
  }

  async keep(pieces: AsyncIterable<Uint8Array>): Promise<TraceSource> {
    const spool = await (this.#options.spool?.() ?? memorySpool(SPOOLED_IN_MEMORY));
    this.#spool = spool;
    try {
      for await (const piece of pieces) await spool.write(piece);
    } catch (error) {
      // A .gz that is cut off: what is there may still be read.
      if (!(error instanceof TracepointError) || error.code !== "truncated") throw error;
      this.fault = error;
    }
    return await spool.finish();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#spool?.discard();
  }
}

function tail(access: TraceSource, offset: number): AsyncGenerator<Uint8Array> {
  return piecesOf({
    size: access.size - offset,
    readAt: (at, length) => access.readAt(at + offset, length),
  });
}
