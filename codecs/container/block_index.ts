/**
 * The index at the end of a trace, and the trailer that leads to it.
 *
 * @module
 */
import { crc32 } from "node:zlib";
import { damaged } from "../errors.ts";
import { ENTRY, INDEX_ENTRY_SIZE, TRAILER, TRAILER_MARK, TRAILER_SIZE } from "./format.ts";

/** Where a block is and what it holds. */
export interface IndexEntry {
  /** Where its header is, in bytes from the start of the trace. */
  readonly offset: number;
  /** Block type. */
  readonly type: number;
  /** Number of the block in the file. */
  readonly sequence: number;
  /** Size of its content as stored, in bytes. */
  readonly storedSize: number;
  /** Number of events in it. */
  readonly events: number;
  /** Number of events in the trace before it. */
  readonly firstEvent: number;
  /** First time in it, or -1. */
  readonly firstTime: number;
  /** Last time in it, or -1. */
  readonly lastTime: number;
}

/** What the last bytes of a closed trace say. */
export interface Trailer {
  /** CRC-32 of the trace's id. */
  readonly tag: number;
  /** Offset of the first index block. */
  readonly indexOffset: number;
  /** Number of blocks in the index. */
  readonly blocks: number;
  /** Number of events in the trace. */
  readonly events: number;
}

/**
 * Encodes index entries.
 *
 * @param entries The entries.
 * @returns Content of an index block.
 */
export function writeIndex(entries: readonly IndexEntry[]): Uint8Array {
  const bytes = new Uint8Array(entries.length * INDEX_ENTRY_SIZE);
  const view = new DataView(bytes.buffer);
  entries.forEach((entry, i) => {
    const at = i * INDEX_ENTRY_SIZE;
    view.setBigInt64(at + ENTRY.offset, BigInt(entry.offset), true);
    view.setBigInt64(at + ENTRY.first_event, BigInt(entry.firstEvent), true);
    view.setBigInt64(at + ENTRY.first_time, BigInt(entry.firstTime), true);
    view.setBigInt64(at + ENTRY.last_time, BigInt(entry.lastTime), true);
    view.setUint32(at + ENTRY.events, entry.events, true);
    view.setUint32(at + ENTRY.stored_size, entry.storedSize, true);
    view.setUint32(at + ENTRY.sequence, entry.sequence, true);
    view.setUint32(at + ENTRY.type, entry.type, true);
  });
  return bytes;
}

/**
 * Decodes index entries.
 *
 * @param bytes Content of an index block.
 * @param offset Where the block is, for messages.
 * @returns The entries.
 * @throws {TraceError} `damaged`.
 */
export function readIndex(bytes: Uint8Array, offset: number): IndexEntry[] {
  if (bytes.length % INDEX_ENTRY_SIZE !== 0) throw damaged(offset, "The index has a partial entry");
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const entries: IndexEntry[] = [];
  for (let at = 0; at < bytes.length; at += INDEX_ENTRY_SIZE) {
    entries.push({
      offset: Number(view.getBigInt64(at + ENTRY.offset, true)),
      firstEvent: Number(view.getBigInt64(at + ENTRY.first_event, true)),
      firstTime: Number(view.getBigInt64(at + ENTRY.first_time, true)),
      lastTime: Number(view.getBigInt64(at + ENTRY.last_time, true)),
      events: view.getUint32(at + ENTRY.events, true),
      storedSize: view.getUint32(at + ENTRY.stored_size, true),
      sequence: view.getUint32(at + ENTRY.sequence, true),
      type: view.getUint32(at + ENTRY.type, true),
    });
  }
  return entries;
}

/**
 * Encodes a trailer.
 *
 * @param trailer What it says.
 * @returns The bytes.
 */
export function writeTrailer(trailer: Trailer): Uint8Array {
  const bytes = new Uint8Array(TRAILER_SIZE);
  const view = new DataView(bytes.buffer);
  view.setUint32(TRAILER.mark, TRAILER_MARK, true);
  view.setUint32(TRAILER.tag, trailer.tag, true);
  view.setBigInt64(TRAILER.index_offset, BigInt(trailer.indexOffset), true);
  view.setUint32(TRAILER.blocks, trailer.blocks, true);
  view.setBigInt64(TRAILER.events, BigInt(trailer.events), true);
  view.setUint32(TRAILER.crc, crc32(bytes.subarray(0, TRAILER.crc)), true);
  return bytes;
}

/**
 * Decodes a trailer.
 *
 * @param bytes The last 32 bytes of a trace.
 * @param tag CRC-32 of the trace's id.
 * @returns What it says; undefined when they are no trailer of this trace.
 */
export function readTrailer(bytes: Uint8Array, tag: number): Trailer | undefined {
  if (bytes.length !== TRAILER_SIZE) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (view.getUint32(TRAILER.mark, true) !== TRAILER_MARK) return undefined;
  if (view.getUint32(TRAILER.tag, true) !== tag) return undefined;
  if (view.getUint32(TRAILER.crc, true) !== crc32(bytes.subarray(0, TRAILER.crc))) return undefined;
  return {
    tag,
    indexOffset: Number(view.getBigInt64(TRAILER.index_offset, true)),
    blocks: view.getUint32(TRAILER.blocks, true),
    events: Number(view.getBigInt64(TRAILER.events, true)),
  };
}
