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
import type { Image } from "../../engine/event.ts";
import { MAX_CHANNELS, MAX_VCPUS } from "./format.ts";
import type { FieldPlan, KindPlan } from "./schema.ts";

const NO_PLACES = new Uint16Array(0);
const NO_BYTES = new Uint8Array(0);
const NO_WORDS = new Uint32Array(0);

/** Channels that a field finds without searching. */
const RECENT = 4;

/** Where an image lives. */
export class Slot {
  /** The channel that was coded last. */
  last: Channel | undefined;
  /** All channels of it. */
  readonly channels: Channel[] = [];
}

/** An image that is handed out again and again, with other content. */
class SharedImage implements Image {
  readonly bytes: Uint8Array;
  readonly known?: Uint8Array;
  // Not a property of its own: who prints or compares an image sees its content alone.
  #revision = 0;
  #knownWords: Uint16Array | undefined;

  constructor(bytes: Uint8Array, known?: Uint8Array) {
    this.bytes = bytes;
    if (known) this.known = known;
  }

  get revision(): number {
    return this.#revision;
  }

  get knownWords(): Uint16Array {
    return this.#knownWords ??= wordsOf(this.known ?? NO_BYTES);
  }

  /** Its content is another now. */
  changed(): void {
    this.#revision++;
  }
}

/** Numbers of the words of a mask that are not zero; the last one may be cut short. */
function wordsOf(mask: Uint8Array): Uint16Array {
  const words: number[] = [];
  for (let at = 0; at < mask.length; at++) {
    if (mask[at] !== 0 && words.at(-1) !== at >> 2) words.push(at >> 2);
  }
  return Uint16Array.from(words);
}

/** One kind of event's view of a slot: its last image, and how that was coded. */
export class Channel {
  /** Where it belongs. */
  readonly slot: Slot;
  /** Number of the kind of event. */
  readonly kind: number;
  /** Value of the field that tells moments apart. */
  readonly by: string | undefined;
  /** Size of the image in bytes; 0 before the first. */
  length = 0;
  /** The image's bytes. */
  bytes: Uint8Array = NO_BYTES;
  /** The same, as words, the last one filled up with zeros. */
  words: Uint32Array = NO_WORDS;
  /** Mask of the bits known, or undefined for all. */
  known: Uint8Array | undefined;
  /** Whether the last change was against the slot's last image, not this channel's. */
  fromLast = false;
  /** Whether the last image was equal to the one before; an encoder's guess for the next. */
  calm = false;
  /** How often an encoder told it against another channel's image. */
  turns = 0;
  /** Which words the last change named. */
  places: Uint16Array = NO_PLACES;
  /** What a decoder hands out. */
  image: SharedImage = new SharedImage(NO_BYTES);

  constructor(slot: Slot, kind: number, by: string | undefined) {
    this.slot = slot;
    this.kind = kind;
    this.by = by;
  }

  /** Begins anew with an image of zeros of another size. */
  resize(length: number): void {
    const words = new Uint32Array((length + 3) >> 2);
    this.length = length;
    this.words = words;
    this.bytes = new Uint8Array(words.buffer, 0, length);
    this.known = undefined;
    this.fromLast = false;
    this.places = NO_PLACES;
    this.image = new SharedImage(this.bytes);
  }

  /** Sets the mask, and the image handed out with it. */
  setKnown(known: Uint8Array | undefined): void {
    this.known = known;
    this.image = new SharedImage(this.bytes, known);
  }
}

/** The last value of a field. */
export class FieldState {
  /** Low 32 bits of a number. */
  lo = 0;
  /** High 32 bits of a number. */
  hi = 0;
  /** Value as the event holds it, for u64, text and map. */
  value: unknown;
  /** MessagePack of a map. */
  packed: Uint8Array = NO_BYTES;
  /** Image that a decoder handed out last. */
  image: Image | undefined;
  /** Channels used last, for images, and what they were found by. */
  readonly #channels: Channel[] = [];
  readonly #addresses: (bigint | undefined)[] = [];
  readonly #moments: (string | undefined)[] = [];
  #oldest = 0;

  constructor(plan: FieldPlan) {
    this.value = plan.coding === 2 ? 0n : plan.coding === 3 ? "" : plan.coding === 4 ? {} : 0;
  }

  /** The channel at an address and a moment, if it is one of those used last. */
  channel(address: bigint | undefined, by: string | undefined): Channel | undefined {
    const channels = this.#channels;
    for (let i = 0; i < channels.length; i++) {
      if (this.#moments[i] === by && this.#addresses[i] === address) return channels[i];
    }
    return undefined;
  }

  /** Notes that a channel was used. */
  used(channel: Channel, address: bigint | undefined, by: string | undefined): void {
    const at = this.#oldest;
    this.#oldest = (at + 1) % RECENT;
    this.#channels[at] = channel;
    this.#addresses[at] = address;
    this.#moments[at] = by;
  }
}

/** The last values of the fields of one kind of event on one vCPU. */
export class KindState {
  /** What it is of. */
  readonly plan: KindPlan;
  /** States in order of the fields. */
  readonly fields: FieldState[];
  /** What a decoder handed out last. */
  object: object | undefined;

  constructor(plan: KindPlan) {
    this.plan = plan;
    this.fields = plan.fields.map((field) => new FieldState(field));
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
    return this.#kinds[plan.id] ??= new KindState(plan);
  }

  /** The slot of a family at an address, or without one. */
  slot(family: string, address: bigint): Slot {
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

  /** Channel of an image; undefined when the block has too many of them. */
  channel(
    vcpu: VcpuState,
    kind: KindPlan,
    field: FieldPlan,
    address: bigint | undefined,
    by: string | undefined,
  ): Channel | undefined {
    const slot = vcpu.slot(field.family, address ?? -1n);
    for (const channel of slot.channels) {
      if (channel.kind === kind.id && channel.by === by) return channel;
    }
    if (this.#channels === MAX_CHANNELS) return undefined;
    this.#channels++;
    const channel = new Channel(slot, kind.id, by);
    slot.channels.push(channel);
    return channel;
  }
}

/** Bytes as words, filled up with zeros. */
export function padded(bytes: Uint8Array | undefined, size: number): Uint32Array {
  const words = new Uint32Array(size);
  if (bytes) new Uint8Array(words.buffer).set(bytes);
  return words;
}
