/**
 * Reading a trace from any place in it.
 *
 * @module
 */
import type { TraceEvent } from "../../engine/event.ts";
import { blockContent, checkStored, type RawBlock, readBlockHead } from "./block.ts";
import { type IndexEntry, readIndex, readTrailer } from "./block_index.ts";
import {
  type Checkpoint,
  type CheckpointPart,
  joinCheckpoint,
  readCheckpointPart,
} from "./checkpoint.ts";
import { BlockChain } from "./chain.ts";
import { damaged, isDamage, type TraceError } from "../errors.ts";
import { EventBlock } from "./event_block.ts";
import { BLOCK, BLOCK_HEADER_SIZE, HEADER_SIZE, TRAILER_SIZE } from "./format.ts";
import { headerSize, readHeader, type TraceHeader } from "./header.ts";
import { readTrace } from "./reader.ts";

const CHUNK = 1 << 18;

/** Bytes that can be read from any place. */
export interface TraceSource {
  /** How many there are. */
  readonly size: number;
  /**
   * Reads some.
   *
   * @param offset The first.
   * @param length How many; fewer come at the end only.
   */
  readAt(offset: number, length: number): Uint8Array | Promise<Uint8Array>;
}

/** Which events are wanted, by number, counted from 0 over the trace. */
export interface EventRange {
  /** The first; 0 when left out. */
  readonly from?: number | undefined;
  /** The first not wanted; all when left out. */
  readonly to?: number | undefined;
}

/**
 * A source over bytes in memory.
 *
 * @param bytes The trace.
 * @returns The source.
 * @example
 * ```ts
 * import { memorySource } from "@vmtape/vmtape/codecs";
 * const source = memorySource(new Uint8Array([1, 2, 3]));
 * if ((await source.readAt(1, 9)).length !== 2) throw new Error("Not as told");
 * ```
 */
export function memorySource(bytes: Uint8Array): TraceSource {
  return {
    size: bytes.length,
    readAt: (offset, length) => bytes.subarray(offset, offset + length),
  };
}

/**
 * A trace with an index, which makes every event reachable without reading the rest.
 *
 * @example
 * ```ts
 * import { memorySource, TraceFile, TraceWriter } from "@vmtape/vmtape/codecs";
 * const chunks: Uint8Array[] = [];
 * const writer = new TraceWriter({ write: (chunk) => chunks.push(chunk) });
 * for (let time = 0; time < 1000; time++) writer.write({ kind: "switch", vcpu: 0, time, to: 1 });
 * writer.close();
 * const bytes = new Uint8Array(await new Blob(chunks as BlobPart[]).arrayBuffer());
 * const trace = await TraceFile.open(memorySource(bytes));
 * for await (const event of trace.events({ from: 900, to: 901 })) {
 *   if (event.time !== 900) throw new Error("Not as asked");
 * }
 * ```
 */
export class TraceFile {
  /** What the trace says about itself. */
  readonly header: TraceHeader;
  /** Whether its writer closed it; the index was rebuilt otherwise. */
  readonly finished: boolean;
  /** All intact blocks but the index, in order. */
  readonly index: readonly IndexEntry[];
  /** Damage that was met while the index was rebuilt, in order of place. */
  readonly gaps: readonly Gap[];
  readonly #source: TraceSource;

  private constructor(source: TraceSource, header: TraceHeader, found: FoundIndex) {
    this.#source = source;
    this.header = header;
    this.index = found.entries;
    this.gaps = found.gaps;
    this.finished = found.gaps.length === 0;
  }

  /**
   * Opens a trace: reads its header and its index, or all of its blocks when it has none that is
   * right.
   *
   * @param source The trace.
   * @returns It.
   * @throws {TraceError} As {@linkcode headerSize}.
   */
  static async open(source: TraceSource): Promise<TraceFile> {
    const size = headerSize(await source.readAt(0, HEADER_SIZE));
    const header = readHeader(await source.readAt(0, size));
    const entries = await readWholeIndex(source, header);
    const found = entries === undefined
      ? await rebuildIndex(source, header)
      : { entries, gaps: [] };
    return new TraceFile(source, header, found);
  }

  /** Number of events in it. */
  get eventCount(): number {
    const last = this.index.at(-1);
    return last ? last.firstEvent + last.events : 0;
  }

  /**
   * Events of a range, each its own copy.
   *
   * @param range Which.
   * @throws {TraceError} As {@linkcode TraceFile.blocks}.
   */
  async *events(range: EventRange = {}): AsyncGenerator<TraceEvent, void, undefined> {
    for await (const block of this.blocks(range)) yield* block;
  }

