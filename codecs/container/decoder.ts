/**
 * The content of an events block to events.
 *
 * @module
 */
import { Buffer } from "node:buffer";
import type { TraceEvent } from "../../engine/event.ts";
import { timeLane, wordLane } from "./columns.ts";
import { damaged } from "../errors.ts";
import { COLUMN, COLUMNS, MAX_IMAGE } from "./format.ts";
import { HEAD_NO_TIME, HEAD_VCPU, OP, PLACES, SHAPE } from "./field_codes.ts";
import { BlockState, type Channel, type FieldState, padded, type VcpuState } from "./images.ts";
import { type Meta, unpackMap } from "./msgpack.ts";
import { CODING, type FieldPlan, type KindPlan } from "./schema.ts";

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** Event objects by the fields they have: one each, handed out again and again. */
class Shapes {
  readonly #objects = new Map<number, Record<string, unknown>>();
  #key = -1;
  #object: Record<string, unknown> = {};

  /** The object with the fields of a mask; the lowest bit stands for the time. */
  get(plan: KindPlan, key: number): Record<string, unknown> {
    if (key === this.#key) return this.#object;
    let object = this.#objects.get(key);
    if (!object) {
      object = { kind: plan.kind, vcpu: 0 };
      if (key & 1) object.time = 0;
      plan.fields.forEach((field, i) => {
        if (key & (2 << (2 * i))) object![field.name] = undefined;
      });
      this.#objects.set(key, object);
    }
    this.#key = key;
    return this.#object = object;
  }
}

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
  /** Where each column stands. */
  readonly #at = new Int32Array(COLUMNS);
  /** Where each column ends. */
  readonly #ends = new Int32Array(COLUMNS);
  readonly #u64 = new BigUint64Array(1);
  readonly #halves = new Uint32Array(this.#u64.buffer);
  readonly #state = new BlockState();
  readonly #objects: (Shapes | undefined)[] = [];
  readonly #texts: string[] = [];
  readonly #placeLists: Uint16Array[] = [];
  #vcpu: VcpuState | undefined;
  #time = 0;
  #done = 0;

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
    const ends = this.#ends;
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
      ends[i] = size += length;
    }
    if (at + size !== content.length) throw damaged(offset, "The columns do not fill their block");
    for (let i = 0; i < COLUMNS; i++) {
      this.#at[i] = at + (i === 0 ? 0 : ends[i - 1]!);
    }
    for (let i = 0; i < COLUMNS; i++) ends[i]! += at;
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
    if (plan === undefined) throw this.#bad(`An event is of the undeclared kind ${flags & 63}`);
    let ops = 0;
    for (let i = 0; i < plan.opBytes; i++) ops |= this.#byte(COLUMN.heads) << (8 * i);
    let vcpu = this.#vcpu;
    if ((flags & HEAD_VCPU) !== 0) {
      vcpu = this.#state.vcpu(this.#varint());
      if (!vcpu) throw this.#bad("A block has too many vCPUs");
      this.#vcpu = vcpu;
    } else if (vcpu === undefined) {
      throw this.#bad("The first event does not name its vCPU");
    }
    const present = (ops | ops >>> 1) & 0x55555555;
    const timed = (flags & HEAD_NO_TIME) === 0;
    const shapes = this.#objects[plan.id] ??= new Shapes();
    const event = shapes.get(plan, timed ? present << 1 | 1 : present << 1);
    if (timed) event.time = this.#timeStep(timeLane(plan.id));
    const state = vcpu.kind(plan);
    // What the object holds already need not be stored again.
    const fresh = state.object !== event || event.vcpu !== vcpu.vcpu;
    if (fresh) {
      state.object = event;
      event.vcpu = vcpu.vcpu;
    }
    const fields = plan.fields;
    for (let i = 0; ops !== 0; i++, ops >>>= 2) {
      const op = ops & 3;
      if (op === OP.absent) continue;
      const field = fields[i];
      if (field === undefined) throw this.#bad(`An event of kind ${plan.kind} has too many fields`);
      const last = state.fields[i]!;
      if (field.coding === CODING.image) {
        const channel = this.#channel(plan, field, last, event, vcpu);
        this.#image(channel, op);
        if (fresh || last.image !== channel.image) {
          event[field.name] = last.image = channel.image;
        }
      } else {
        if (op !== OP.again) this.#value(field, wordLane(plan.id, i), last, op);
        if (fresh || op !== OP.again) event[field.name] = last.value;
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
    const end = this.#ends[COLUMN.heads]!;
    let at = this.#at[COLUMN.heads]!;
    for (let number = this.#done; number < this.#count && at < end; number++) {
      const id = content[at]! & 63;
      const plan = this.#plans[id];
      if (plan === undefined) throw this.#bad(`An event is of the undeclared kind ${id}`);
      if (number >= after && plan.kind === kind) return number;
      at += 1 + plan.opBytes;
    }
    return undefined;
  }

  #value(field: FieldPlan, lane: number, last: FieldState, op: number): void {
    switch (field.coding) {
      case CODING.u32:
        if (op !== OP.changed) throw this.#bad(`Field ${field.name} has a bad operation`);
        last.value = last.lo = (last.lo + this.#word(lane)) >>> 0;
        return;
      case CODING.i32:
        if (op !== OP.changed) throw this.#bad(`Field ${field.name} has a bad operation`);
        last.value = last.lo = (last.lo + this.#word(lane)) | 0;
        return;
      case CODING.u64: {
        const halves = this.#halves;
        halves[0] = last.lo = (last.lo + this.#word(lane)) >>> 0;
        if (op === OP.other) last.hi = (last.hi + this.#word(lane)) >>> 0;
        halves[1] = last.hi;
        last.value = this.#u64[0]!;
        return;
      }
      case CODING.text:
        last.value = op === OP.changed ? this.#tableText() : this.#newText();
        return;
      default:
        if (op !== OP.other) throw this.#bad(`Field ${field.name} has a bad operation`);
        last.value = this.#map();
    }
  }

  #channel(
    plan: KindPlan,
    field: FieldPlan,
    last: FieldState,
    event: Record<string, unknown>,
    vcpu: VcpuState,
  ): Channel {
    const address = field.at < 0 ? undefined : event[plan.fields[field.at]!.name] as bigint;
    const by = field.by < 0 ? undefined : event[plan.fields[field.by]!.name] as string;
    const channel = last.channel(address, by);
    if (channel !== undefined) return channel;
    const found = this.#state.channel(vcpu, plan, field, address, by);
    if (!found) throw this.#bad("A block has too many image channels");
    last.used(found, address, by);
    return found;
  }

  #image(channel: Channel, op: number): void {
    if (op === OP.changed) this.#described(channel);
    else if (channel.length === 0) throw this.#bad("An image without a size");
    else if (op === OP.again) this.#differences(channel);
    channel.slot.last = channel;
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
    if (how === PLACES.raw) {
      channel.places = channel.places.subarray(0, 0);
      channel.bytes.set(this.#take(channel.length));
      channel.image.changed();
      return;
    }
    if (how === PLACES.none) channel.places = channel.places.subarray(0, 0);
    else if (how === PLACES.list) {
      channel.places = this.#list();
      this.#placeLists.push(channel.places);
    } else {
      const list = this.#placeLists[this.#varint()];
      if (!list) throw this.#bad("An image names a place list that does not exist");
      channel.places = list;
    }
    this.#differences(channel);
  }

  /** Applies differences at the channel's places to its base. */
  #differences(channel: Channel): void {
    const words = channel.words;
    if (channel.fromLast) {
      const base = channel.slot.last;
      if (base === undefined || base.length !== channel.length) {
        throw this.#bad("An image is against one that does not exist");
      }
      if (base !== channel && Buffer.compare(channel.bytes, base.bytes) !== 0) {
        words.set(base.words);
        channel.image.changed();
      }
    }
    const places = channel.places;
    const count = places.length;
    if (count === 0) return;
    if (places[count - 1]! >= words.length) throw this.#bad("An image has a place beyond its end");
    let changes = 0;
    for (let i = 0; i < count; i++) {
      const place = places[i]!;
      const change = this.#word(wordLane(channel.kind, place));
      changes |= change;
      words[place]! += change;
    }
    if (changes !== 0) channel.image.changed();
    if ((channel.length & 3) !== 0 && words[words.length - 1]! >>> (8 * (channel.length & 3))) {
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
      words[place]! += this.#word(wordLane(channel.kind, place));
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

  #tableText(): string {
    const text = this.#texts[this.#varint()];
    if (text === undefined) throw this.#bad("A text is not in the table");
    return text;
  }

  #newText(): string {
    try {
      const bytes = this.#take(this.#varint());
      const text = shortAscii(bytes) ?? utf8.decode(bytes);
      this.#texts.push(text);
      return text;
    } catch (error) {
      if (error instanceof TypeError) throw this.#bad("A text is not UTF-8");
      throw error;
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
    const at = this.#at[COLUMN.bytes]!;
    if (size > this.#ends[COLUMN.bytes]! - at) throw this.#bad("Bytes run beyond their column");
    this.#at[COLUMN.bytes] = at + size;
    return this.#content.subarray(at, at + size);
  }

  #byte(column: number): number {
    const at = this.#at[column]!;
    if (at === this.#ends[column]) throw this.#bad("An event runs beyond its columns");
    this.#at[column] = at + 1;
    return this.#content[at]!;
  }

  #varint(): number {
    let value = 0;
    for (let shift = 0; shift < 35; shift += 7) {
      const byte = this.#byte(COLUMN.shapes);
      value += (byte & 127) * 2 ** shift;
      if (byte < 128) {
        if (value > 0xffff_ffff) break;
        return value;
      }
    }
    throw this.#bad("A number is too long");
  }

  #word(lane: number): number {
    const column = COLUMN.lanes + 3 * lane;
    let zigzag = this.#byte(column);
    if (zigzag > 127) {
      const mid = this.#byte(column + 1);
      zigzag = (zigzag & 127) | (mid & 127) << 7;
      if (mid > 127) {
        const rest = this.#high(column + 2);
        if (rest > 0x3ffff) throw this.#bad("A word difference is too long");
        zigzag |= rest << 14;
      }
    }
    return (zigzag >>> 1) ^ -(zigzag & 1);
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

  #timeStep(lane: number): number {
    const column = COLUMN.lanes + 3 * lane;
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
      if (this.#at[i] !== this.#ends[i]) throw this.#bad("A block has more content than events");
    }
  }

  #bad(what: string): Error {
    return damaged(this.#offset, `${what}: event ${this.#done} of the block`);
  }
}

/** Bytes up to which a text is put together here: calling the decoder costs more. */
const SHORT = 64;

/** A short text of ASCII alone; undefined for others. */
function shortAscii(bytes: Uint8Array): string | undefined {
  if (bytes.length > SHORT) return undefined;
  let text = "";
  for (let i = 0; i < bytes.length; i++) {
    const code = bytes[i] as number;
    if (code > 0x7f) return undefined;
    text += String.fromCharCode(code);
  }
  return text;
}
