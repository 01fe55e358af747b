/**
 * Columns of a block's content, and the variable-length numbers in them.
 *
 * @module
 */
import {
  COLUMN,
  COLUMNS,
  MAX_IMAGE,
  MAX_KIND,
  MAX_RAW,
  TIME_LANE,
  TIME_LANES,
  WORD_LANES,
} from "./format.ts";

/**
 * Columns shorter than this are compressed together with their neighbours, in bytes: a segment costs
 * a reader as much as a few kilobytes of content, and has to learn its statistics anew.
 */
const OWN_SEGMENT = 8192;

/** Bytes kept free for the column lengths. */
const HEAD_ROOM = 4 * COLUMNS;

/** One column while it is written. */
class Column {
  bytes = new Uint8Array(0);
  /** How many bytes are in use. */
  at = 0;
  /** How many were when the event named by `event` began. */
  mark = 0;
  event = -1;

  grow(size: number): void {
    const bytes = new Uint8Array(Math.max(64, 2 * this.bytes.length, size));
    bytes.set(this.bytes.subarray(0, this.at));
    this.bytes = bytes;
  }
}

/** Content of a block, and where it is best cut for compression. */
export interface Content {
  /** The content, before compression. */
  readonly bytes: Uint8Array;
  /** Ends of the segments, in order; the last is the content's end. */
  readonly cuts: readonly number[];
}

/**
 * The lane that the differences of a word or a field go to: those of one nature keep together.
 *
 * @param kind Number of the event's kind.
 * @param place Index of the word in its image, or of the field in its kind.
 */
export function wordLane(kind: number, place: number): number {
  return (place + 7 * kind) % WORD_LANES;
}

/**
 * The lane that the time differences of a kind go to.
 *
 * @param kind Number of the event's kind.
 */
export function timeLane(kind: number): number {
  return TIME_LANE + kind % TIME_LANES;
}

/**
 * The first of a lane's three columns.
 *
 * @param lane Number of the lane.
 */
export function laneColumn(lane: number): number {
  return COLUMN.lanes + 3 * lane;
}

/** Columns of the lanes of words, by place and kind: the decoder looks them up for every difference. */
const WORD_COLUMNS = Uint8Array.from(
  { length: MAX_IMAGE / 4 + 7 * MAX_KIND },
  (_, place) => laneColumn(wordLane(0, place)),
);

/**
 * The first column of {@linkcode wordLane}.
 *
 * @param kind Number of the event's kind.
 * @param place Index of the word in its image, or of the field in its kind.
 */
export function wordColumn(kind: number, place: number): number {
  return WORD_COLUMNS[place + 7 * kind]!;
}

/** The columns of a block that is being written. */
export class ColumnWriter {
  /** Bytes in all columns. */
  size = 0;
  readonly #columns = Array.from({ length: COLUMNS }, () => new Column());
  readonly #heads = this.#columns[COLUMN.heads]!;
  readonly #shapes = this.#columns[COLUMN.shapes]!;
  readonly #bytes = this.#columns[COLUMN.bytes]!;
  #event = 0;
  #mark = 0;

  /** Whether the content is as large as a block may be, or larger. */
  get full(): boolean {
    return this.size > MAX_RAW - HEAD_ROOM;
  }

  /** An event begins. */
  begin(): void {
    this.#event++;
    this.#mark = this.size;
  }

  /** Takes back all that was written since the event began. */
  back(): void {
    for (const column of this.#columns) if (column.event === this.#event) column.at = column.mark;
    this.size = this.#mark;
  }

  /** Appends an event's head: flags and kind, then the field operations. */
  head(flags: number, ops: number, opBytes: number): void {
    this.#put(this.#heads, flags);
    for (let i = 0, rest = ops; i < opBytes; i++, rest >>>= 8) this.#put(this.#heads, rest);
  }

  /** Appends a number to the shapes: groups of 7 bits, lowest first, the top bit set on all but the last. */
  shape(value: number): void {
    let rest = value;
    while (rest > 127) {
      this.#put(this.#shapes, (rest % 128) | 128);
      rest = Math.floor(rest / 128);
    }
    this.#put(this.#shapes, rest);
  }

  /** Appends bytes as they are. */
  bytes(bytes: Uint8Array): void {
    const column = this.#bytes;
    this.#touch(column);
    this.size += bytes.length;
    // What does not fit is taken back anyway.
    if (this.full) return;
    if (column.at + bytes.length > column.bytes.length) column.grow(column.at + bytes.length);
    column.bytes.set(bytes, column.at);
    column.at += bytes.length;
  }

  /** Appends the difference of two words, modulo 2^32, to a lane. */
  word(lane: number, difference: number): void {
    const zigzag = ((difference << 1) ^ (difference >> 31)) >>> 0;
    const column = laneColumn(lane);
    const columns = this.#columns;
    if (zigzag < 128) return this.#put(columns[column]!, zigzag);
    this.#put(columns[column]!, (zigzag & 127) | 128);
    const rest = zigzag >>> 7;
    if (rest < 128) return this.#put(columns[column + 1]!, rest);
    this.#put(columns[column + 1]!, (rest & 127) | 128);
    this.#high(columns[column + 2]!, rest >>> 7);
  }

  /** Appends the difference of two times, whole numbers of less than 2^53 either way, to a lane. */
  time(lane: number, difference: number): void {
    if (difference < 0x4000_0000 && difference >= -0x4000_0000) {
      return this.word(lane, difference);
    }
    // Zigzag without doubling, which would lose the lowest bit beyond 2^53.
    const sign = difference < 0 ? 1 : 0;
    const size = sign ? -1 - difference : difference;
    const column = laneColumn(lane);
    const rest = Math.floor(size / 64);
    this.#put(this.#columns[column]!, (size % 64) * 2 + sign | 128);
    this.#put(this.#columns[column + 1]!, rest % 128 | 128);
    this.#high(this.#columns[column + 2]!, Math.floor(rest / 128));
  }

  /** The content: the columns' lengths, then the columns. */
  content(): Content {
    const head: number[] = [];
    for (const column of this.#columns) {
      let rest = column.at;
      for (; rest > 127; rest >>>= 7) head.push((rest & 127) | 128);
      head.push(rest);
    }
    const bytes = new Uint8Array(head.length + this.size);
    bytes.set(head);
    const cuts: number[] = [];
    let at = head.length;
    let cut = 0;
    for (const column of this.#columns) {
      const own = column.at >= OWN_SEGMENT;
      if (own && at > cut) cuts.push(cut = at);
      bytes.set(column.bytes.subarray(0, column.at), at);
      at += column.at;
      if (own) cuts.push(cut = at);
    }
    if (at > cut) cuts.push(at);
    return { bytes, cuts };
  }

  /** Empties all columns. */
  clear(): void {
    for (const column of this.#columns) column.at = 0;
    this.size = 0;
  }

  #high(column: Column, value: number): void {
    let rest = value;
    while (rest > 127) {
      this.#put(column, (rest % 128) | 128);
      rest = Math.floor(rest / 128);
    }
    this.#put(column, rest);
  }

  #touch(column: Column): void {
    if (column.event !== this.#event) {
      column.event = this.#event;
      column.mark = column.at;
    }
  }

  #put(column: Column, byte: number): void {
    this.#touch(column);
    if (column.at === column.bytes.length) column.grow(0);
    column.bytes[column.at++] = byte;
    this.size++;
  }
}
