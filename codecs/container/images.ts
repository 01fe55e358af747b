/**
 * What a block remembers of the images in it: the last one of every channel,
 * to store the next as a change. Encoder and decoder keep the same memory.
 *
 * A slot is a place where an image lives: a family of fields, a vCPU and an
 * address. A channel is one kind of event's view of a slot (at a moment, where
 * a field tells moments apart): vmcb12 before VMRUN and vmcb12 as written at
 * #VMEXIT are two channels of one slot.
 *
 * @module
 */
import { type Channel, Slot } from "./channel.ts";
import { ChannelFinder } from "./channel_finder.ts";
import { type EventObject, EventObjects } from "./event_objects.ts";
import { MAX_CHANNELS, MAX_VCPUS } from "./format.ts";
import { CODING, type FieldPlan, type KindPlan } from "./schema.ts";

const NO_BYTES = new Uint8Array(0);

/** The last value of a field. */
export class FieldState {
  /** What it is of. */
  readonly plan: FieldPlan;
  /** Low 32 bits of a number; of a text, its number in the table, -1 for the one before any is told. */
  lo = 0;
  /** High 32 bits of a number. */
  hi = 0;
  /** Value as the event holds it; of a u64, in an encoder alone. */
  value: unknown;
  /** A decoder's number of the value: the same only for the same value. */
  number: number;
  /** MessagePack of a map. */
  packed: Uint8Array = NO_BYTES;
  /** Where an image belongs. */
  readonly channels: ChannelFinder;

  /**
   * As before the first event.
   *
   * @param plan What the event is of.
   * @param index Number of the field.
   * @param before States of the fields before it.
   */
  constructor(plan: KindPlan, index: number, before: readonly FieldState[]) {
    const field = plan.fields[index]!;
    const { coding } = field;
    this.plan = field;
    this.value = coding === CODING.u64
      ? 0n
      : coding === CODING.text
      ? ""
      : coding === CODING.map
      ? {}
      : 0;
    if (coding === CODING.text) this.lo = -1;
    this.number = this.lo;
    this.channels = new ChannelFinder(plan, index, before);
  }
}

/** The last values of the fields of one kind of event on one vCPU. */
export class KindState {
  /** What it is of. */
  readonly plan: KindPlan;
  /** States in order of the fields. */
  readonly fields: FieldState[];
  /** What a decoder hands out where there is no image. */
  readonly events: EventObjects;
  /** What it handed out last. */
  last: EventObject | undefined;

  constructor(plan: KindPlan, vcpu: number) {
    this.plan = plan;
    this.fields = [];
    for (let i = 0; i < plan.fields.length; i++) {
      this.fields.push(new FieldState(plan, i, this.fields));
    }
    this.events = new EventObjects(plan, vcpu);
  }
}

/** What a block remembers of one vCPU. */
export class VcpuState {
  /** Number of the vCPU. */
  readonly vcpu: number;
  readonly #kinds: (KindState | undefined)[] = [];
  readonly #slots = new Map<string, Map<bigint, Slot>>();

  constructor(vcpu: number) {
    this.vcpu = vcpu;
  }

  /** State of a kind of event. */
  kind(plan: KindPlan): KindState {
    return this.#kinds[plan.id] ??= new KindState(plan, this.vcpu);
  }

  /** The slot of a family at an address; both halves -1: without one. */
  slot(family: string, low: number, high: number): Slot {
    const address = BigInt(high) << 32n | BigInt(low);
    let places = this.#slots.get(family);
    if (!places) this.#slots.set(family, places = new Map());
    let slot = places.get(address);
    if (!slot) places.set(address, slot = new Slot());
    return slot;
  }
}

/** What a block remembers. */
export class BlockState {
  readonly #vcpus = new Map<number, VcpuState>();
  #channels = 0;

  /** State of a vCPU; undefined when the block has too many of them. */
  vcpu(vcpu: number): VcpuState | undefined {
    let state = this.#vcpus.get(vcpu);
    if (!state) {
      if (this.#vcpus.size === MAX_VCPUS) return undefined;
      this.#vcpus.set(vcpu, state = new VcpuState(vcpu));
    }
    return state;
  }

  /**
   * The channel of an image at the address and the moment that an event's other fields tell.
   *
   * @param vcpu What is remembered of the event's vCPU.
   * @param field State of the field.
   * @param present Which fields the event has.
   * @returns The channel; undefined when the block has too many of them.
   */
  channel(vcpu: VcpuState, field: FieldState, present: number): Channel | undefined {
    return field.channels.find(present) ?? this.#add(vcpu, field, present);
  }

  /** Another channel; apart, since a closure costs memory even where none is made. */
  #add(vcpu: VcpuState, field: FieldState, present: number): Channel | undefined {
    if (this.#channels === MAX_CHANNELS) return undefined;
    this.#channels++;
    return field.channels.add(present, (family, low, high) => vcpu.slot(family, low, high));
  }
}

/**
 * Which fields an event has.
 *
 * @param ops Its field operations.
 * @returns The lower bit of each operation that is not {@linkcode OP}'s `absent`.
 */
export function presentIn(ops: number): number {
  return (ops | ops >>> 1) & 0x55555555;
}

/** Bytes as words, filled up with zeros. */
export function padded(bytes: Uint8Array | undefined, size: number): Uint32Array {
  const words = new Uint32Array(size);
  if (bytes) new Uint8Array(words.buffer).set(bytes);
  return words;
}
