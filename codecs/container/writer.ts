/**
 * Writing a trace: events in, blocks out.
 *
 * @module
 */
import { crc32 } from "node:zlib";
import type { TraceEvent } from "../../engine/event.ts";
import {
  blockContent,
  type BlockHead,
  joinBlock,
  type NewBlock,
  type RawBlock,
  readBlockHead,
  sealBlock,
} from "./block.ts";
import { type IndexEntry, writeIndex, writeTrailer } from "./block_index.ts";
import { BlockChain, sameDigest } from "./chain.ts";
import { checkpointBlocks, readCheckpointPart } from "./checkpoint.ts";
import { EventEncoder } from "./encoder.ts";
import { TraceError } from "../errors.ts";
import { EventBlock } from "./event_block.ts";
import { BLOCK, BLOCK_HEADER_SIZE, INDEX_ENTRY_SIZE, MAX_RAW, NO_TIME } from "./format.ts";
import { type TraceHeader, writeHeader } from "./header.ts";
import type { Meta } from "./msgpack.ts";
import {
  type Fit,
  fitOf,
  type KindPlan,
  OWN_PLANS,
  PLAN_BY_KIND,
  plansByKind,
  plansOf,
  schemaLike,
} from "./schema.ts";

/** Where a trace's bytes go. */
export interface TraceSink {
  /** Takes all of a chunk before it returns; throws when it cannot. */
  write(chunk: Uint8Array): void;
  /** Called once after the last chunk, when the trace is whole. */
  close?(): void;
}

/** How a {@linkcode TraceWriter} works. */
export interface TraceWriterOptions {
  /** Metadata of the trace: JSON-like. */
  readonly meta?: Meta;
  /** 16 bytes that tell this trace from others; random when left out. */
  readonly id?: Uint8Array;
  /** A trace that this one is made of: events of all its kinds can be written, known here or not. */
  readonly like?: TraceHeader | undefined;
  /** Longest time that an event waits for its block to be written, in milliseconds; 0 for no limit. */
  readonly flushInterval?: number;
}

/** How many events pass between two looks at the clock. */
const CLOCK_EVERY = 32;

/**
 * Writes a trace. A write takes at most the time that one block's compression takes.
 *
 * @example
 * ```ts
 * import { readTrace, TraceWriter } from "@vmtape/vmtape/codecs";
 * const chunks: Uint8Array[] = [];
 * const writer = new TraceWriter({ write: (chunk) => chunks.push(chunk) });
 * writer.write({ kind: "inject", vcpu: 0, time: 17, what: "nmi" });
 * writer.close();
 * const trace = await readTrace(chunks);
 * for await (const event of trace.events()) {
 *   if (event.kind !== "inject" || event.what !== "nmi") throw new Error("Not as written");
 * }
 * ```
 */
export class TraceWriter implements Disposable {
  readonly #sink: TraceSink;
  readonly #encoder: EventEncoder;
  readonly #plans: readonly (KindPlan | undefined)[];
  readonly #chain = new BlockChain();
  /** Whether events of a trace's table fit, by the trace's header. */
  readonly #fits = new WeakMap<TraceHeader, Fit>();
  readonly #index: IndexEntry[] = [];
  readonly #tag: number;
  readonly #interval: number;
  #sequence = 0;
  #events = 0;
  #bytes = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #due = Infinity;
  #untilClock = CLOCK_EVERY;
  #failure: TraceError | undefined;
  #closed = false;

  /**
   * Writes the file header.
   *
   * @param sink Where the bytes go.
   * @param options How.
   * @throws {TraceError} When the metadata cannot be stored.
   */
  constructor(sink: TraceSink, options: TraceWriterOptions = {}) {
    this.#sink = sink;
    this.#interval = options.flushInterval ?? 1000;
    const id = options.id ?? crypto.getRandomValues(new Uint8Array(16));
    this.#tag = crc32(id);
    const schema = options.like && schemaLike(options.like.plans);
    this.#plans = schema === undefined ? OWN_PLANS : plansOf(schema, 0);
    this.#encoder = new EventEncoder(
      schema === undefined ? PLAN_BY_KIND : plansByKind(this.#plans),
    );
    this.#send(writeHeader(id, options.meta ?? {}, schema));
  }

  /** Number of events written so far. */
  get events(): number {
    return this.#events + this.#encoder.count;
  }

  /** Number of bytes handed to the sink so far. */
  get bytes(): number {
    return this.#bytes;
  }

