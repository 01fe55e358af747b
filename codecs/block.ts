/**
 * Blocks: headers, compression and checksums.
 *
 * @module
 */
import { constants, crc32, zstdCompressSync, zstdDecompressSync } from "node:zlib";
import { damaged, TraceError } from "./errors.ts";
import {
  AT,
  BLOCK,
  BLOCK_HEADER_SIZE,
  BLOCK_MARK,
  MAX_EVENTS,
  MAX_RAW,
  MAX_STORED,
  NO_TIME,
  STORED,
} from "./format.ts";

/** What a block's header says. */
export interface BlockHead {
  /** Block type; see {@linkcode BLOCK}. */
  readonly type: number;
  /** How the content is stored; see {@linkcode STORED}. */
  readonly storedAs: number;
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
 * @returns Header and stored content.
 */
export function sealBlock(head: NewBlock, content: Uint8Array): Uint8Array {
  const zstd = zstdCompressSync(content, LEVEL_1);
  const shrank = zstd.length < content.length;
  const stored = shrank ? zstd : content;
  return joinBlock({
    ...head,
    storedAs: shrank ? STORED.zstd : STORED.raw,
    rawSize: content.length,
    storedSize: stored.length,
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
  view.setUint8(AT.stored_as, head.storedAs);
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
    storedAs: view.getUint8(AT.stored_as),
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
 * @throws {TraceError} `damaged` or `feature`.
 */
export function blockContent(block: RawBlock): Uint8Array {
  const { head, stored, offset } = block;
  let content: Uint8Array;
  if (head.storedAs === STORED.raw) content = stored;
  else if (head.storedAs === STORED.zstd) content = decompress(head, stored, offset);
  else {
    throw new TraceError(
      "feature",
      `Block ${head.sequence} is stored in way ${head.storedAs}, which this vmtape does not know (offset ${offset})`,
      { offset },
    );
  }
  if (content.length !== head.rawSize) {
    throw damaged(
      offset,
      `Block ${head.sequence} holds ${content.length} bytes of ${head.rawSize}`,
    );
  }
  return content;
}

/** The name of a block type, for messages. */
export function blockType(type: number): string {
  return Object.entries(BLOCK).find(([, value]) => value === type)?.[0] ?? `type ${type}`;
}

function decompress(head: BlockHead, stored: Uint8Array, offset: number): Uint8Array {
  try {
    return zstdDecompressSync(stored, { maxOutputLength: Math.max(1, head.rawSize) });
  } catch (cause) {
    throw damaged(
      offset,
      `Block ${head.sequence} cannot be decompressed (${(cause as Error).message})`,
    );
  }
}

function number(view: DataView, at: number, offset: number): number {
  const value = view.getBigInt64(at, true);
  if (value < BigInt(NO_TIME) || value > BigInt(Number.MAX_SAFE_INTEGER)) {
    throw damaged(offset, "A block's header has a number out of range");
  }
  return Number(value);
}
