/**
 * Blocks: headers, compression and checksums.
 *
 * @module
 */
import { constants, crc32, zstdCompressSync, zstdDecompressSync } from "node:zlib";
import { damaged, TraceError } from "../errors.ts";
import {
  AT,
  BLOCK,
  BLOCK_HEADER_SIZE,
  BLOCK_MARK,
  MAX_EVENTS,
  MAX_RAW,
  MAX_SEGMENTS,
  MAX_STORED,
  NO_TIME,
  SEGMENT,
  SEGMENT_SIZE,
} from "./format.ts";

/** What a block's header says. */
export interface BlockHead {
  /** Block type; see {@linkcode BLOCK}. */
  readonly type: number;
  /** CRC-32 of the trace's id. */
  readonly tag: number;
  /** Number of the block in the file, from 0. */
  readonly sequence: number;
  /** Size of the content in bytes. */
  readonly rawSize: number;
  /** Size of the content as stored, in bytes. */
  readonly storedSize: number;
  /** Number of events in it. */
  readonly events: number;
  /** CRC-32 of the content as stored. */
  readonly contentCrc: number;
  /** Number of events in the trace before it. */
  readonly firstEvent: number;
  /** First time in it, or -1. */
  readonly firstTime: number;
  /** Last time in it, or -1. */
  readonly lastTime: number;
}

/** A block as it is in the file. */
export interface RawBlock {
  /** What its header says. */
  readonly head: BlockHead;
  /** Its content as stored; its CRC-32 is right. */
  readonly stored: Uint8Array;
  /** Where its header is, in bytes from the start of the trace. */
  readonly offset: number;
}

/** Head of a block to be written, without what follows from its content. */
export type NewBlock = Pick<
  BlockHead,
  "type" | "tag" | "sequence" | "events" | "firstEvent" | "firstTime" | "lastTime"
>;

const LEVEL_1 = { params: { [constants.ZSTD_c_compressionLevel]: 1 } };

/**
 * Compresses a content into a block.
 *
 * @param head What is known of it.
 * @param content The content, up to 1 MiB.
 * @param cuts Ends of the parts that are compressed each on their own, in order.
 * @returns Header and stored content.
 */
export function sealBlock(
  head: NewBlock,
  content: Uint8Array,
  cuts: readonly number[] = [content.length],
): Uint8Array {
  const segments: { raw: number; stored: Uint8Array }[] = [];
  let from = 0;
  let size = 0;
  for (const cut of cuts) {
    const part = content.subarray(from, cut);
    const zstd = zstdCompressSync(part, LEVEL_1);
    const stored = zstd.length < part.length ? zstd : part;
    segments.push({ raw: part.length, stored });
    size += SEGMENT_SIZE + stored.length;
    from = cut;
  }
  const stored = new Uint8Array(size);
  const view = new DataView(stored.buffer);
  let at = 0;
  for (const segment of segments) {
    view.setUint32(at + SEGMENT.raw_size, segment.raw, true);
    view.setUint32(at + SEGMENT.stored_size, segment.stored.length, true);
    stored.set(segment.stored, at + SEGMENT_SIZE);
    at += SEGMENT_SIZE + segment.stored.length;
  }
  return joinBlock({
    ...head,
    rawSize: content.length,
    storedSize: size,
    contentCrc: crc32(stored),
  }, stored);
}

/**
 * Header and stored content of a block, as one piece.
 *
 * @param head The header.
 * @param stored The content as stored.
 * @returns The bytes.
 */
export function joinBlock(head: BlockHead, stored: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(BLOCK_HEADER_SIZE + stored.length);
  const view = new DataView(bytes.buffer);
  view.setUint32(AT.mark, BLOCK_MARK, true);
  view.setUint8(AT.type, head.type);
  view.setUint32(AT.tag, head.tag, true);
  view.setUint32(AT.sequence, head.sequence, true);
  view.setUint32(AT.raw_size, head.rawSize, true);
  view.setUint32(AT.stored_size, head.storedSize, true);
  view.setUint32(AT.events, head.events, true);
  view.setUint32(AT.content_crc, head.contentCrc, true);
  view.setBigInt64(AT.first_event, BigInt(head.firstEvent), true);
  view.setBigInt64(AT.first_time, BigInt(head.firstTime), true);
  view.setBigInt64(AT.last_time, BigInt(head.lastTime), true);
  view.setUint32(AT.crc, crc32(bytes.subarray(0, AT.crc)), true);
  bytes.set(stored, BLOCK_HEADER_SIZE);
  return bytes;
}

/**
 * Decodes a block's header.
 *
 * @param bytes The 64 bytes.
 * @param offset Where they are, for messages.
 * @param tag CRC-32 of the trace's id; any when left out.
 * @returns What it says, within the limits of the format.
 * @throws {TraceError} `damaged`, `foreign` or `limit`.
 */