  /**
   * Writes an event. It is in the sink once its block is full, or its time is up.
   *
   * @param event The event; not kept.
   * @throws {TraceError} `event` for a value outside its type, which leaves the trace as it was;
   * `limit` for an event too large for any block; `output` when the sink fails; `closed`.
   */
  write(event: TraceEvent): void {
    if (this.#closed || this.#failure) this.#refuse();
    const encoder = this.#encoder;
    try {
      if (!encoder.add(event)) {
        this.flush();
        if (!encoder.add(event)) {
          encoder.take();
          throw new TraceError("limit", `An event of kind ${event.kind} is larger than a block`);
        }
      }
    } finally {
      if (encoder.spoilt) this.flush();
    }
    if (encoder.count === 1 && this.#interval > 0) this.#arm();
    if (--this.#untilClock === 0) {
      this.#untilClock = CLOCK_EVERY;
      if (performance.now() >= this.#due) this.flush();
    }
  }

  /**
   * Ends the block and hands it to the sink.
   *
   * @throws {TraceError} `output` when the sink fails; `closed`.
   */
  flush(): void {
    if (this.#closed || this.#failure) this.#refuse();
    this.#disarm();
    const encoder = this.#encoder;
    const { count, firstTime, lastTime } = encoder;
    const content = encoder.take();
    if (count === 0) return;
    this.#block(content.bytes, BLOCK.events, count, firstTime, lastTime, content.cuts);
  }

  /**
   * Stores the state of the machine as it is after the events written so far, so that a replay can
   * begin there.
   *
   * @param state The state, as the engine encodes it.
   * @param digest Digest of the state, up to 64 bytes.
   * @throws {TraceError} `limit` for too large a state or digest; `output`; `closed`.
   */
  checkpoint(state: Uint8Array, digest: Uint8Array): void {
    this.flush();
    const blocks = checkpointBlocks(state, digest, this.#chain.digest);
    for (const content of blocks) this.#block(content, BLOCK.checkpoint, 0, NO_TIME, NO_TIME);
  }

  /**
   * Writes a block of another trace as it is, after the events written so far. Only when the other
   * trace has another event table, its events are written one by one. A checkpoint is left out when
   * what was written so far is not what it was set behind.
   *
   * @param block An events or checkpoint block.
   * @param header Header of its trace; when left out, its event table is this code's own.
   * @throws {TraceError} `output` when the sink fails; `feature` when events would lose what this
   * trace's event table lacks; `damaged`; `closed`.
   */
  copy(block: RawBlock, header?: TraceHeader): void {
    if (block.head.type === BLOCK.checkpoint) {
      this.flush();
      const { before } = readCheckpointPart(blockContent(block), block.offset);
      if (!sameDigest(before, this.#chain.digest)) return;
    } else if (header !== undefined && this.#fit(header) === "anew") {
      for (const event of new EventBlock(block, header.plans).shared()) this.write(event);
      return;
    }
    this.flush();
    const head: BlockHead = {
      ...block.head,
      tag: this.#tag,
      sequence: this.#sequence,
      firstEvent: this.#events,
    };
    this.#put(head, joinBlock(head, block.stored));
  }

  /** How events of a trace fit into this one. */
  #fit(header: TraceHeader): Fit {
    const known = this.#fits.get(header);
    if (known !== undefined) return known;
    const fit = fitOf(header.plans, this.#plans);
    if (typeof fit === "object") {
      throw new TraceError(
        "feature",
        `Events of kind ${fit.lacks} have fields that the traces before did not declare: put traces ` +
          "of one version of vmtape together",
        { offset: 0 },
      );
    }
    this.#fits.set(header, fit);
    return fit;
  }

  /**
   * Writes what is left, the index and the trailer, and closes the sink. Does nothing the second
   * time.
   *
   * @throws {TraceError} `output` when the sink fails, now or before.
   */
  close(): void {
    if (this.#closed) return;
    if (this.#failure) this.#refuse();
    this.flush();
    const indexOffset = this.#bytes;
    const entries = this.#index.slice();
    const most = Math.floor(MAX_RAW / INDEX_ENTRY_SIZE);
    for (let i = 0; i < entries.length; i += most) {
      this.#block(writeIndex(entries.slice(i, i + most)), BLOCK.index, 0, NO_TIME, NO_TIME);
    }
    this.#send(
      writeTrailer({
        tag: this.#tag,
        indexOffset,
        blocks: entries.length,
        events: this.#events,
      }),
    );
    this.#closed = true;
    this.#guard(() => this.#sink.close?.());
  }

  /** Closes it. */
  [Symbol.dispose](): void {
    this.close();
  }

  #block(
    content: Uint8Array,
    type: number,
    events: number,
    firstTime: number,
    lastTime: number,
    cuts?: readonly number[],
  ): void {
    const head: NewBlock = {
      type,
      tag: this.#tag,
      sequence: this.#sequence,
      events,
      firstEvent: this.#events,
      firstTime,
      lastTime,
    };
    const bytes = sealBlock(head, content, cuts);
    this.#put(readBlockHead(bytes.subarray(0, BLOCK_HEADER_SIZE), this.#bytes), bytes);
  }

  #put(head: BlockHead, bytes: Uint8Array): void {
    const { tag: _, contentCrc: __, rawSize: ___, ...entry } = head;
    this.#chain.add(head);
    const offset = this.#bytes;
    this.#send(bytes);
    this.#index.push({ ...entry, offset });
    this.#sequence++;
    this.#events += head.events;
  }

  #send(bytes: Uint8Array): void {
    this.#guard(() => this.#sink.write(bytes));
    this.#bytes += bytes.length;
  }

  #guard(act: () => void): void {
    try {
      act();
    } catch (cause) {
      this.#disarm();
      this.#failure = cause instanceof TraceError ? cause : new TraceError(
        "output",
        `The trace cannot be written: ${cause instanceof Error ? cause.message : String(cause)}`,
        { cause, offset: this.#bytes },
      );
      throw this.#failure;
    }
  }

  #arm(): void {
    this.#due = performance.now() + this.#interval;
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      try {
        this.flush();
      } catch {
        // Kept, and thrown by the next call.
      }
    }, this.#interval);
  }

  #disarm(): void {
    this.#due = Infinity;
    if (this.#timer !== undefined) clearTimeout(this.#timer);
    this.#timer = undefined;
  }

  #refuse(): never {
    if (this.#failure) throw this.#failure;
    throw new TraceError("closed", "The trace is closed: no event can follow");
  }
}
