/**
 * The file header: what a reader checks before it believes anything else.
 *
 * @module
 */
import { Buffer } from "node:buffer";
import { crc32 } from "node:zlib";
import { damaged, TraceError } from "../errors.ts";
import { FEATURES, HEADER, HEADER_SIZE, MAGIC, MAJOR, MAX_META, MINOR, PREFIX } from "./format.ts";
import { type Meta, packMap, unpackMap } from "./msgpack.ts";
import { type KindPlan, plansOf, SCHEMA, type Schema } from "./schema.ts";

/** What a trace says about itself before its first block. */
export interface TraceHeader {
  /** Major version of the format. */
  readonly major: number;
  /** Minor version of the format. */
  readonly minor: number;
  /** Mask of the features a reader must have. */
  readonly features: number;
  /** 16 bytes that tell this trace from others. */
  readonly id: Uint8Array;
  /** CRC-32 of the id, which every block of the trace carries. */
  readonly tag: number;
  /** What the writer was given as metadata. */
  readonly meta: Meta;
  /** The trace's event table, by number of kind. */
  readonly plans: readonly (KindPlan | undefined)[];
  /** Size of the header in bytes: where the first block begins. */
  readonly size: number;
}

/**
 * Encodes a file header.
 *
 * @param id 16 bytes.
 * @param meta Metadata of the trace.
 * @param schema Event table; this code's own when left out.
 * @returns The bytes.
 * @throws {TraceError} `event` or `limit` when the metadata cannot be stored.
 */
export function writeHeader(id: Uint8Array, meta: Meta, schema: Schema = SCHEMA): Uint8Array {
  if (id.length !== 16) throw new TraceError("event", `An id has 16 bytes, not ${id.length}`);
  const packed = packMap({ events: schema, meta });
  if (packed.length > MAX_META) {
    throw new TraceError("limit", `The metadata take ${packed.length} bytes of ${MAX_META}`);
  }
  const bytes = new Uint8Array(HEADER_SIZE + packed.length + 4);
  const view = new DataView(bytes.buffer);
  bytes.set(MAGIC, PREFIX.magic);
  view.setUint16(PREFIX.major, MAJOR, true);
  view.setUint16(PREFIX.minor, MINOR, true);
  view.setUint32(PREFIX.features, FEATURES, true);
  view.setUint32(PREFIX.crc, crc32(bytes.subarray(0, PREFIX.crc)), true);
  bytes.set(id, HEADER.id);
  view.setUint32(HEADER.meta_size, packed.length, true);
  bytes.set(packed, HEADER_SIZE);
  const end = HEADER_SIZE + packed.length;
  view.setUint32(end, crc32(bytes.subarray(0, end)), true);
  return bytes;
}

/**
 * Size of the file header, from its first part, which is checked.
 *
 * @param bytes The first 40 bytes of a trace, or all of them when there are fewer.
 * @returns The size in bytes.
 * @throws {TraceError} `empty`, `foreign`, `version`, `feature`, `truncated`, `damaged` or `limit`.
 * @example
 * ```ts
 * import { headerSize, TraceWriter } from "@vmtape/vmtape/codecs";
 * let bytes: Uint8Array = new Uint8Array(0);
 * new TraceWriter({ write: (chunk) => void (bytes = bytes.length ? bytes : chunk) }).close();
 * if (headerSize(bytes) !== bytes.length) throw new Error("The first chunk is the header");
 * ```
 */
export function headerSize(bytes: Uint8Array): number {
  if (bytes.length === 0) {
    throw new TraceError("empty", "Nothing is there: a trace has a header at least", { offset: 0 });
  }
  const magic = Math.min(bytes.length, MAGIC.length);
  if (Buffer.compare(bytes.subarray(0, magic), MAGIC.subarray(0, magic)) !== 0) {
    throw new TraceError(
      "foreign",
      "This is not a vmtape trace: it begins with other bytes (offset 0); `vmtape import` reads other formats",
      { offset: 0 },
    );
  }
  if (bytes.length < HEADER_SIZE) throw cutHeader(bytes.length);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (view.getUint32(PREFIX.crc, true) !== crc32(bytes.subarray(0, PREFIX.crc))) {
    throw damaged(PREFIX.crc, "The first part of the header does not match its CRC-32");
  }
  const major = view.getUint16(PREFIX.major, true);
  if (major !== MAJOR) {
    throw new TraceError(
      "version",
      `The trace has format version ${major}.${
        view.getUint16(PREFIX.minor, true)
      }, this vmtape reads ${MAJOR}.x (offset ${PREFIX.major}); read it with the vmtape that wrote it`,
      { offset: PREFIX.major },
    );
  }
  const features = view.getUint32(PREFIX.features, true);
  if ((features & ~FEATURES) !== 0) {
    throw new TraceError(
      "feature",
      `The trace requires features 0x${
        ((features & ~FEATURES) >>> 0).toString(16)
      } that this vmtape does not have (offset ${PREFIX.features}); read it with a newer one`,
      { offset: PREFIX.features },
    );
  }
  const meta = view.getUint32(HEADER.meta_size, true);
  if (meta > MAX_META) {
    throw new TraceError(
      "limit",
      `The header declares ${meta} bytes of metadata, at most ${MAX_META} are allowed (offset ${HEADER.meta_size})`,
      { offset: HEADER.meta_size },
    );
  }
  return HEADER_SIZE + meta + 4;
}

/**
 * Decodes a file header.
 *
 * @param bytes The trace's first bytes; those after the header are not looked at.
 * @returns What it says.
 * @throws {TraceError} As {@linkcode headerSize}.
 * @example
 * ```ts
 * import { readHeader, TraceWriter } from "@vmtape/vmtape/codecs";
 * let bytes: Uint8Array = new Uint8Array(0);
 * new TraceWriter({ write: (chunk) => void (bytes = bytes.length ? bytes : chunk) }).close();
 * if (readHeader(bytes).size !== bytes.length) throw new Error("The first chunk is the header");
 * ```
 */
export function readHeader(bytes: Uint8Array): TraceHeader {
  const size = headerSize(bytes);
  if (bytes.length < size) throw cutHeader(bytes.length);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const end = size - 4;
  if (view.getUint32(end, true) !== crc32(bytes.subarray(0, end))) {
    throw damaged(HEADER_SIZE, "The header does not match its CRC-32");
  }
  let map: Meta;
  try {
    map = unpackMap(bytes.subarray(HEADER_SIZE, end));
  } catch (cause) {
    throw damaged(HEADER_SIZE, `The metadata cannot be read: ${(cause as Error).message}`);
  }
  const id = bytes.slice(HEADER.id, HEADER.id + 16);
  const meta = map.meta;
  return {
    major: view.getUint16(PREFIX.major, true),
    minor: view.getUint16(PREFIX.minor, true),
    features: view.getUint32(PREFIX.features, true),
    id,
    tag: crc32(id),
    meta: typeof meta === "object" && meta !== null ? meta as Meta : {},
    plans: plansOf(map.events, HEADER_SIZE),
    size,
  };
}

function cutHeader(size: number): TraceError {
  return new TraceError("truncated", `The trace stops within its header (offset ${size})`, {
    offset: size,
  });
}