  /**
   * The blocks that hold the events of a range; each gives only those within it. Events are never
   * left out without a word: where some of the range may be missing, that is thrown in their place.
   *
   * @param range Which.
   * @throws {TraceError} `damaged`, `truncated` or `feature`.
   */
  async *blocks(range: EventRange = {}): AsyncGenerator<EventBlock, void, undefined> {
    const from = range.from ?? 0;
    const to = range.to ?? Infinity;
    let next = from;
    for (let i = this.#find(from); i < this.index.length; i++) {
      const entry = this.index[i]!;
      if (entry.firstEvent >= to) break;
      const end = entry.firstEvent + entry.events;
      if (entry.type !== BLOCK.events || end <= from) continue;
      this.requireEvents(next, entry.firstEvent);
      yield new EventBlock(await this.raw(entry), this.header.plans, from, to);
      next = end;
    }
    this.requireEvents(next, to);
  }

  /**
   * Throws what is wrong where events of a range are known not to be in the index.
   *
   * @param from The first of them.
   * @param to The first behind them.
   * @throws {TraceError} The damage, unless the range is empty or the trace ends there.
   */
  requireEvents(from: number, to: number): void {
    if (from >= to) return;
    const gap = this.gaps.find(({ event }) => event >= from && event < to) ?? this.gaps.at(-1);
    if (gap !== undefined) throw gap.error;
  }

  /**
   * Throws damage anywhere between the events of the trace, for those who have read only some of it.
   * What a recorder has yet to write is none.
   *
   * @throws {TraceError} The first damage.
   */
  requireIntact(): void {
    const gap = this.gaps.find(({ event }) => event < this.eventCount);
    if (gap !== undefined) throw gap.error;
  }

  /** Numbers of the events that checkpoints stand before, in order. */
  get checkpoints(): readonly number[] {
    return this.#checkpoints ??= [
      ...new Set(
        this.index.flatMap(({ type, firstEvent }) => type === BLOCK.checkpoint ? [firstEvent] : []),
      ),
    ];
  }
  #checkpoints: readonly number[] | undefined;

  /**
   * The last checkpoint at or before an event.
   *
   * @param event Number of the event that a replay has to reach.
   * @returns The checkpoint; undefined when there is none.
   * @throws {TraceError} `damaged` when it is not whole.
   */
  async checkpoint(event: number): Promise<Checkpoint | undefined> {
    const last = this.index.findLastIndex((entry) =>
      entry.type === BLOCK.checkpoint && entry.firstEvent <= event
    );
    if (last < 0) return undefined;
    const parts: CheckpointPart[] = [];
    let i = last;
    for (; i >= 0 && this.index[i]!.type === BLOCK.checkpoint; i--) {
      const raw = await this.raw(this.index[i]!);
      const part = readCheckpointPart(blockContent(raw), raw.offset);
      parts.unshift(part);
      if (part.part === 0) break;
    }
    const entry = this.index[last]!;
    return joinCheckpoint(entry.firstEvent, parts, entry.offset, await this.#before(last));
  }

  /**
   * Digest of the content of all its events blocks, as their headers tell it.
   *
   * @returns 16 bytes, the same for copies of the trace and for no other.
   * @throws {TraceError} `damaged` when a header cannot be read.
   */
  async digest(): Promise<Uint8Array> {
    return await this.#before(this.index.length);
  }

  /** Digest of the events blocks before an entry of the index. */
  async #before(entry: number): Promise<Uint8Array> {
    if (entry < this.#chained) {
      this.#chain = new BlockChain();
      this.#chained = 0;
    }
    for (; this.#chained < entry; this.#chained++) {
      const { type, offset } = this.index[this.#chained]!;
      if (type !== BLOCK.events) continue;
      const bytes = await this.#source.readAt(offset, BLOCK_HEADER_SIZE);
      if (bytes.length < BLOCK_HEADER_SIZE) throw damaged(offset, "The index leads beyond the end");
      this.#chain.add(readBlockHead(bytes, offset, this.header.tag));
    }
    return this.#chain.digest;
  }
  #chain = new BlockChain();
  #chained = 0;

  /**
   * A block as it is in the file.
   *
   * @param entry Its entry in the index.
   * @returns The block; its CRC-32 is right.
   * @throws {TraceError} `damaged` when it is not what the index says.
   */
  async raw(entry: IndexEntry): Promise<RawBlock> {
    const size = BLOCK_HEADER_SIZE + entry.storedSize;
    const bytes = await this.#source.readAt(entry.offset, size);
    if (bytes.length < size) throw damaged(entry.offset, "The index leads beyond the end");
    const head = readBlockHead(
      bytes.subarray(0, BLOCK_HEADER_SIZE),
      entry.offset,
      this.header.tag,
    );
    if (
      head.sequence !== entry.sequence || head.firstEvent !== entry.firstEvent ||
      head.events !== entry.events || head.storedSize !== entry.storedSize ||
      head.type !== entry.type
    ) {
      throw damaged(entry.offset, `Block ${head.sequence} is not what the index says`);
    }
    const stored = bytes.subarray(BLOCK_HEADER_SIZE);
    checkStored(head, stored, entry.offset);
    return { head, stored, offset: entry.offset };
  }

  /** Index of the last block that begins at or before an event. */
  #find(event: number): number {
    let low = 0;
    let high = this.index.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.index[middle]!.firstEvent <= event) low = middle + 1;
      else high = middle;
    }
    // Empty blocks, such as checkpoints, may share the first event of the one wanted.
    while (low > 0 && this.index[low - 1]!.events === 0) low--;
    return Math.max(0, low - 1);
  }
}

