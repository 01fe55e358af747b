/**
 * Reading a trace from its first byte to its last, in constant memory.
 *
 * @module
 */
import { Buffer } from "node:buffer";
import type { TraceEvent } from "../../engine/event.ts";
import { type BlockHead, checkStored, type RawBlock, readBlockHead } from "./block.ts";
import { readTrailer } from "./block_index.ts";
import { ByteQueue, type Chunks } from "./byte_queue.ts";
import { damaged, isDamage, TraceError } from "../errors.ts";
import { EventBlock } from "./event_block.ts";
import {
  BLOCK,
  BLOCK_HEADER_SIZE,
  BLOCK_MARK,
  HEADER_SIZE,
  TRAILER_MARK,
  TRAILER_SIZE,
} from "./format.ts";
import { headerSize, readHeader, type TraceHeader } from "./header.ts";

/** How a trace is read. */
export interface ReadOptions {
  /**
   * Called with each damage found; the reader then goes on with the next intact block. When left
   * out, damage is thrown.
   */
  readonly onDamage?: (error: TraceError) => void;
  /** Whether a trace without its end, as of a recorder at work, is as good as any. */
  readonly unfinished?: boolean;
}

const MARK = new Uint8Array(new Uint32Array([BLOCK_MARK]).buffer);
const SEARCH = 1 << 16;

/**
 * Opens a trace: reads and checks its header.
 *
 * @param chunks The trace's bytes.
 * @param options How to read it.
 * @returns The trace, to be stepped through once.
 * @throws {TraceError} As {@linkcode headerSize}.
 * @example
 * ```ts
 * import { readTrace, TraceWriter } from "@vmtape/vmtape/codecs";
 * const chunks: Uint8Array[] = [];
 * const writer = new TraceWriter({ write: (chunk) => chunks.push(chunk) }, { meta: { by: "me" } });
 * writer.close();
 * const trace = await readTrace(chunks);
 * if (trace.header.meta.by !== "me") throw new Error("Not as written");
 * ```
 */
export async function readTrace(chunks: Chunks, options: ReadOptions = {}): Promise<TraceStream> {
  const queue = new ByteQueue(chunks);
  try {
    const size = headerSize(await queue.peek(HEADER_SIZE));
    const header = readHeader(await queue.peek(size));
    queue.skip(size);
    return new TraceStream(header, queue, options);
  } catch (error) {
    await queue.close();
    throw error;
  }
}

/**
 * A trace that is read from its first byte to its last.
 *
 * @example
 * ```ts
 * import { readTrace, TraceWriter } from "@vmtape/vmtape/codecs";
 * const chunks: Uint8Array[] = [];
 * const writer = new TraceWriter({ write: (chunk) => chunks.push(chunk) });
 * writer.write({ kind: "case", vcpu: 0, name: "first" });
 * writer.close();
 * const trace = await readTrace(chunks);
 * const events = await Array.fromAsync(trace.events());
 * if (events.length !== 1 || events[0]?.kind !== "case" || !trace.finished) throw new Error();
 * ```
 */
export class TraceStream {
  /** What the trace says about itself. */
  readonly header: TraceHeader;
  readonly #queue: ByteQueue;
  readonly #options: ReadOptions;
  #finished = false;
  #written = 0;
  /** Where the trace is known to stop before its end; -1 while it is not. */
  #cutAt = -1;

  /**
   * Stands behind the header; use {@linkcode readTrace}.
   *
   * @param header The header.
   * @param queue What follows it.
   * @param options How to read.
   */
  constructor(header: TraceHeader, queue: ByteQueue, options: ReadOptions) {
    this.header = header;
    this.#queue = queue;
    this.#options = options;
  }

  /** Whether the trace's end was reached: it was closed by its writer. */
  get finished(): boolean {
    return this.#finished;
  }

  /**
   * How many events the trace is known to have had when it was written, up to where it was read:
   * headers of blocks say it, also of those whose content is damaged, and the trailer.
   */
  get written(): number {
    return this.#written;
  }

  /**
   * All events, each its own copy.
   *
   * @throws {TraceError} As {@linkcode TraceStream.blocks}.
   */
  async *events(): AsyncGenerator<TraceEvent, void, undefined> {
    for await (const block of this.blocks()) yield* block;
  }

  /**
   * The blocks of events. Within one, iteration needs no waiting.
   *
   * @throws {TraceError} `damaged`, `truncated`, `foreign`, `limit` or `feature`, unless
   * `onDamage` takes it.
   */
  async *blocks(): AsyncGenerator<EventBlock, void, undefined> {
    for await (const raw of this.raw()) {
      if (raw.head.type !== BLOCK.events) continue;
      let block: EventBlock;
      try {
        block = new EventBlock(raw, this.header.plans);
      } catch (error) {
        this.#report(error);
        continue;
      }
      yield block;
    }
  }

  /**
   * The blocks of all types, as they are in the file; their CRC-32 are right, and so is their order.
   *
   * @throws {TraceError} As {@linkcode TraceStream.blocks}.
   */
  async *raw(): AsyncGenerator<RawBlock, void, undefined> {
    const order = new BlockOrder();
    try {
      while (!this.#finished) {
        const raw = await this.#next();
        if (raw === undefined) break;
        if (raw === null) continue;
        const trouble = order.check(raw);
        if (trouble) {
          this.#report(trouble.error);
          if (trouble.late) continue;
        }
        yield raw;
      }
    } finally {
      await this.#queue.close();
    }
  }

