/**
 * Columns of a block's content, and the variable-length numbers in them.
 *
 * @module
 */
import { COLUMN_HEAD, COLUMNS, MAX_RAW } from "./format.ts";

/** One column while it is written. Writes beyond its end are lost, and noticed by its length. */
export class Column {
  /** The bytes, of which {@linkcode Column.at} are in use. */
  readonly bytes: Uint8Array = new Uint8Array(MAX_RAW);
  /** How many are in use. */
  at = 0;

  /** Appends a number in groups of 7 bits, lowest first, the top bit set on all but the last. */
  varint(value: number): void {
    let rest = value;
    while (rest > 127) {
      this.bytes[this.at++] = (rest % 128) | 128;
      rest = Math.floor(rest / 128);
    }
    this.bytes[this.at++] = rest;
  }

  /** Appends bytes as they are. */
  put(bytes: Uint8Array): void {
    if (this.at + bytes.length <= MAX_RAW) this.bytes.set(bytes, this.at);
    this.at += bytes.length;
  }
}

/** The columns of a block that is being written. */
export class ColumnWriter {
  /** See {@linkcode COLUMNS}. */
  readonly all: readonly Column[] = COLUMNS.map(() => new Column());
  readonly heads: Column = this.all[0]!;
  readonly times: Column = this.all[1]!;
  readonly timesHigh: Column = this.all[2]!;
  readonly words: Column = this.all[3]!;
  readonly wordsMid: Column = this.all[4]!;
  readonly wordsHigh: Column = this.all[5]!;
  readonly shapes: Column = this.all[6]!;
  readonly bytes: Column = this.all[7]!;
  readonly #marks = new Float64Array(COLUMNS.length);

  /** Remembers the lengths, to come back to. */
  mark(): void {
    const all = this.all;
    for (let i = 0; i < all.length; i++) this.#marks[i] = all[i]!.at;
  }

  /** Goes back to the lengths remembered. */
  back(): void {
    this.all.forEach((column, i) => column.at = this.#marks[i]!);
  }

  /** Raw size of the content so far. */
  get size(): number {
    const all = this.all;
    let size = COLUMN_HEAD;
    for (let i = 0; i < all.length; i++) size += all[i]!.at;
    return size;
  }

  /** Appends the difference of two words, modulo 2^32. */
  word(difference: number): void {
    const zigzag = ((difference << 1) ^ (difference >> 31)) >>> 0;
    const words = this.words;
    if (zigzag < 128) {
      words.bytes[words.at++] = zigzag;
      return;
    }
    words.bytes[words.at++] = (zigzag & 127) | 128;
    const mid = this.wordsMid;
    let rest = zigzag >>> 7;
    if (rest < 128) {
      mid.bytes[mid.at++] = rest;
      return;
    }
    mid.bytes[mid.at++] = (rest & 127) | 128;
    const high = this.wordsHigh;
    rest >>>= 7;
    while (rest > 127) {
      high.bytes[high.at++] = (rest & 127) | 128;
      rest >>>= 7;
    }
    high.bytes[high.at++] = rest;
  }

  /** Appends the difference of two times, whole numbers of less than 2^53 either way. */
  time(difference: number): void {
    // Zigzag without doubling, which would lose the lowest bit beyond 2^53.
    const sign = difference < 0 ? 1 : 0;
    const size = sign ? -1 - difference : difference;
    const first = (size % 64) * 2 + sign;
    const times = this.times;
    if (size < 64) {
      times.bytes[times.at++] = first;
      return;
    }
    times.bytes[times.at++] = first | 128;
    this.timesHigh.varint(Math.floor(size / 64));
  }

  /** The content: the columns' lengths, then the columns. */
  content(): Uint8Array {
    const content = new Uint8Array(this.size);
    const view = new DataView(content.buffer);
    let at = COLUMN_HEAD;
    this.all.forEach((column, i) => {
      view.setUint32(4 * i, column.at, true);
      content.set(column.bytes.subarray(0, column.at), at);
      at += column.at;
    });
    return content;
  }

  /** Empties all columns. */
  clear(): void {
    for (const column of this.all) column.at = 0;
  }
}