/** The index, when the trace has one that is right. */
async function readWholeIndex(
  source: TraceSource,
  header: TraceHeader,
): Promise<IndexEntry[] | undefined> {
  if (source.size < header.size + TRAILER_SIZE) return undefined;
  const end = source.size - TRAILER_SIZE;
  const trailer = readTrailer(await source.readAt(end, TRAILER_SIZE), header.tag);
  if (!trailer || trailer.indexOffset < header.size) return undefined;
  const entries: IndexEntry[] = [];
  let at = header.size;
  let event = 0;
  try {
    let offset = trailer.indexOffset;
    while (offset < end) {
      const raw = await readRaw(source, header, offset);
      if (raw.head.type !== BLOCK.index) return undefined;
      // What an index declares is not believed before it fits: it takes little room when compressed.
      for (const entry of readIndex(blockContent(raw), offset)) {
        if (
          entry.offset !== at || entry.firstEvent !== event || entry.sequence !== entries.length
        ) return undefined;
        at += BLOCK_HEADER_SIZE + entry.storedSize;
        event += entry.events;
        entries.push(entry);
      }
      offset += BLOCK_HEADER_SIZE + raw.stored.length;
    }
  } catch (error) {
    if (isDamage(error)) return undefined;
    throw error;
  }
  const right = at === trailer.indexOffset && entries.length === trailer.blocks &&
    event === trailer.events;
  return right ? entries : undefined;
}

/** A place where a trace is not as it was written. */
export interface Gap {
  /** Number of the first event that may be missing there. */
  readonly event: number;
  /** What is wrong. */
  readonly error: TraceError;
}

/** An index, and what was met on the way to it. */
interface FoundIndex {
  readonly entries: readonly IndexEntry[];
  readonly gaps: readonly Gap[];
}

/** Most places of damage that are kept. */
const MOST_GAPS = 10_000;

/** The index of the blocks that are intact: one that is damaged costs that one. */
async function rebuildIndex(source: TraceSource, header: TraceHeader): Promise<FoundIndex> {
  const entries: IndexEntry[] = [];
  const gaps: Gap[] = [];
  let event = 0;
  const note = (error: TraceError) => {
    if (gaps.length < MOST_GAPS || error.code === "truncated") gaps.push({ event, error });
  };
  const stream = await readTrace(chunksOf(source), { onDamage: note });
  for await (const { head, offset } of stream.raw()) {
    event = head.firstEvent + head.events;
    if (head.type === BLOCK.index) continue;
    const { tag: _, contentCrc: __, rawSize: ___, ...entry } = head;
    entries.push({ ...entry, offset });
  }
  if (stream.written > event) note(damaged(source.size, "The last events are missing"));
  if (gaps.length === 0) note(damaged(header.size, "The index is not that of the blocks"));
  return { entries, gaps };
}

async function* chunksOf(source: TraceSource): AsyncGenerator<Uint8Array> {
  for (let offset = 0; offset < source.size;) {
    const chunk = await source.readAt(offset, CHUNK);
    if (chunk.length === 0) return;
    yield chunk;
    offset += chunk.length;
  }
}

async function readRaw(
  source: TraceSource,
  header: TraceHeader,
  offset: number,
): Promise<RawBlock> {
  const bytes = await source.readAt(offset, BLOCK_HEADER_SIZE);
  if (bytes.length < BLOCK_HEADER_SIZE) throw damaged(offset, "A block is cut off");
  const head = readBlockHead(bytes, offset, header.tag);
  const stored = await source.readAt(offset + BLOCK_HEADER_SIZE, head.storedSize);
  if (stored.length < head.storedSize) throw damaged(offset, "A block is cut off");
  checkStored(head, stored, offset);
  return { head, stored, offset };
}
