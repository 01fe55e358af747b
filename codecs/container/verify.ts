/**
 * What of a trace is intact, and making a whole trace of it.
 *
 * @module
 */
import { Buffer } from "node:buffer";
import {
  blockContent,
  type BlockHead,
  checkStored,
  type RawBlock,
  readBlockHead,
} from "./block.ts";
import { readTrailer } from "./block_index.ts";
import type { Chunks } from "./byte_queue.ts";
import { readCheckpointPart } from "./checkpoint.ts";
import { isDamage, TraceError } from "../errors.ts";
import { EventBlock } from "./event_block.ts";
import { BLOCK, BLOCK_HEADER_SIZE, BLOCK_MARK, HEADER_SIZE, TRAILER_SIZE } from "./format.ts";
import { headerSize, readHeader, type TraceHeader } from "./header.ts";
import type { Meta } from "./msgpack.ts";
import { BlockOrder, readTrace } from "./reader.ts";
import { OWN_PLANS } from "./schema.ts";
import type { TraceSource } from "./trace_file.ts";
import type { TraceWriter } from "./writer.ts";

/** What {@linkcode verifyTrace} found. */
export interface Verification {
  /** What the trace says about itself. */
  readonly header: TraceHeader;
  /** Whether nothing is wrong. */
  readonly intact: boolean;
  /** Whether its writer closed it. */
  readonly finished: boolean;
  /** Number of intact blocks of events. */
  readonly blocks: number;
  /** Number of events in them. */
  readonly events: number;
  /** Number of events known to be lost. */
  readonly lost: number;
  /** What is wrong, in order of place; no more than 1,000 are kept. */
  readonly problems: readonly TraceError[];
}

const MOST_PROBLEMS = 1000;

/**
 * Reads all of a trace and decodes every event of it.
 *
 * @param chunks The trace.
 * @returns What is intact and what is not.
 * @throws {TraceError} When the header cannot be read: then it is not known what the rest is.
 * @example
 * ```ts
 * import { TraceWriter, verifyTrace } from "@vmtape/vmtape/codecs";
 * const chunks: Uint8Array[] = [];
 * const writer = new TraceWriter({ write: (chunk) => void chunks.push(chunk) });
 * writer.write({ kind: "warn", vcpu: 0, text: "!pfn" });
 * writer.close();
 * const whole = await verifyTrace(chunks);
 * if (!whole.intact || whole.events !== 1) throw new Error("Not intact");
 * const cut = await verifyTrace(chunks.slice(0, -1));
 * if (cut.problems[0]?.code !== "truncated" || cut.events !== 1) throw new Error("Not noticed");
 * ```
 */
export async function verifyTrace(chunks: Chunks): Promise<Verification> {
  const problems: TraceError[] = [];
  const note = (error: TraceError) => {
    if (problems.length < MOST_PROBLEMS) problems.push(error);
  };
  const trace = await readTrace(chunks, { onDamage: note });
  let [blocks, events] = [0, 0];
  for await (const raw of trace.raw()) {
    const trouble = contentTrouble(raw, trace.header);
    if (trouble) note(trouble);
    else if (raw.head.type === BLOCK.events) {
      blocks++;
      events += raw.head.events;
    }
  }
  return {
    header: trace.header,
    intact: problems.length === 0,
    finished: trace.finished,
    blocks,
    events,
    lost: Math.max(0, trace.written - events),
    problems,
  };
}

/** What {@linkcode recoverTrace} did. */
export interface Recovery {
  /** Number of events in the new trace that the old one held. */
  readonly events: number;
  /** Number of events known to be lost; `lost` events stand in their places. */
  readonly lost: number;
  /** Number of bytes of the old trace that belong to nothing intact. */
  readonly skipped: number;
}

/**
 * Writes a whole trace with everything that is intact in another, in its order, each block once. A
 * `lost` event stands where events are known to be missing, at the end, too.
 *
 * @param source The damaged trace.
 * @param open Opens the new trace; called once, with the metadata and the header of the old one or,
 * when that is damaged, with none.
 * @returns What was saved.
 * @throws {TraceError} `empty`, `foreign`, `version` or `feature` when the old one is no such trace;
 * whatever the new one's sink throws.
 * @example
 * ```ts
 * import { memorySource, recoverTrace, TraceWriter } from "@vmtape/vmtape/codecs";
 * const chunks: Uint8Array[] = [];
 * const writer = new TraceWriter({ write: (chunk) => void chunks.push(chunk) });
 * writer.write({ kind: "warn", vcpu: 0, text: "!pfn" });
 * writer.flush();
 * // The recorder dies here.
 * const left = new Uint8Array(await new Blob(chunks as BlobPart[]).arrayBuffer());
 * const { events } = await recoverTrace(memorySource(left), (meta, like) => {
 *   return new TraceWriter({ write: () => {} }, { meta, like });
 * });
 * if (events !== 1) throw new Error("Not recovered");
 * writer.close();
 * ```
 */
