/**
 * The columns of a block that is being read.
 *
 * @module
 */
import { Buffer } from "node:buffer";
import { wordColumn } from "./columns.ts";
import { damaged } from "../errors.ts";
import { COLUMN, COLUMNS, MAX_IMAGE } from "./format.ts";

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
const latin1 = Buffer.prototype.latin1Slice;

/** Takes values from columns. Whatever is not as a writer would have it is thrown as `damaged`. */
export class ColumnReader {
  /** Content of the block. */
  readonly content: Uint8Array;
  /** Number of the event within the block that is being read, for messages. */
  event = 0;
  readonly #offset: number;
  /** Of each column where it stands, and where it ends: side by side, since both are asked for at once. */
  readonly #cursors = new Int32Array(2 * COLUMNS);
  readonly #differences = new Int32Array(MAX_IMAGE / 4);
  #time = 0;

  /**
   * Stands at the beginning of each column.
   *
   * @param content Content of an events block.
   * @param offset Where the block begins, for messages.
   * @throws {TraceError} `damaged` when the columns do not fill the content.
   */
  constructor(content: Uint8Array, offset: number) {
    this.content = content;
    this.#offset = offset;
    const cursors = this.#cursors;
    let at = 0;
    let size = 0;
    for (let i = 0; i < COLUMNS; i++) {
      let length = 0;
      let byte = 128;
      for (let scale = 1; byte > 127 && scale <= 1 << 14; scale <<= 7) {
        byte = content[at++] ?? 0;
        length += (byte & 127) * scale;
      }
      if (byte > 127) throw damaged(offset, "A column is too long for its block");
      cursors[2 * i] = size;
      cursors[2 * i + 1] = size += length;
    }
    if (at + size !== content.length) throw damaged(offset, "The columns do not fill their block");
    for (let i = 0; i < cursors.length; i++) cursors[i]! += at;
  }

  /** Where the heads stand in the content. */
  get headsAt(): number {
    return this.#cursors[2 * COLUMN.heads]!;
  }

  /** Where they end. */
  get headsEnd(): number {
    return this.#cursors[2 * COLUMN.heads + 1]!;
  }

  /** A text of so many bytes. */
  text(size: number): string {
    const at = this.#skip(size);
    const bytes = this.content;
    let all = 0;
    for (let i = at; i < at + size; i++) all |= bytes[i]!;
    if (all < 0x80) return latin1.call(bytes, at, at + size);
    try {
      return utf8.decode(bytes.subarray(at, at + size));
    } catch {
      throw this.bad("A text is not UTF-8");
    }
  }

  /** So many bytes, as they are. */
  take(size: number): Uint8Array {
    const at = this.#skip(size);
    return this.content.subarray(at, at + size);
  }

  /** Steps over bytes of their column; returns where they are. */
  #skip(size: number): number {
    const cursors = this.#cursors;
    const at = cursors[2 * COLUMN.bytes]!;
    if (size > cursors[2 * COLUMN.bytes + 1]! - at) {
      throw this.bad("Bytes run beyond their column");
    }
    cursors[2 * COLUMN.bytes] = at + size;
    return at;
  }

  /** The operations of an event's fields: so many bytes. */
  operations(bytes: number): number {
    const cursors = this.#cursors;
    const content = this.content;
    const at = cursors[2 * COLUMN.heads]!;
    if (bytes > cursors[2 * COLUMN.heads + 1]! - at) throw this.#beyond();
    cursors[2 * COLUMN.heads] = at + bytes;
    let ops = 0;
    for (let i = bytes; i-- > 0;) ops = ops << 8 | content[at + i]!;
    return ops;
  }

  /** The next byte of a column. */
  byte(column: number): number {
    const cursors = this.#cursors;
    const at = cursors[2 * column]!;
    if (at === cursors[2 * column + 1]) throw this.#beyond();
    cursors[2 * column] = at + 1;
    return this.content[at]!;
  }

  /** A number of the shapes. */
  varint(): number {
    const first = this.byte(COLUMN.shapes);
    if (first < 128) return first;
    let value = first & 127;
    for (let shift = 7; shift < 35; shift += 7) {
      const byte = this.byte(COLUMN.shapes);
      value += (byte & 127) * 2 ** shift;
      if (byte < 128) {
        if (value > 0xffff_ffff) break;
        return value;
      }
    }
    throw this.bad("A number is too long");
  }

  /** The difference of a word, modulo 2^32, by the first column of its lane. */
  word(column: number): number {
    const first = this.byte(column);
    const zigzag = first > 127 ? this.#longer(first, column) : first;
    return (zigzag >>> 1) ^ -(zigzag & 1);
  }

  /** The differences of words at some places; valid until the next are read. */
  words(kind: number, places: Uint16Array): Int32Array {
    const content = this.content;
    const cursors = this.#cursors;
    const differences = this.#differences;
    for (let i = 0; i < places.length; i++) {
      const column = wordColumn(kind, places[i]!);
      const at = cursors[2 * column]!;
      if (at === cursors[2 * column + 1]) throw this.#beyond();
      cursors[2 * column] = at + 1;
      let zigzag = content[at]!;
      if (zigzag > 127) zigzag = this.#longer(zigzag, column);
      differences[i] = (zigzag >>> 1) ^ -(zigzag & 1);
    }
    return differences;
  }

  /** The rest of a difference of a word whose first byte is not all of it. */
  #longer(first: number, column: number): number {
    const mid = this.byte(column + 1);
    const zigzag = (first & 127) | (mid & 127) << 7;
    if (mid < 128) return zigzag;
    const rest = this.#high(column + 2);
    if (rest > 0x3ffff) throw this.bad("A word difference is too long");
    return zigzag | rest << 14;
  }

  /** Further groups of 7 bits, up to 49 bits in all: a time has no more. */
  #high(column: number): number {
    let value = 0;
    for (let scale = 1; scale <= 2 ** 42; scale *= 128) {
      const byte = this.byte(column);
      value += (byte & 127) * scale;
      if (byte < 128) return value;
    }
    throw this.bad("A number is too long");
  }

  /** The next time, by the first column of its lane. */
  time(column: number): number {
    const first = this.byte(column);
    let size = (first & 127) >>> 1;
    if (first > 127) {
      const mid = this.byte(column + 1);
      size += (mid & 127) * 64;
      if (mid > 127) size += this.#high(column + 2) * 8192;
    }
    const time = first & 1 ? this.#time - 1 - size : this.#time + size;
    if (!(time >= 0 && time <= Number.MAX_SAFE_INTEGER)) throw this.bad("A time is out of range");
    return this.#time = time;
  }

  /**
   * Ends the block.
   *
   * @throws {TraceError} `damaged` when more is left.
   */
  finish(): void {
    for (let i = 0; i < COLUMNS; i++) {
      if (this.#cursors[2 * i] !== this.#cursors[2 * i + 1]) {
        throw this.bad("A block has more content than events");
      }
    }
  }

  #beyond(): Error {
    return this.bad("An event runs beyond its columns");
  }

  /** What is wrong, and in which event. */
  bad(what: string): Error {
    return damaged(this.#offset, `${what}: event ${this.event} of the block`);
  }
}
