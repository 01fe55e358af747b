/**
 * Events to the content of an events block.
 *
 * @module
 */
import { Buffer } from "node:buffer";
import type { Image, TraceEvent } from "../../engine/event.ts";
import { ColumnWriter, type Content, timeLane, wordLane } from "./columns.ts";
import { TraceError } from "../errors.ts";
import { MAX_EVENTS, MAX_IMAGE, NO_TIME } from "./format.ts";
import { type Channel, NO_PLACES } from "./channel.ts";
import { BlockState, type FieldState, padded, presentIn, type VcpuState } from "./images.ts";
import { HEAD_NO_TIME, HEAD_VCPU, OP, PLACES, SHAPE } from "./field_codes.ts";
import { type Meta, packMap } from "./msgpack.ts";
import { CODING, type FieldPlan, type KindPlan, PLAN_BY_KIND } from "./schema.ts";

const MAX_U64 = 0xffff_ffff_ffff_ffffn;
const utf8 = new TextEncoder();

/** Thrown and caught here when a block cannot take an event any more. */
class Full extends Error {}

/** Collects events for one block after the other. */
export class EventEncoder {
  /** Events taken since the last {@linkcode EventEncoder.take}. */
  count = 0;
  /** First time among them. */
  firstTime: number = NO_TIME;
  /** Last time among them. */
  lastTime: number = NO_TIME;
  readonly #columns = new ColumnWriter();
  readonly #u64 = new BigUint64Array(1);
  readonly #halves = new Uint32Array(this.#u64.buffer);
  readonly #scratch = new Uint32Array(MAX_IMAGE / 4);
  readonly #scratchBytes = new Uint8Array(this.#scratch.buffer);
  readonly #olds = new Uint32Array(MAX_IMAGE / 4);
  readonly #ownPlaces = new Uint16Array(MAX_IMAGE / 4);
  readonly #lastPlaces = new Uint16Array(MAX_IMAGE / 4);
  readonly #plans: ReadonlyMap<string, KindPlan>;
  #state = new BlockState();
  #vcpu: VcpuState | undefined;
  #time = 0;
  #texts = new Map<string, number>();
  #placeLists = new Map<string, number>();

  /** @param plans Kinds of events it takes, by name; this code's own when left out. */
  constructor(plans: ReadonlyMap<string, KindPlan> = PLAN_BY_KIND) {
    this.#plans = plans;
  }

  /**
   * Takes an event.
   *
   * @param event The event.
   * @returns Whether it was taken; when not, {@linkcode EventEncoder.take} the block and try again.
   * @throws {TraceError} `event` for a value outside the type of its field; the events taken before stay.
   */
  add(event: TraceEvent): boolean {
    const plan = this.#plans.get(event.kind);
    if (!plan) throw new TraceError("event", `No kind of event is called ${String(event.kind)}`);
    if (this.count === MAX_EVENTS) return false;
    const columns = this.#columns;
    columns.begin();
    try {
      this.#event(plan, event);
      if (!columns.full) {
        this.count++;
        return true;
      }
    } catch (error) {
      if (!(error instanceof Full)) {
        this.#spoilt = true;
        columns.back();
        throw error;
      }
    }
    columns.back();
    return false;
  }

  /** Whether the block has to end, since a refused event left its memory changed. */
  get spoilt(): boolean {
    return this.#spoilt;
  }
  #spoilt = false;

  /** The content of the block with all events taken; the next begins empty. */
  take(): Content {
    const content = this.#columns.content();
    this.#columns.clear();
    this.#state = new BlockState();
    this.#vcpu = undefined;
    this.#texts = new Map();
    this.#placeLists = new Map();
    this.#time = 0;
    this.#spoilt = false;
    this.count = 0;
    this.firstTime = this.lastTime = NO_TIME;
    return content;
  }

