/**
 * The content of an events block to events.
 *
 * @module
 */
import { Buffer } from "node:buffer";
import type { TraceEvent } from "../../engine/event.ts";
import { type Channel, NO_PLACES } from "./channel.ts";
import { wordColumn } from "./columns.ts";
import { damaged } from "../errors.ts";
import { EventObjects } from "./event_objects.ts";
import { COLUMN, COLUMNS, MAX_IMAGE } from "./format.ts";
import { HEAD_NO_TIME, HEAD_VCPU, OP, PLACES, SHAPE } from "./field_codes.ts";
import { BlockState, type FieldState, padded, presentIn, type VcpuState } from "./images.ts";
import { type Meta, unpackMap } from "./msgpack.ts";
import { CODING, type KindPlan } from "./schema.ts";

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
const latin1 = Buffer.prototype.latin1Slice;

/**
 * Steps through the events of one block, those of kinds that are not known here among them.
 *
 * @example
 * ```ts
 * import { readTrace, TraceWriter } from "@vmtape/vmtape/codecs";
 * const chunks: Uint8Array[] = [];
 * const writer = new TraceWriter({ write: (chunk) => chunks.push(chunk) });
 * writer.write({ kind: "case", vcpu: 0, name: "first" });
 * writer.close();
 * for await (const block of (await readTrace(chunks)).blocks()) {
 *   const decoder = block.decoder();
 *   if (decoder.next()?.kind !== "case" || decoder.done !== 1) throw new Error();
 *   if (decoder.next() !== undefined) throw new Error();
 * }
 * ```
 */
export class EventDecoder {
  readonly #content: Uint8Array;
  readonly #offset: number;
  readonly #plans: readonly (KindPlan | undefined)[];
  readonly #count: number;
  /** Of each column where it stands, and where it ends: side by side, since both are asked for at once. */
  readonly #cursors = new Int32Array(2 * COLUMNS);
  readonly #u64 = new BigUint64Array(1);
  readonly #halves = new Uint32Array(this.#u64.buffer);
  readonly #state = new BlockState();
  readonly #differences = new Int32Array(MAX_IMAGE / 4);
  readonly #texts: string[] = [];
  readonly #placeLists: Uint16Array[] = [];
  #vcpu: VcpuState | undefined;
  #time = 0;
  #done = 0;
  /** Values that were numbered, since they are no numbers that can be told apart. */
  #values = 0;