  /** The next block; `null` when there was damage in its place, `undefined` at the end. */
  async #next(): Promise<RawBlock | null | undefined> {
    const queue = this.#queue;
    const offset = queue.offset;
    // No more than the trailer has: of a growing file, nothing may ever follow it.
    const first = await queue.peek(TRAILER_SIZE);
    if (first.length >= 4 && mark(first) === TRAILER_MARK) return this.#end(first, offset);
    const head = await queue.peek(BLOCK_HEADER_SIZE);
    if (head.length < BLOCK_HEADER_SIZE) return this.#cut(offset, head.length);
    let block: BlockHead;
    try {
      block = readBlockHead(head, offset, this.header.tag);
    } catch (error) {
      this.#report(error);
      await this.#search();
      return null;
    }
    this.#written = Math.max(this.#written, block.firstEvent + block.events);
    const size = BLOCK_HEADER_SIZE + block.storedSize;
    const bytes = await queue.peek(size);
    if (bytes.length < size) {
      // A block begins within what should be this one: only this one is damaged.
      const cut = this.#cut(offset, bytes.length);
      if (this.#options.onDamage) {
        await this.#search();
        return null;
      }
      return cut;
    }
    const stored = bytes.slice(BLOCK_HEADER_SIZE);
    try {
      checkStored(block, stored, offset);
    } catch (error) {
      this.#report(error);
      // The size may be what is wrong in spirit: a spliced file goes on within.
      await this.#search();
      return null;
    }
    queue.skip(size);
    return { head: block, stored, offset };
  }

  async #end(bytes: Uint8Array, offset: number): Promise<null | undefined> {
    if (bytes.length < TRAILER_SIZE) return this.#cut(offset, bytes.length);
    const trailer = readTrailer(bytes, this.header.tag);
    if (trailer === undefined) {
      this.#report(damaged(offset, "The trailer does not match its CRC-32 or its trace"));
      this.#queue.skip(4);
      return null;
    }
    this.#queue.skip(TRAILER_SIZE);
    this.#written = Math.max(this.#written, trailer.events);
    this.#finished = true;
    if (!this.#options.unfinished && (await this.#queue.peek(1)).length > 0) {
      this.#report(damaged(offset + TRAILER_SIZE, "Bytes follow the end of the trace"));
    }
    return undefined;
  }

  #cut(offset: number, left: number): undefined {
    // The search within a block that was cut off comes to the same end once more.
    if (this.#options.unfinished || this.#cutAt === offset + left) return undefined;
    this.#cutAt = offset + left;
    const tail = left === 0 ? "after a whole block" : `${left} bytes into a block or the trailer`;
    this.#report(
      new TraceError(
        "truncated",
        `The trace stops before its end, ${tail} (offset ${
          offset + left
        }); \`vmtape recover\` writes a whole one`,
        { offset: offset + left },
      ),
    );
    return undefined;
  }

  /** Goes on to the next header of a block of this trace, or to the end. */
  async #search(): Promise<void> {
    const queue = this.#queue;
    queue.skip(1);
    for (;;) {
      const bytes = await queue.peek(SEARCH);
      const at = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).indexOf(MARK);
      if (at < 0) {
        // The last bytes may begin a mark, or be the trailer.
        if (bytes.length < SEARCH) return this.#trailing(bytes);
        queue.skip(bytes.length - TRAILER_SIZE);
        continue;
      }
      queue.skip(at);
      const head = await queue.peek(BLOCK_HEADER_SIZE);
      if (head.length < BLOCK_HEADER_SIZE) return this.#trailing(head);
      try {
        readBlockHead(head, queue.offset, this.header.tag);
        return;
      } catch {
        queue.skip(1);
      }
    }
  }

  /** Goes to the trailer, if the last bytes hold it. */
  #trailing(bytes: Uint8Array): void {
    const at = bytes.length - TRAILER_SIZE;
    const whole = at >= 0 && readTrailer(bytes.subarray(at), this.header.tag) !== undefined;
    this.#queue.skip(whole ? at : bytes.length);
  }

  #report(error: unknown): void {
    if (!isDamage(error) || !this.#options.onDamage) throw error;
    this.#options.onDamage(error);
  }
}

/** Checks that blocks come in the order they were written in, each once. */
export class BlockOrder {
  #sequence = 0;
  #event = 0;

  /**
   * Looks at the next block.
   *
   * @param raw The block.
   * @returns What is wrong, and whether the block comes too late to be given; undefined when all
   * is well.
   */
  check(raw: RawBlock): { readonly error: TraceError; readonly late: boolean } | undefined {
    const { sequence, firstEvent, events } = raw.head;
    const expected = this.#sequence;
    const late = sequence < expected || firstEvent < this.#event ||
      (sequence === expected && firstEvent !== this.#event);
    if (late) {
      return {
        error: damaged(
          raw.offset,
          `Block ${sequence} is out of order, repeated or not of this place`,
        ),
        late,
      };
    }
    const lost = firstEvent - this.#event;
    this.#sequence = sequence + 1;
    this.#event = firstEvent + events;
    if (sequence === expected) return undefined;
    const which = sequence - expected === 1
      ? `Block ${expected} is`
      : `Blocks ${expected} to ${sequence - 1} are`;
    return {
      error: damaged(raw.offset, `${which} missing here, with ${lost} events`),
      late,
    };
  }
}

function mark(bytes: Uint8Array): number {
  return new DataView(bytes.buffer, bytes.byteOffset, 4).getUint32(0, true);
}