export function readBlockHead(bytes: Uint8Array, offset: number, tag?: number): BlockHead {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (view.getUint32(AT.mark, true) !== BLOCK_MARK) throw damaged(offset, "No block begins here");
  if (view.getUint32(AT.crc, true) !== crc32(bytes.subarray(0, AT.crc))) {
    throw damaged(offset, "A block's header does not match its CRC-32");
  }
  const head: BlockHead = {
    type: view.getUint8(AT.type),
    tag: view.getUint32(AT.tag, true),
    sequence: view.getUint32(AT.sequence, true),
    rawSize: view.getUint32(AT.raw_size, true),
    storedSize: view.getUint32(AT.stored_size, true),
    events: view.getUint32(AT.events, true),
    contentCrc: view.getUint32(AT.content_crc, true),
    firstEvent: number(view, AT.first_event, offset),
    firstTime: number(view, AT.first_time, offset),
    lastTime: number(view, AT.last_time, offset),
  };
  if (tag !== undefined && head.tag !== tag) {
    throw new TraceError("foreign", `A block belongs to another trace (offset ${offset})`, {
      offset,
    });
  }
  if (head.firstEvent < 0) throw damaged(offset, "A block's header has a negative event number");
  const over = head.rawSize > MAX_RAW
    ? `${head.rawSize} bytes of content, at most ${MAX_RAW}`
    : head.storedSize > MAX_STORED
    ? `${head.storedSize} stored bytes, at most ${MAX_STORED}`
    : head.events > MAX_EVENTS
    ? `${head.events} events, at most ${MAX_EVENTS}`
    : undefined;
  if (over) {
    throw new TraceError("limit", `A block declares ${over} are allowed (offset ${offset})`, {
      offset,
    });
  }
  return head;
}

/**
 * Checks the stored content of a block.
 *
 * @param head Its header.
 * @param stored Its content as stored.
 * @param offset Where its header is, for messages.
 * @throws {TraceError} `damaged` when the CRC-32 differs.
 */
export function checkStored(head: BlockHead, stored: Uint8Array, offset: number): void {
  if (crc32(stored) !== head.contentCrc) {
    throw damaged(offset, `Block ${head.sequence} does not match its CRC-32`);
  }
}

/**
 * The content of a block.
 *
 * @param block The block, its CRC-32 checked.
 * @returns The content, exactly as large as the header declares.
 * @throws {TraceError} `damaged`.
 */
export function blockContent(block: RawBlock): Uint8Array {
  const { head, stored, offset } = block;
  const bad = (what: string) => damaged(offset, `Block ${head.sequence} ${what}`);
  const content = new Uint8Array(head.rawSize);
  const view = new DataView(stored.buffer, stored.byteOffset, stored.byteLength);
  let at = 0;
  let done = 0;
  for (let count = 1; at < stored.length; count++) {
    if (count > MAX_SEGMENTS) throw bad(`has more than ${MAX_SEGMENTS} segments`);
    if (at + SEGMENT_SIZE > stored.length) throw bad("has a segment without a head");
    const size = view.getUint32(at + SEGMENT.raw_size, true);
    const start = at + SEGMENT_SIZE;
    at = start + view.getUint32(at + SEGMENT.stored_size, true);
    if (at > stored.length) throw bad("has a segment beyond its end");
    if (size === 0 || size > head.rawSize - done) throw bad("has a segment of a wrong size");
    const part = stored.subarray(start, at);
    content.set(part.length === size ? part : decompress(part, size, bad), done);
    done += size;
  }
  if (done !== head.rawSize) throw bad(`holds ${done} bytes of ${head.rawSize}`);
  return content;
}

/** The name of a block type, for messages. */
export function blockType(type: number): string {
  return Object.entries(BLOCK).find(([, value]) => value === type)?.[0] ?? `type ${type}`;
}

function decompress(
  part: Uint8Array,
  size: number,
  bad: (what: string) => TraceError,
): Uint8Array {
  let content: Uint8Array;
  try {
    content = zstdDecompressSync(part, {
      maxOutputLength: size,
      chunkSize: Math.max(constants.Z_MIN_CHUNK, size + 1),
    });
  } catch (cause) {
    throw bad(`cannot be decompressed (${(cause as Error).message})`);
  }
  if (content.length !== size) throw bad("has a segment of a wrong size");
  return content;
}

function number(view: DataView, at: number, offset: number): number {
  const value = view.getBigInt64(at, true);
  if (value < BigInt(NO_TIME) || value > BigInt(Number.MAX_SAFE_INTEGER)) {
    throw damaged(offset, "A block's header has a number out of range");
  }
  return Number(value);
}