  /**
   * Stands before the first event.
   *
   * @param content Content of an events block.
   * @param count Number of events that its header declares.
   * @param plans The trace's event table.
   * @param offset Where the block begins, for messages.
   * @throws {TraceError} `damaged` when the columns do not fill the content.
   */
  constructor(
    content: Uint8Array,
    count: number,
    plans: readonly (KindPlan | undefined)[],
    offset: number,
  ) {
    this.#content = content;
    this.#count = count;
    this.#plans = plans;
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

  /** How many events were stepped over. */
  get done(): number {
    return this.#done;
  }

  /**
   * The next event. The object, its images among it, is used again by the next step.
   *
   * @returns The event, under its own name and with its own fields also where this code does not know
   * the kind; `undefined` at the end.
   * @throws {TraceError} `damaged` when the content is not what an encoder writes.
   */
  next(): TraceEvent | undefined {
    if (this.#done === this.#count) {
      this.#finish();
      return undefined;
    }
    const flags = this.#byte(COLUMN.heads);
    const plan = this.#plans[flags & 63];
    if (plan === undefined) throw this.#undeclared(flags & 63);
    const ops = this.#operations(plan.opBytes);
    if ((flags & HEAD_VCPU) !== 0) this.#otherVcpu();
    const vcpu = this.#vcpu;
    if (vcpu === undefined) throw this.#bad("The first event does not name its vCPU");
    const present = presentIn(ops);
    const timed = (flags & HEAD_NO_TIME) === 0;
    const time = timed ? this.#timeStep(plan.timeColumn) : 0;
    const kind = vcpu.kind(plan);
    const fields = kind.fields;
    const told = ops & ~(ops & ~(ops >>> 1) & plan.plain);
    let image: Channel | undefined;
    for (let i = 0, todo = told; todo !== 0; i++, todo >>>= 2) {
      const op = todo & 3;
      if (op === OP.absent) continue;
      const state = fields[i];
      if (state === undefined) throw this.#bad(`An event of kind ${plan.kind} has too many fields`);
      if (state.plan.coding === CODING.image) {
        const channel = this.#image(vcpu, state, present, op);
        image ??= channel;
      } else {
        this.#value(state, op);
      }
    }
    const key = timed ? present << 1 | 1 : present << 1;
    const objects = image === undefined
      ? kind.events
      : image.events ??= new EventObjects(plan, vcpu.vcpu);
    const object = objects.get(key);
    const { event, stored } = object;
    if (timed) event.time = time;
    // The object that was handed out last holds what was not told anew.
    const stale = object === kind.last ? told : ops;
    kind.last = object;
    for (let i = 0, todo = stale; todo !== 0; i++, todo >>>= 2) {
      if ((todo & 3) === OP.absent) continue;
      const state = fields[i]!;
      if (stored[i] !== state.number) {
        stored[i] = state.number;
        event[state.plan.name] = state.plan.coding === CODING.u64
          ? this.#bigint(state)
          : state.value;
      }
    }
    this.#done++;
    return event as unknown as TraceEvent;
  }

  /**
   * Looks for events of a kind among those not stepped over yet, by the column of their heads alone.
   *
   * @param kind Name of the kind.
   * @param after Events of the block to pass over.
   * @returns How many events of the block come before the first one; undefined when there is none.
   * @throws {TraceError} `damaged` when the content is not what an encoder writes.
   */
  find(kind: string, after = 0): number | undefined {
    const content = this.#content;
    let at = this.#cursors[2 * COLUMN.heads]!;
    const end = this.#cursors[2 * COLUMN.heads + 1]!;
    for (let number = this.#done; number < this.#count && at < end; number++) {
      const id = content[at]! & 63;
      const plan = this.#plans[id];
      if (plan === undefined) throw this.#undeclared(id);
      if (number >= after && plan.kind === kind) return number;
      at += 1 + plan.opBytes;
    }
    return undefined;
  }

  #otherVcpu(): void {
    const vcpu = this.#state.vcpu(this.#varint());
    if (!vcpu) throw this.#bad("A block has too many vCPUs");
    this.#vcpu = vcpu;
  }

