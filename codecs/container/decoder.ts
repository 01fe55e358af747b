/**
 * The content of an events block to events.
 *
 * @module
 */
import type { TraceEvent } from "../../engine/event.ts";
import { type Channel, NO_PLACES } from "./channel.ts";
import { ColumnReader } from "./column_reader.ts";
import { wordColumn } from "./columns.ts";
import { EventObjects } from "./event_objects.ts";
import { COLUMN, MAX_IMAGE } from "./format.ts";
import { HEAD_NO_TIME, HEAD_VCPU, OP, PLACES, SHAPE } from "./field_codes.ts";
import { BlockState, type FieldState, padded, presentIn, type VcpuState } from "./images.ts";
import { type Meta, unpackMap } from "./msgpack.ts";
import { CODING, type KindPlan } from "./schema.ts";

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
  readonly #columns: ColumnReader;
  readonly #plans: readonly (KindPlan | undefined)[];
  readonly #count: number;
  readonly #u64 = new BigUint64Array(1);
  readonly #halves = new Uint32Array(this.#u64.buffer);
  readonly #state = new BlockState();
  readonly #texts: string[] = [];
  readonly #placeLists: Uint16Array[] = [];
  #vcpu: VcpuState | undefined;
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
    this.#count = count;
    this.#plans = plans;
    this.#columns = new ColumnReader(content, offset);
  }

  /** How many events were stepped over. */
  get done(): number {
    return this.#columns.event;
  }

  /**
   * The next event. The object, its images among it, is used again by the next step.
   *
   * @returns The event, under its own name and with its own fields also where this code does not know
   * the kind; `undefined` at the end.
   * @throws {TraceError} `damaged` when the content is not what an encoder writes.
   */
  next(): TraceEvent | undefined {
    const columns = this.#columns;
    if (columns.event === this.#count) {
      columns.finish();
      return undefined;
    }
    const flags = columns.byte(COLUMN.heads);
    const plan = this.#plans[flags & 63];
    if (plan === undefined) throw this.#undeclared(flags & 63);
    const ops = columns.operations(plan.opBytes);
    if ((flags & HEAD_VCPU) !== 0) this.#otherVcpu();
    const vcpu = this.#vcpu;
    if (vcpu === undefined) throw columns.bad("The first event does not name its vCPU");
    const present = presentIn(ops);
    const timed = (flags & HEAD_NO_TIME) === 0;
    const time = timed ? columns.time(plan.timeColumn) : 0;
    const kind = vcpu.kind(plan);
    const fields = kind.fields;
    const told = ops & ~(ops & ~(ops >>> 1) & plan.plain);
    let image: Channel | undefined;
    for (let i = 0, todo = told; todo !== 0; i++, todo >>>= 2) {
      const op = todo & 3;
      if (op === OP.absent) continue;
      const state = fields[i];
      if (state === undefined) {
        throw columns.bad(`An event of kind ${plan.kind} has too many fields`);
      }
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
    columns.event++;
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
    const { content, event, headsEnd: end } = this.#columns;
    let at = this.#columns.headsAt;
    for (let number = event; number < this.#count && at < end; number++) {
      const id = content[at]! & 63;
      const plan = this.#plans[id];
      if (plan === undefined) throw this.#undeclared(id);
      if (number >= after && plan.kind === kind) return number;
      at += 1 + plan.opBytes;
    }
    return undefined;
  }

  #otherVcpu(): void {
    const vcpu = this.#state.vcpu(this.#columns.varint());
    if (!vcpu) throw this.#columns.bad("A block has too many vCPUs");
    this.#vcpu = vcpu;
  }

  #bigint({ lo, hi }: FieldState): bigint {
    this.#halves[0] = lo;
    this.#halves[1] = hi;
    return this.#u64[0]!;
  }

  #image(vcpu: VcpuState, state: FieldState, present: number, op: number): Channel {
    const channel = this.#state.channel(vcpu, state, present);
    if (channel === undefined) throw this.#columns.bad("A block has too many image channels");
    if (op === OP.changed) this.#described(channel);
    else if (channel.length === 0) throw this.#columns.bad("An image without a size");
    else if (op === OP.again && (channel.places.length > 0 || channel.fromLast)) {
      this.#change(channel);
    }
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
        if (op !== OP.changed) throw this.#columns.bad(`Field ${field.name} has a bad operation`);
        last.number = last.value = last.lo = (last.lo + this.#columns.word(field.column)) >>> 0;
        return;
      case CODING.i32:
        if (op !== OP.changed) throw this.#columns.bad(`Field ${field.name} has a bad operation`);
        last.number = last.value = last.lo = (last.lo + this.#columns.word(field.column)) | 0;
        return;
      case CODING.u64: {
        const lo = last.lo = (last.lo + this.#columns.word(field.column)) >>> 0;
        if (op === OP.other) last.hi = (last.hi + this.#columns.word(field.column)) >>> 0;
        const number = last.hi * 2 ** 32 + lo;
        last.number = number <= Number.MAX_SAFE_INTEGER ? number : -++this.#values;
        return;
      }
      case CODING.text:
        last.number = last.lo = op === OP.changed ? this.#columns.varint() : this.#newText();
        last.value = this.#texts[last.lo];
        if (last.value === undefined) throw this.#columns.bad("A text is not in the table");
        return;
      default:
        if (op !== OP.other) throw this.#columns.bad(`Field ${field.name} has a bad operation`);
        last.number = ++this.#values;
        last.value = this.#map();
    }
  }

  #described(channel: Channel): void {
    const shape = this.#columns.varint();
    const how = shape >>> 3;
    if (how > PLACES.raw) throw this.#columns.bad("An image has a bad descriptor");
    if (shape & SHAPE.size) {
      const size = this.#columns.varint();
      if (size === 0 || size > MAX_IMAGE) {
        throw this.#columns.bad(`An image declares ${size} bytes`);
      }
      channel.resize(size);
    } else if (channel.length === 0) {
      throw this.#columns.bad("An image without a size");
    }
    if (shape & SHAPE.known) this.#mask(channel);
    channel.fromLast = (shape & SHAPE.fromLast) !== 0;
    if (how === PLACES.raw) return channel.replace(this.#columns.take(channel.length));
    if (how === PLACES.none) channel.places = NO_PLACES;
    else if (how === PLACES.list) {
      channel.places = this.#list();
      this.#placeLists.push(channel.places);
    } else {
      const list = this.#placeLists[this.#columns.varint()];
      if (!list) throw this.#columns.bad("An image names a place list that does not exist");
      channel.places = list;
    }
    this.#change(channel);
  }

  /** Applies differences at the channel's places to its base. */
  #change(channel: Channel): void {
    const { places, words, length } = channel;
    const base = channel.fromLast ? channel.slot.last : channel;
    if (base === undefined || base.length !== length) {
      throw this.#columns.bad("An image is against one that does not exist");
    }
    const count = places.length;
    if (count > 0 && places[count - 1]! >= words.length) {
      throw this.#columns.bad("An image has a place beyond its end");
    }
    const differences = this.#columns.words(channel.kind, places);
    if (base === channel) channel.change(differences);
    else channel.changeFrom(base, differences);
    if ((length & 3) !== 0 && words[words.length - 1]! >>> (8 * (length & 3))) {
      throw this.#columns.bad("An image has bytes beyond its end");
    }
  }

  #mask(channel: Channel): void {
    const how = this.#columns.varint();
    if (how === 0) return channel.setKnown(undefined);
    if (how !== 1) throw this.#columns.bad("An image has a bad mask");
    const words = padded(channel.known, channel.words.length);
    for (const place of this.#list()) {
      if (place >= words.length) throw this.#columns.bad("A mask has a place beyond its end");
      words[place]! += this.#columns.word(wordColumn(channel.kind, place));
    }
    channel.setKnown(new Uint8Array(words.buffer, 0, channel.length));
  }

  #list(): Uint16Array {
    const count = this.#columns.varint();
    // Every place takes a byte at least, so this bounds what a damaged count can ask for.
    if (count > MAX_IMAGE / 4) throw this.#columns.bad(`A place list declares ${count} places`);
    const places = new Uint16Array(count);
    let next = 0;
    for (let i = 0; i < count; i++) {
      const place = next + this.#columns.varint();
      if (place >= MAX_IMAGE / 4) {
        throw this.#columns.bad("A place list goes beyond the largest image");
      }
      places[i] = place;
      next = place + 1;
    }
    return places;
  }

  /** Adds a text to the table; returns its number. */
  #newText(): number {
    return this.#texts.push(this.#columns.text(this.#columns.varint())) - 1;
  }

  #map(): Meta {
    const bytes = this.#columns.take(this.#columns.varint());
    try {
      return unpackMap(bytes);
    } catch (error) {
      throw this.#columns.bad(
        `A map cannot be read: ${error instanceof Error ? error.message : error}`,
      );
    }
  }

  #undeclared(id: number): Error {
    return this.#columns.bad(`An event is of the undeclared kind ${id}`);
  }
}
