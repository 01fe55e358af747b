/**
 * MessagePack for metadata: JSON-like values only, and a look over the bytes
 * before they are decoded, since a declared length is not to be believed.
 *
 * @module
 */
import { Packr, Unpackr } from "msgpackr/pack";
import { TraceError } from "../errors.ts";

/** A JSON-like map: what metadata and `map` fields hold. Bigints are 64 bits wide. */
export type Meta = Readonly<Record<string, unknown>>;

const DEEPEST = 32;

const packr = new Packr({ useRecords: false, mapsAsObjects: true });
const unpackr = new Unpackr({ useRecords: false, mapsAsObjects: true });
const keys = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/**
 * Encodes a map as MessagePack.
 *
 * @param map The map.
 * @returns Its bytes.
 * @throws {TraceError} `event`: it holds something that is not JSON-like.
 */
export function packMap(map: Meta): Uint8Array {
  let bytes: Uint8Array;
  try {
    bytes = packr.pack(plain(map, 0));
  } catch (cause) {
    throw new TraceError("event", `A map cannot be stored: ${String(cause)}`, { cause });
  }
  const trouble = checkMap(bytes);
  if (trouble) {
    throw new TraceError("event", `A map cannot be stored: ${trouble}; use JSON-like values`);
  }
  return bytes;
}

/**
 * A value in which no object has a property that msgpackr would call instead of storing it; the
 * value itself where there is none.
 */
function plain(value: unknown, depth: number): unknown {
  if (typeof value !== "object" || value === null || ArrayBuffer.isView(value)) return value;
  if (depth > DEEPEST) throw new RangeError(`It is nested deeper than ${DEEPEST}`);
  if (Array.isArray(value)) {
    const items = value.map((item) => plain(item, depth + 1));
    return items.some((item, i) => item !== value[i]) ? items : value;
  }
  const entries = Object.entries(value).map(([key, item]) =>
    [key, plain(item, depth + 1)] as const
  );
  if (Object.hasOwn(value, "toJSON")) return new Map(entries);
  const own = value as Readonly<Record<string, unknown>>;
  return entries.some(([key, item]) => item !== own[key]) ? Object.fromEntries(entries) : value;
}

/**
 * Decodes a map.
 *
 * @param bytes Exactly one MessagePack map.
 * @returns The map.
 * @throws {Error} They are something else; the message says what.
 */
export function unpackMap(bytes: Uint8Array): Meta {
  const trouble = checkMap(bytes);
  if (trouble) throw new Error(trouble);
  return unpackr.unpack(bytes) as Meta;
}

/** What keeps the bytes from being one JSON-like map, or undefined. */
function checkMap(bytes: Uint8Array): string | undefined {
  const first = bytes[0] ?? 0xc1;
  if ((first & 0xf0) !== 0x80 && first !== 0xde && first !== 0xdf) return "It is not a map";
  const walk = new Walk(bytes);
  try {
    walk.value(0);
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
  return walk.at === bytes.length ? undefined : "Bytes follow the map";
}

/** Steps over MessagePack without building anything. */
class Walk {
  at = 0;
  readonly #bytes: Uint8Array;
  readonly #view: DataView;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  value(depth: number): void {
    if (depth > DEEPEST) throw new Error(`It is nested deeper than ${DEEPEST}`);
    const head = this.#number(1);
    if (head < 0x80 || head >= 0xe0 || head === 0xc0 || head === 0xc2 || head === 0xc3) return;
    if (head < 0x90) return this.#map(head & 15, depth);
    if (head < 0xa0) return this.#array(head & 15, depth);
    if (head < 0xc0) return this.#text(head & 31);
    switch (head) {
      case 0xc4:
      case 0xc5:
      case 0xc6:
        return this.#skip(this.#number(1 << (head - 0xc4)));
      case 0xca:
        return this.#skip(4);
      case 0xcb:
        return this.#skip(8);
      case 0xcc:
      case 0xcd:
      case 0xce:
      case 0xcf:
        return this.#skip(1 << (head - 0xcc));
      case 0xd0:
      case 0xd1:
      case 0xd2:
      case 0xd3:
        return this.#skip(1 << (head - 0xd0));
      case 0xd9:
      case 0xda:
      case 0xdb:
        return this.#text(this.#number(1 << (head - 0xd9)));
      case 0xdc:
      case 0xdd:
        return this.#array(this.#number(2 << (head - 0xdc)), depth);
      case 0xde:
      case 0xdf:
        return this.#map(this.#number(2 << (head - 0xde)), depth);
    }
    throw new Error(`It holds a value of type 0x${head.toString(16)}`);
  }

  #map(count: number, depth: number): void {
    for (let i = 0; i < count; i++) {
      const key = this.at;
      const head = this.#bytes[key] ?? 0;
      if ((head & 0xe0) !== 0xa0 && (head < 0xd9 || head > 0xdb)) {
        throw new Error("It holds a key that is not text");
      }
      this.value(depth + 1);
      const text = key + (head < 0xc0 ? 1 : 1 + (1 << (head - 0xd9)));
      // msgpackr renames this key, so it would not come back as it was.
      if (
        this.at - text === 9 && keys.decode(this.#bytes.subarray(text, this.at)) === "__proto__"
      ) {
        throw new Error("It holds the key __proto__");
      }
      this.value(depth + 1);
    }
  }

  #array(count: number, depth: number): void {
    for (let i = 0; i < count; i++) this.value(depth + 1);
  }

  #text(size: number): void {
    const start = this.at;
    this.#skip(size);
    keys.decode(this.#bytes.subarray(start, this.at));
  }

  #skip(size: number): void {
    this.at += size;
    if (this.at > this.#bytes.length) throw new Error("It is cut off");
  }

  #number(size: number): number {
    const at = this.at;
    this.#skip(size);
    if (size === 1) return this.#view.getUint8(at);
    return size === 2 ? this.#view.getUint16(at) : this.#view.getUint32(at);
  }
}
