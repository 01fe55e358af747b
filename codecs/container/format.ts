/**
 * The numbers of the trace format: versions, limits, block types, and the
 * layouts of its fixed parts.
 *
 * @module
 */
import { type EventRow, EVENTS } from "../../engine/event.ts";
import { type Field, offsets } from "../../engine/layout.ts";

/** First bytes of every trace; the line ends show what a text transfer did to it. */
export const MAGIC: Uint8Array = new Uint8Array([0x89, 0x56, 0x4d, 0x54, 0x0d, 0x0a, 0x1a, 0x0a]);

/** Major version: a reader refuses every other one. */
export const MAJOR = 1;

/** Minor version, the one with which the newest kind of event came: a reader takes any. */
export const MINOR: number = Math.max(...EVENTS.map(({ since = 0 }: EventRow) => since));

/** Required features that this code has, as a mask. None are defined yet. */
export const FEATURES = 0;

/** Largest raw size of a block's content, in bytes. */
export const MAX_RAW: number = 1 << 20;

/** Largest stored size of a block's content, with the heads of its segments. */
export const MAX_STORED: number = MAX_RAW + (1 << 13);

/** Largest number of segments in one block. */
export const MAX_SEGMENTS = 256;

/** Largest number of events in one block. */
export const MAX_EVENTS = 65_536;

/** Largest number of image channels in one block, which bounds a reader's memory. */
export const MAX_CHANNELS = 1024;

/** Largest number of different vCPUs in one block. */
export const MAX_VCPUS = 1024;

/** Largest number of a kind of event: it has 6 bits in an event's head. */
export const MAX_KIND = 63;

/** Largest size of an image in bytes. */
export const MAX_IMAGE = 4096;

/** Largest size of the file header's metadata in bytes. */
export const MAX_META: number = 1 << 16;

/** Block types; readers skip the others. */
export const BLOCK = { events: 1, checkpoint: 2, index: 3 } as const;

/** Head of a segment of a block's stored content. */
export const SEGMENT_FIELDS = [
  { name: "raw_size", offset: 0, size: 4, doc: "Size of this part of the content" },
  {
    name: "stored_size",
    offset: 4,
    size: 4,
    doc: "Size of what follows: the part itself if the sizes are equal, else one zstd frame",
  },
] as const satisfies readonly Field[];

/** Size of a segment's head. */
export const SEGMENT_SIZE = 8;

/** Offsets within the head of a segment. */
export const SEGMENT: { readonly [K in (typeof SEGMENT_FIELDS)[number]["name"]]: number } = offsets(
  SEGMENT_FIELDS,
);

/** Time that stands for "no event has one". */
export const NO_TIME = -1;

/** First part of the file header; never changes with the version. */
export const PREFIX_FIELDS = [
  { name: "magic", offset: 0, size: 8, doc: "89 56 4d 54 0d 0a 1a 0a" },
  { name: "major", offset: 8, size: 2, doc: "Major version" },
  { name: "minor", offset: 10, size: 2, doc: "Minor version" },
  { name: "features", offset: 12, size: 4, doc: "Features that a reader must have, a bit each" },
  { name: "crc", offset: 16, size: 4, doc: "CRC-32 of the 16 bytes before" },
] as const satisfies readonly Field[];

/** Rest of the file header; the metadata and their CRC-32 follow it. */
export const HEADER_FIELDS = [
  { name: "id", offset: 20, size: 16, doc: "Random; tells this trace from others" },
  { name: "meta_size", offset: 36, size: 4, doc: "Size of the metadata" },
] as const satisfies readonly Field[];

/** Size of the file header before its metadata. */
export const HEADER_SIZE = 40;

/** Block header. */
export const BLOCK_FIELDS = [
  { name: "mark", offset: 0, size: 4, doc: "76 6d 74 42 (`vmtB`)" },
  { name: "type", offset: 4, size: 1, doc: "Block type" },
  { name: "reserved", offset: 5, size: 3, doc: "0" },
  { name: "tag", offset: 8, size: 4, doc: "CRC-32 of the trace's id" },
  { name: "sequence", offset: 12, size: 4, doc: "Number of the block in the file, from 0" },
  { name: "raw_size", offset: 16, size: 4, doc: "Size of the content" },
  { name: "stored_size", offset: 20, size: 4, doc: "Size of the content as stored" },
  { name: "events", offset: 24, size: 4, doc: "Number of events in it" },
  { name: "content_crc", offset: 28, size: 4, doc: "CRC-32 of the content as stored" },
  { name: "first_event", offset: 32, size: 8, doc: "Number of events in the trace before it" },
  { name: "first_time", offset: 40, size: 8, doc: "First time in it; all ones: no event has one" },
  { name: "last_time", offset: 48, size: 8, doc: "Last time in it; all ones: no event has one" },
  { name: "zero", offset: 56, size: 4, doc: "0" },
  { name: "crc", offset: 60, size: 4, doc: "CRC-32 of the 60 bytes before" },
] as const satisfies readonly Field[];

/** Size of the block header. */
export const BLOCK_HEADER_SIZE = 64;