  #bigint({ lo, hi }: FieldState): bigint {
    this.#halves[0] = lo;
    this.#halves[1] = hi;
    return this.#u64[0]!;
  }

  #image(vcpu: VcpuState, state: FieldState, present: number, op: number): Channel {
    const channel = this.#state.channel(vcpu, state, present);
    if (channel === undefined) throw this.#bad("A block has too many image channels");
    if (op === OP.changed) this.#described(channel);
    else if (channel.length === 0) throw this.#bad("An image without a size");
    else if (op === OP.again) this.#change(channel);
    channel.slot.last = channel;
    const image = channel.image;
    state.value = image;
    state.number = image.number;
    return channel;
  }

  #value(last: FieldState, op: number): void {
    const field = last.plan;
    switch (field.coding) {
      case CODING.u32:
        if (op !== OP.changed) throw this.#bad(`Field ${field.name} has a bad operation`);
        last.number = last.value = last.lo = (last.lo + this.#word(field.column)) >>> 0;
        return;
      case CODING.i32:
        if (op !== OP.changed) throw this.#bad(`Field ${field.name} has a bad operation`);
        last.number = last.value = last.lo = (last.lo + this.#word(field.column)) | 0;
        return;
      case CODING.u64: {
        const lo = last.lo = (last.lo + this.#word(field.column)) >>> 0;
        if (op === OP.other) last.hi = (last.hi + this.#word(field.column)) >>> 0;
        const number = last.hi * 2 ** 32 + lo;
        last.number = number <= Number.MAX_SAFE_INTEGER ? number : -++this.#values;
        return;
      }
      case CODING.text:
        last.number = last.lo = op === OP.changed ? this.#varint() : this.#newText();
        last.value = this.#texts[last.lo];
        if (last.value === undefined) throw this.#bad("A text is not in the table");
        return;
      default:
        if (op !== OP.other) throw this.#bad(`Field ${field.name} has a bad operation`);
        last.number = ++this.#values;
        last.value = this.#map();
    }
  }

  #described(channel: Channel): void {
    const shape = this.#varint();
    const how = shape >>> 3;
    if (how > PLACES.raw) throw this.#bad("An image has a bad descriptor");
    if (shape & SHAPE.size) {
      const size = this.#varint();
      if (size === 0 || size > MAX_IMAGE) throw this.#bad(`An image declares ${size} bytes`);
      channel.resize(size);
    } else if (channel.length === 0) {
      throw this.#bad("An image without a size");
    }
    if (shape & SHAPE.known) this.#mask(channel);
    channel.fromLast = (shape & SHAPE.fromLast) !== 0;
    if (how === PLACES.raw) return channel.replace(this.#take(channel.length));
    if (how === PLACES.none) channel.places = NO_PLACES;
    else if (how === PLACES.list) {
      channel.places = this.#list();
      this.#placeLists.push(channel.places);
    } else {
      const list = this.#placeLists[this.#varint()];
      if (!list) throw this.#bad("An image names a place list that does not exist");
      channel.places = list;
    }
    this.#change(channel);
  }

  /** Applies differences at the channel's places to its base. */
  #change(channel: Channel): void {
    const { places, words, length } = channel;
    const base = channel.fromLast ? channel.slot.last : channel;
    if (base === undefined || base.length !== length) {
      throw this.#bad("An image is against one that does not exist");
    }
    const count = places.length;
    if (count > 0 && places[count - 1]! >= words.length) {
      throw this.#bad("An image has a place beyond its end");
    }
    const differences = this.#words(channel.kind, places);
    if (base === channel) channel.change(differences);
    else channel.changeFrom(base, differences);
    if ((length & 3) !== 0 && words[words.length - 1]! >>> (8 * (length & 3))) {
      throw this.#bad("An image has bytes beyond its end");
    }
  }

  #mask(channel: Channel): void {
    const how = this.#varint();
    if (how === 0) return channel.setKnown(undefined);
    if (how !== 1) throw this.#bad("An image has a bad mask");
    const words = padded(channel.known, channel.words.length);
    for (const place of this.#list()) {
      if (place >= words.length) throw this.#bad("A mask has a place beyond its end");
      words[place]! += this.#word(wordColumn(channel.kind, place));
    }
    channel.setKnown(new Uint8Array(words.buffer, 0, channel.length));
  }

  #list(): Uint16Array {
    const count = this.#varint();
    // Every place takes a byte at least, so this bounds what a damaged count can ask for.
    if (count > MAX_IMAGE / 4) throw this.#bad(`A place list declares ${count} places`);
    const places = new Uint16Array(count);
    let next = 0;
    for (let i = 0; i < count; i++) {
      const place = next + this.#varint();
      if (place >= MAX_IMAGE / 4) throw this.#bad("A place list goes beyond the largest image");
      places[i] = place;
      next = place + 1;
    }
    return places;
  }

  /** Adds a text to the table; returns its number. */
  #newText(): number {
    return this.#texts.push(this.#text(this.#varint())) - 1;
  }

  #text(size: number): string {
    const at = this.#skip(size);
    const bytes = this.#content;
    let all = 0;
    for (let i = at; i < at + size; i++) all |= bytes[i]!;
    if (all < 0x80) return latin1.call(bytes, at, at + size);
    try {
      return utf8.decode(bytes.subarray(at, at + size));
    } catch {
      throw this.#bad("A text is not UTF-8");
    }
  }

  #map(): Meta {
    const bytes = this.#take(this.#varint());
    try {
      return unpackMap(bytes);
    } catch (error) {
      throw this.#bad(`A map cannot be read: ${error instanceof Error ? error.message : error}`);
    }
  }

  #take(size: number): Uint8Array {
    const at = this.#skip(size);
    return this.#content.subarray(at, at + size);
  }

  /** Steps over bytes of their column; returns where they are. */
  #skip(size: number): number {
    const cursors = this.#cursors;
    const at = cursors[2 * COLUMN.bytes]!;
    if (size > cursors[2 * COLUMN.bytes + 1]! - at) {
      throw this.#bad("Bytes run beyond their column");
    }
    cursors[2 * COLUMN.bytes] = at + size;
    return at;
  }

  /** The operations of an event's fields: so many bytes. */
  #operations(bytes: number): number {
    const cursors = this.#cursors;
    const content = this.#content;
    const at = cursors[2 * COLUMN.heads]!;
    if (bytes > cursors[2 * COLUMN.heads + 1]! - at) throw this.#beyond();
    cursors[2 * COLUMN.heads] = at + bytes;
    let ops = 0;
    for (let i = bytes; i-- > 0;) ops = ops << 8 | content[at + i]!;
    return ops;
  }

  #byte(column: number): number {
    const cursors = this.#cursors;
    const at = cursors[2 * column]!;
    if (at === cursors[2 * column + 1]) throw this.#beyond();
    cursors[2 * column] = at + 1;
    return this.#content[at]!;
  }

  #varint(): number {
    const first = this.#byte(COLUMN.shapes);
    if (first < 128) return first;
    let value = first & 127;
    for (let shift = 7; shift < 35; shift += 7) {
      const byte = this.#byte(COLUMN.shapes);
      value += (byte & 127) * 2 ** shift;
      if (byte < 128) {
        if (value > 0xffff_ffff) break;
        return value;
      }
    }
    throw this.#bad("A number is too long");
  }

  /** The difference of a word, modulo 2^32, by the first of its lane's columns. */
  #word(column: number): number {
    const first = this.#byte(column);
    const zigzag = first > 127 ? this.#longer(first, column) : first;
    return (zigzag >>> 1) ^ -(zigzag & 1);
  }

  /** The differences of words at some places; valid until the next are read. */
  #words(kind: number, places: Uint16Array): Int32Array {
    const content = this.#content;
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
    const mid = this.#byte(column + 1);
    const zigzag = (first & 127) | (mid & 127) << 7;
    if (mid < 128) return zigzag;
    const rest = this.#high(column + 2);
    if (rest > 0x3ffff) throw this.#bad("A word difference is too long");
    return zigzag | rest << 14;
  }

  /** Further groups of 7 bits, up to 49 bits in all: a time has no more. */
  #high(column: number): number {
    let value = 0;
    for (let scale = 1; scale <= 2 ** 42; scale *= 128) {
      const byte = this.#byte(column);
      value += (byte & 127) * scale;
      if (byte < 128) return value;
    }
    throw this.#bad("A number is too long");
  }

  #timeStep(column: number): number {
    const first = this.#byte(column);
    let size = (first & 127) >>> 1;
    if (first > 127) {
      const mid = this.#byte(column + 1);
      size += (mid & 127) * 64;
      if (mid > 127) size += this.#high(column + 2) * 8192;
    }
    const time = first & 1 ? this.#time - 1 - size : this.#time + size;
    if (!(time >= 0 && time <= Number.MAX_SAFE_INTEGER)) throw this.#bad("A time is out of range");
    return this.#time = time;
  }

  #finish(): void {
    for (let i = 0; i < COLUMNS; i++) {
      if (this.#cursors[2 * i] !== this.#cursors[2 * i + 1]) {
        throw this.#bad("A block has more content than events");
      }
    }
  }

  #undeclared(id: number): Error {
    return this.#bad(`An event is of the undeclared kind ${id}`);
  }

  #beyond(): Error {
    return this.#bad("An event runs beyond its columns");
  }

  #bad(what: string): Error {
    return damaged(this.#offset, `${what}: event ${this.#done} of the block`);
  }
}