  #event(plan: KindPlan, event: TraceEvent): void {
    const columns = this.#columns;
    let flags = plan.id;
    let vcpu = this.#vcpu;
    if (vcpu === undefined || vcpu.vcpu !== event.vcpu) {
      const number = event.vcpu;
      if (number >>> 0 !== number) throw bad(plan, "vcpu", number, "a whole number below 2^32");
      vcpu = this.#state.vcpu(number);
      if (!vcpu) throw new Full();
      this.#vcpu = vcpu;
      flags |= HEAD_VCPU;
      columns.shape(number);
    }
    const time = event.time;
    if (time === undefined) {
      flags |= HEAD_NO_TIME;
    } else {
      if (!(Number.isSafeInteger(time) && time >= 0)) {
        throw bad(plan, "time", time, "a whole number below 2^53");
      }
      columns.time(timeLane(plan.id), time - this.#time);
      this.#time = time;
    }
    const state = vcpu.kind(plan);
    const fields = plan.fields;
    const values = event as unknown as Record<string, unknown>;
    let ops = 0;
    for (let i = 0; i < fields.length; i++) {
      const field = fields[i]!;
      const value = values[field.name];
      if (value === undefined) continue;
      const last = state.fields[i]!;
      let op: number;
      switch (field.coding) {
        case CODING.u32:
          op = this.#u32(plan, i, last, value);
          break;
        case CODING.i32:
          op = this.#i32(plan, i, last, value);
          break;
        case CODING.u64:
          op = this.#bigint(plan, i, last, value);
          break;
        case CODING.text:
          op = this.#text(plan, field, last, value);
          break;
        case CODING.map:
          op = this.#map(plan, field, last, value);
          break;
        default:
          op = this.#image(vcpu, plan, last, presentIn(ops), value);
      }
      ops |= op << (2 * i);
    }
    columns.head(flags, ops, plan.opBytes);
    // Only now that nothing can fail: these end up in the block's header.
    if (time !== undefined && !columns.full) {
      if (this.firstTime === NO_TIME) this.firstTime = time;
      this.lastTime = time;
    }
  }

