/**
 * Reading a trace from any place in it.
 *
 * @module
 */
import type { TraceEvent } from "../../engine/event.ts";
import {
  blockContent,
  type BlockHead,
  checkStored,
  type RawBlock,
  readBlockHead,
} from "./block.ts";
import { type IndexEntry, readIndex, readTrailer } from "./block_index.ts";
import {
  type Checkpoint,
  type CheckpointPart,
  joinCheckpoint,
  readCheckpointPart,
} from "./checkpoint.ts";
import { damaged, TraceError } from "../errors.ts";
import { EventBlock } from "./event_block.ts";
import { BLOCK, BLOCK_HEADER_SIZE, HEADER_SIZE, TRAILER_SIZE } from "./format.ts";
import { headerSize, readHeader, type TraceHeader } from "./header.ts";

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
  /** All blocks but the index, in order. */
  readonly index: readonly IndexEntry[];
  readonly #source: TraceSource;

  private constructor(
    source: TraceSource,
    header: TraceHeader,
    index: readonly IndexEntry[],
    finished: boolean,
  ) {
    this.#source = source;
    this.header = header;
    this.index = index;
    this.finished = finished;
  }

  /**
   * Opens a trace: reads its header and its index, or the block headers when it has none.
   *
   * @param source The trace.
   * @returns It.
   * @throws {TraceError} As {@linkcode headerSize}.
   */
  static async open(source: TraceSource): Promise<TraceFile> {
    const size = headerSize(await source.readAt(0, HEADER_SIZE));
    const header = readHeader(await source.readAt(0, size));
    const index = await readWholeIndex(source, header);
    return new TraceFile(
      source,
      header,
      index ?? await rebuildIndex(source, header),
      index !== undefined,
    );
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
   * @throws {TraceError} `damaged` or `feature`.
   */
  async *events(range: EventRange = {}): AsyncGenerator<TraceEvent, void, undefined> {
    for await (const block of this.blocks(range)) yield* block;
  }

  /**
   * The blocks that hold the events of a range; each gives only those within it.
   *
   * @param range Which.
   * @throws {TraceError} `damaged` or `feature`.
   */
  async *blocks(range: EventRange = {}): AsyncGenerator<EventBlock, void, undefined> {
    const from = range.from ?? 0;
    const to = range.to ?? Infinity;
    for (let i = this.#find(from); i < this.index.length; i++) {
      const entry = this.index[i]!;
      if (entry.firstEvent >= to) return;
      if (entry.type !== BLOCK.events || entry.firstEvent + entry.events <= from) continue;
      yield new EventBlock(await this.raw(entry), this.header.plans, from, to);
    }
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
    return joinCheckpoint(entry.firstEvent, parts, entry.offset);
  }

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
  try {
    let offset = trailer.indexOffset;
    while (offset < end) {
      const raw = await readRaw(source, header, offset);
      if (raw.head.type !== BLOCK.index) return undefined;
      for (const entry of readIndex(blockContent(raw), offset)) entries.push(entry);
      offset += BLOCK_HEADER_SIZE + raw.stored.length;
    }
  } catch (error) {
    if (error instanceof TraceError) return undefined;
    throw error;
  }
  let offset = header.size;
  let event = 0;
  let sequence = 0;
  for (const entry of entries) {
    if (
      entry.offset !== offset || entry.firstEvent !== event || entry.sequence !== sequence++
    ) return undefined;
    offset += BLOCK_HEADER_SIZE + entry.storedSize;
    event += entry.events;
  }
  const right = offset === trailer.indexOffset && entries.length === trailer.blocks &&
    event === trailer.events;
  return right ? entries : undefined;
}

/** The index as the block headers tell it, up to the first that is not right. */
async function rebuildIndex(source: TraceSource, header: TraceHeader): Promise<IndexEntry[]> {
  const entries: IndexEntry[] = [];
  let offset = header.size;
  let event = 0;
  while (offset + BLOCK_HEADER_SIZE <= source.size) {
    let head: BlockHead;
    try {
      head = readBlockHead(await source.readAt(offset, BLOCK_HEADER_SIZE), offset, header.tag);
    } catch (error) {
      if (error instanceof TraceError) break;
      throw error;
    }
    const next = offset + BLOCK_HEADER_SIZE + head.storedSize;
    if (
      next > source.size || head.sequence !== entries.length || head.firstEvent !== event ||
      head.type === BLOCK.index
    ) break;
    const { tag: _, contentCrc: __, rawSize: ___, ...entry } = head;
    entries.push({ ...entry, offset });
    event += head.events;
    offset = next;
  }
  return entries;
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