/** Trailer: the last bytes of a trace that was closed. */
export const TRAILER_FIELDS = [
  { name: "mark", offset: 0, size: 4, doc: "76 6d 74 45 (`vmtE`)" },
  { name: "tag", offset: 4, size: 4, doc: "CRC-32 of the trace's id" },
  { name: "index_offset", offset: 8, size: 8, doc: "Offset of the first index block" },
  { name: "blocks", offset: 16, size: 4, doc: "Number of blocks in the index" },
  { name: "events", offset: 20, size: 8, doc: "Number of events in the trace" },
  { name: "crc", offset: 28, size: 4, doc: "CRC-32 of the 28 bytes before" },
] as const satisfies readonly Field[];

/** Size of the trailer. */
export const TRAILER_SIZE = 32;

/** One entry of the index. */
export const INDEX_FIELDS = [
  { name: "offset", offset: 0, size: 8, doc: "Offset of the block" },
  { name: "first_event", offset: 8, size: 8, doc: "Number of events in the trace before it" },
  { name: "first_time", offset: 16, size: 8, doc: "As in the block header" },
  { name: "last_time", offset: 24, size: 8, doc: "As in the block header" },
  { name: "events", offset: 32, size: 4, doc: "Number of events in it" },
  { name: "stored_size", offset: 36, size: 4, doc: "Size of its content as stored" },
  { name: "sequence", offset: 40, size: 4, doc: "Number of the block in the file" },
  { name: "type", offset: 44, size: 4, doc: "Block type" },
] as const satisfies readonly Field[];

/** Size of an index entry. */
export const INDEX_ENTRY_SIZE = 48;

/** Content of a checkpoint block, before its part of the state. */
export const CHECKPOINT_FIELDS = [
  { name: "part", offset: 0, size: 4, doc: "Number of this part, from 0" },
  { name: "parts", offset: 4, size: 4, doc: "Number of parts, one block each" },
  { name: "state_size", offset: 8, size: 4, doc: "Size of the whole state" },
  { name: "digest_size", offset: 12, size: 2, doc: "Size of the state's digest, which follows" },
  {
    name: "before_size",
    offset: 14,
    size: 2,
    doc: "Size of the digest behind that, of all blocks before it; 0: it is not told",
  },
] as const satisfies readonly Field[];

/** Size of a checkpoint block's own header. */
export const CHECKPOINT_SIZE = 16;

/** Largest state of a checkpoint. */
export const MAX_STATE: number = 1 << 26;

/** Largest digest of a checkpoint's state. */
export const MAX_DIGEST = 64;

/** Size of the digest of what comes before a checkpoint. */
export const CHAIN_SIZE = 16;

/** First bytes of a block, read as a little-endian number. */
export const BLOCK_MARK = 0x42746d76;

/** First bytes of the trailer, read as a little-endian number. */
export const TRAILER_MARK = 0x45746d76;

/** Offsets within the first part of the file header. */
export const PREFIX: { readonly [K in (typeof PREFIX_FIELDS)[number]["name"]]: number } = offsets(
  PREFIX_FIELDS,
);

/** Offsets within the rest of the file header, from the start of the file. */
export const HEADER: { readonly [K in (typeof HEADER_FIELDS)[number]["name"]]: number } = offsets(
  HEADER_FIELDS,
);

/** Offsets within a block header. */
export const AT: { readonly [K in (typeof BLOCK_FIELDS)[number]["name"]]: number } = offsets(
  BLOCK_FIELDS,
);

/** Offsets within the trailer. */
export const TRAILER: { readonly [K in (typeof TRAILER_FIELDS)[number]["name"]]: number } = offsets(
  TRAILER_FIELDS,
);

/** Offsets within an index entry. */
export const ENTRY: { readonly [K in (typeof INDEX_FIELDS)[number]["name"]]: number } = offsets(
  INDEX_FIELDS,
);

/** Offsets within the head of a checkpoint block. */
export const CHECKPOINT: { readonly [K in (typeof CHECKPOINT_FIELDS)[number]["name"]]: number } =
  offsets(CHECKPOINT_FIELDS);

/**
 * Lanes for word differences. Each lane is three columns: the first 7 bits, the second 7 bits, and
 * further groups of 7 bits. Bytes of one nature stand together, which zstd's entropy coder needs to
 * tell them apart.
 */
export const WORD_LANES = 61;

/** First lane for time differences. */
export const TIME_LANE = 61;

/** Number of lanes for time differences. */
export const TIME_LANES = 16;

/** Where the columns are in the content of an events block, by number. */
export const COLUMN = {
  /** Per event: kind, flags, field operations. */
  heads: 0,
  /** vCPU numbers, image descriptors, place lists, table numbers, sizes. */
  shapes: 1,
  /** Texts, maps and images stored as they are. */
  bytes: 2,
  /** The first lane's first column. */
  lanes: 3,
} as const;

/** Number of columns. */
export const COLUMNS: number = COLUMN.lanes + 3 * (TIME_LANE + TIME_LANES);