  #u32(plan: KindPlan, index: number, last: FieldState, value: unknown): number {
    if (typeof value !== "number" || value >>> 0 !== value) {
      throw bad(plan, plan.fields[index]!.name, value, "a whole number below 2^32");
    }
    if (value === last.lo) return OP.again;
    this.#columns.word(wordLane(plan.id, index), (value - last.lo) | 0);
    last.lo = value;
    return OP.changed;
  }

  #i32(plan: KindPlan, index: number, last: FieldState, value: unknown): number {
    if (typeof value !== "number" || (value | 0) !== value) {
      throw bad(plan, plan.fields[index]!.name, value, "a whole number of 32 bits");
    }
    if (value === last.lo) return OP.again;
    this.#columns.word(wordLane(plan.id, index), (value - last.lo) | 0);
    last.lo = value;
    return OP.changed;
  }

  #bigint(plan: KindPlan, index: number, last: FieldState, value: unknown): number {
    if (value === last.value) return OP.again;
    if (typeof value !== "bigint" || value < 0n || value > MAX_U64) {
      throw bad(plan, plan.fields[index]!.name, value, "a bigint below 2^64");
    }
    last.value = value;
    this.#u64[0] = value;
    const lo = this.#halves[0]!;
    const hi = this.#halves[1]!;
    this.#columns.word(wordLane(plan.id, index), (lo - last.lo) | 0);
    last.lo = lo;
    if (hi === last.hi) return OP.changed;
    this.#columns.word(wordLane(plan.id, index), (hi - last.hi) | 0);
    last.hi = hi;
    return OP.other;
  }

  #text(plan: KindPlan, field: FieldPlan, last: FieldState, value: unknown): number {
    if (value === last.value) return OP.again;
    if (typeof value !== "string") throw bad(plan, field.name, value, "text");
    last.value = value;
    const columns = this.#columns;
    const number = this.#texts.get(value);
    if (number !== undefined) {
      last.lo = number;
      columns.shape(number);
      return OP.changed;
    }
    if (!value.isWellFormed()) throw bad(plan, field.name, value, "text without lone surrogates");
    last.lo = this.#texts.size;
    this.#texts.set(value, last.lo);
    const bytes = utf8.encode(value);
    columns.shape(bytes.length);
    columns.bytes(bytes);
    return OP.other;
  }

  #map(plan: KindPlan, field: FieldPlan, last: FieldState, value: unknown): number {
    if (typeof value !== "object" || value === null) throw bad(plan, field.name, value, "a map");
    const bytes = packMap(value as Meta);
    if (last.packed.length > 0 && Buffer.compare(bytes, last.packed) === 0) return OP.again;
    // The packer reuses its buffer.
    last.packed = bytes.slice();
    this.#columns.shape(bytes.length);
    this.#columns.bytes(bytes);
    return OP.other;
  }

  #image(
    vcpu: VcpuState,
    plan: KindPlan,
    last: FieldState,
    present: number,
    value: unknown,
  ): number {
    const { name } = last.plan;
    const image = value as Image;
    const bytes = image.bytes;
    if (!(bytes instanceof Uint8Array) || bytes.length === 0 || bytes.length > MAX_IMAGE) {
      throw bad(plan, name, value, `an image of 1 to ${MAX_IMAGE} bytes`);
    }
    const known = image.known;
    if (known !== undefined && known.length !== bytes.length) {
      throw bad(plan, name, value, "an image whose mask is of the same size");
    }
    const channel = this.#state.channel(vcpu, last, present);
    if (!channel) throw new Full();
    const resized = bytes.length !== channel.length;
    const masked = resized
      ? known !== undefined
      : known === undefined
      ? channel.known !== undefined
      : channel.known === undefined || Buffer.compare(known, channel.known) !== 0;
    let op = 0;
    if (!resized && !masked) {
      if (channel.calm && Buffer.compare(bytes, channel.bytes) === 0) op = OP.other;
      else op = this.#tryAgain(channel, bytes);
    }
    if (op === 0) op = this.#describe(channel, bytes, resized, masked, known);
    channel.calm = op === OP.other;
    channel.slot.last = channel;
    return op;
  }

  /** Tries the cheap ways to tell an image; 0 when they do not do. */
  #tryAgain(channel: Channel, bytes: Uint8Array): number {
    const base = channel.fromLast ? channel.slot.last : channel;
    if (base === undefined || base.length !== bytes.length) return 0;
    // A channel that always came back to its own last image is told in less, so look now and then.
    if (
      base !== channel && (channel.turns++ & 7) === 0 && Buffer.compare(bytes, channel.bytes) === 0
    ) return OP.other;
    const places = channel.places;
    const count = places.length;
    if (count === 0) {
      if (Buffer.compare(bytes, base.bytes) !== 0) {
        return base !== channel && Buffer.compare(bytes, channel.bytes) === 0 ? OP.other : 0;
      }
      if (base !== channel) channel.bytes.set(bytes);
      return OP.again;
    }
    // The base is changed at the named places; if that makes it equal, the places were enough.
    const olds = this.#olds;
    const words = base.words;
    let changed = 0;
    for (let i = 0; i < count; i++) {
      const place = places[i]!;
      const at = place << 2;
      // Reading beyond the end of an odd-sized image gives 0, as wanted.
      const word = (bytes[at]! | bytes[at + 1]! << 8 | bytes[at + 2]! << 16 |
        bytes[at + 3]! << 24) >>> 0;
      const old = words[place]!;
      olds[i] = old;
      if (word !== old) {
        changed++;
        words[place] = word;
      }
    }
    // Many named places without a difference: an exact list is shorter.
    const wasteful = count - changed > 4 && count > 2 * changed;
    const equal = !wasteful && Buffer.compare(bytes, base.bytes) === 0;
    const same = equal && changed === 0 && base === channel;
    if (equal && !same) {
      const columns = this.#columns;
      for (let i = 0; i < count; i++) {
        const place = places[i]!;
        columns.word(wordLane(channel.kind, place), words[place]! - olds[i]! | 0);
      }
    }
    if (base !== channel || !equal) {
      for (let i = 0; i < count; i++) words[places[i]!] = olds[i]!;
    }
    if (same) return OP.other;
    if (!equal) return Buffer.compare(bytes, channel.bytes) === 0 ? OP.other : 0;
    if (base !== channel) channel.bytes.set(bytes);
    return OP.again;
  }

  /** Tells an image in full: base, size, mask and places. */
  #describe(
    channel: Channel,
    bytes: Uint8Array,
    resized: boolean,
    masked: boolean,
    known: Uint8Array | undefined,
  ): number {
    const columns = this.#columns;
    const previous = channel.slot.last;
    if (resized) channel.resize(bytes.length);
    const size = channel.words.length;
    const scratch = this.#scratch;
    scratch[size - 1] = 0;
    this.#scratchBytes.set(bytes);
    let places = this.#ownPlaces;
    let base = channel;
    let count = differing(scratch, channel.words, size, places, size);
    if (
      count > 0 && previous !== undefined && previous !== channel &&
      previous.length === bytes.length
    ) {
      const other = differing(scratch, previous.words, size, this.#lastPlaces, count);
      if (other < count) {
        count = other;
        places = this.#lastPlaces;
        base = previous;
      }
    }
    let shape = base === channel ? 0 : SHAPE.fromLast;
    if (resized) shape |= SHAPE.size;
    if (masked) shape |= SHAPE.known;
    const raw = count > 64 && count > size / 2;
    let list: string | undefined;
    let number: number | undefined;
    let how: number = PLACES.none;
    if (raw) {
      how = PLACES.raw;
      shape &= ~SHAPE.fromLast;
    } else if (count > 0) {
      list = String.fromCharCode(...places.subarray(0, count));
      number = this.#placeLists.get(list);
      how = number === undefined ? PLACES.list : PLACES.table;
    }
    columns.shape(shape + how * SHAPE.places);
    if (resized) columns.shape(bytes.length);
    if (masked) this.#mask(channel, known);
    channel.fromLast = (shape & SHAPE.fromLast) !== 0;
    if (raw) {
      channel.places = NO_PLACES;
      this.#columns.bytes(bytes);
    } else {
      channel.places = places.slice(0, count);
      if (number !== undefined) columns.shape(number);
      else if (list !== undefined) {
        this.#placeLists.set(list, this.#placeLists.size);
        this.#list(channel.places);
      }
      for (let i = 0; i < count; i++) {
        const place = places[i]!;
        columns.word(wordLane(channel.kind, place), scratch[place]! - base.words[place]! | 0);
      }
    }
    channel.bytes.set(bytes);
    return OP.changed;
  }

  /** A list of places: how many, then the gaps between them. */
  #list(places: Uint16Array): void {
    const columns = this.#columns;
    columns.shape(places.length);
    let next = 0;
    for (const place of places) {
      columns.shape(place - next);
      next = place + 1;
    }
  }

  /** The mask of known bits: 0 for all known, else 1 and its words against the last mask. */
  #mask(channel: Channel, known: Uint8Array | undefined): void {
    const columns = this.#columns;
    if (known === undefined) {
      columns.shape(0);
      channel.setKnown(undefined);
      return;
    }
    columns.shape(1);
    const size = channel.words.length;
    const mask = padded(known, size);
    const base = padded(channel.known, size);
    const places = new Uint16Array(size);
    const count = differing(mask, base, size, places, size);
    this.#list(places.subarray(0, count));
    for (let i = 0; i < count; i++) {
      const place = places[i]!;
      columns.word(wordLane(channel.kind, place), mask[place]! - base[place]! | 0);
    }
    channel.setKnown(known.slice());
  }
}

/** Collects where two arrays differ, up to a number of places. */
function differing(
  a: Uint32Array,
  b: Uint32Array,
  size: number,
  places: Uint16Array,
  most: number,
): number {
  let count = 0;
  for (let i = 0; i < size; i++) {
    if (a[i] !== b[i]) {
      if (count === most) return most;
      places[count++] = i;
    }
  }
  return count;
}

function bad(plan: KindPlan, field: string, value: unknown, wanted: string): TraceError {
  const shown = typeof value === "object" ? "what it has" : String(value).slice(0, 40);
  return new TraceError(
    "event",
    `Field ${field} of ${plan.kind} has to be ${wanted}, not ${shown}`,
    { field },
  );
}