export async function recoverTrace(
  source: TraceSource,
  open: (meta: Meta, like: TraceHeader | undefined) => TraceWriter,
): Promise<Recovery> {
  const header = await headerOf(source);
  const { blocks, written, trailer } = await findBlocks(source, header?.tag);
  const writer = open(header?.meta ?? {}, header);
  const order = new BlockOrder();
  let [events, lost, next, used] = [0, 0, 0, (header?.size ?? 0) + trailer];
  const missing = (end: number) => {
    if (end <= next) return;
    writer.write({ kind: "lost", vcpu: 0, count: BigInt(end - next) });
    lost += end - next;
    next = end;
  };
  for (const { offset } of blocks) {
    const raw = await readBlock(source, offset);
    used += BLOCK_HEADER_SIZE + raw.stored.length;
    if (raw.head.type !== BLOCK.events && raw.head.type !== BLOCK.checkpoint) continue;
    if (order.check(raw)?.late || contentTrouble(raw, header)) continue;
    missing(raw.head.firstEvent);
    writer.copy(raw, header);
    events += raw.head.events;
    next = raw.head.firstEvent + raw.head.events;
  }
  missing(written);
  writer.close();
  return { events, lost, skipped: Math.max(0, source.size - used) };
}

/** The header; undefined when it is damaged but the trace is one. */
async function headerOf(source: TraceSource): Promise<TraceHeader | undefined> {
  try {
    const size = headerSize(await source.readAt(0, HEADER_SIZE));
    return readHeader(await source.readAt(0, size));
  } catch (error) {
    const hopeless = ["empty", "foreign", "version", "feature"];
    if (!isDamage(error) || hopeless.includes(error.code)) throw error;
    return undefined;
  }
}

interface Found {
  readonly offset: number;
  readonly sequence: number;
  readonly tag: number;
}

/** What a search through a whole file came to. */
interface Search {
  /** All blocks with right CRC-32, in the order they were written in. */
  readonly blocks: readonly Found[];
  /** How many events there were when the trace was written, as far as headers and trailer tell. */
  readonly written: number;
  /** Size of the trailer, where it is there. */
  readonly trailer: number;
}

/** Looks for blocks at every byte. */
async function findBlocks(source: TraceSource, tag: number | undefined): Promise<Search> {
  const mark = new Uint8Array(new Uint32Array([BLOCK_MARK]).buffer);
  const found: Found[] = [];
  const ends = new Map<number, number>();
  let offset = 0;
  while (offset + BLOCK_HEADER_SIZE <= source.size) {
    const bytes = await source.readAt(offset, 1 << 16);
    const at = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).indexOf(mark);
    if (at < 0) {
      offset += Math.max(1, bytes.length - mark.length + 1);
      continue;
    }
    offset += at;
    const note = (head: BlockHead) =>
      ends.set(head.tag, Math.max(ends.get(head.tag) ?? 0, head.firstEvent + head.events));
    try {
      const { head, stored } = await readBlock(source, offset, note);
      if (tag === undefined || head.tag === tag) {
        found.push({ offset, sequence: head.sequence, tag: head.tag });
      }
      offset += BLOCK_HEADER_SIZE + stored.length;
    } catch (error) {
      if (!isDamage(error)) throw error;
      offset++;
    }
  }
  const wanted = tag ?? mostFrequent(found.map((block) => block.tag));
  const end = wanted === undefined || source.size < TRAILER_SIZE
    ? undefined
    : readTrailer(await source.readAt(source.size - TRAILER_SIZE, TRAILER_SIZE), wanted);
  return {
    blocks: found.filter((block) => block.tag === wanted)
      .sort((a, b) => a.sequence - b.sequence || a.offset - b.offset),
    written: Math.max(ends.get(wanted ?? -1) ?? 0, end?.events ?? 0),
    trailer: end === undefined ? 0 : TRAILER_SIZE,
  };
}

async function readBlock(
  source: TraceSource,
  offset: number,
  note?: (head: BlockHead) => void,
): Promise<RawBlock> {
  const bytes = await source.readAt(offset, BLOCK_HEADER_SIZE);
  if (bytes.length < BLOCK_HEADER_SIZE) throw cut(offset);
  const head = readBlockHead(bytes, offset);
  note?.(head);
  const stored = await source.readAt(offset + BLOCK_HEADER_SIZE, head.storedSize);
  if (stored.length < head.storedSize) throw cut(offset);
  checkStored(head, stored, offset);
  return { head, stored, offset };
}

function cut(offset: number): TraceError {
  return new TraceError("truncated", `A block is cut off (offset ${offset})`, { offset });
}

function mostFrequent(values: readonly number[]): number | undefined {
  const counts = new Map<number, number>();
  for (const value of values) counts.set(value, (counts.get(value) ?? 0) + 1);
  return [...counts].sort((a, b) => b[1] - a[1])[0]?.[0];
}

/** What keeps a block's content from being used, if anything. */
function contentTrouble(raw: RawBlock, header: TraceHeader | undefined): TraceError | undefined {
  try {
    if (raw.head.type === BLOCK.checkpoint) readCheckpointPart(blockContent(raw), raw.offset);
    if (raw.head.type === BLOCK.events) {
      const decoder = new EventBlock(raw, header?.plans ?? OWN_PLANS).decoder();
      while (decoder.next() !== undefined);
    }
    return undefined;
  } catch (error) {
    if (isDamage(error)) return error;
    throw error;
  }
}
