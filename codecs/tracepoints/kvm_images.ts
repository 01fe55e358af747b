/**
 * Images with the few values in them that a tracepoint shows: their bits are
 * known, all others are not.
 *
 * @module
 */
import type { Image } from "../../engine/event.ts";
import { offsets } from "../../engine/layout.ts";
import { REGS_FIELDS, REGS_LAYOUT } from "../../engine/svm/regs_layout.ts";
import { CONTROL_FIELDS, SAVE_AREA, SAVE_FIELDS, VMCB_SIZE } from "../../engine/svm/vmcb_fields.ts";
import { SLOT } from "./kvm_tracepoints.ts";

/** A value's place in an image. */
interface Place {
  readonly slot: number;
  readonly offset: number;
  readonly size: 1 | 2 | 4 | 8;
}

/** Values and the image they are in. */
export interface ImagePlaces {
  /** Size of the image in bytes. */
  readonly size: number;
  /** Where the values are. */
  readonly places: readonly Place[];
}

const control = offsets(CONTROL_FIELDS);
const save = offsets(SAVE_FIELDS, SAVE_AREA);

/** vmcb12 as `kvm_nested_vmenter` and `kvm_nested_intercepts` show it. */
export const VMRUN_IMAGE: ImagePlaces = {
  size: VMCB_SIZE,
  places: [
    { slot: SLOT.nested_rip, offset: save.rip, size: 8 },
    { slot: SLOT.int_ctl, offset: control.int_ctl, size: 4 },
    { slot: SLOT.event_inj, offset: control.event_inj, size: 4 },
    { slot: SLOT.npt, offset: control.nested_ctl, size: 1 },
    { slot: SLOT.nested_cr3, offset: control.nested_cr3, size: 8 },
    { slot: SLOT.guest_cr3, offset: save.cr3, size: 8 },
    { slot: SLOT.cr_read, offset: control.intercept_cr, size: 2 },
    { slot: SLOT.cr_write, offset: control.intercept_cr + 2, size: 2 },
    { slot: SLOT.exceptions, offset: control.intercept_exceptions, size: 4 },
    { slot: SLOT.intercept1, offset: control.intercept_word3, size: 4 },
    { slot: SLOT.intercept2, offset: control.intercept_word4, size: 4 },
    { slot: SLOT.intercept3, offset: control.intercept_word5, size: 4 },
  ],
};

/** L2's registers as `kvm_nested_vmexit` shows them. */
export const L2_IMAGE: ImagePlaces = {
  size: REGS_LAYOUT.size,
  places: [
    { slot: SLOT.rip, offset: offsets(REGS_FIELDS).rip, size: 8 },
  ],
};

/** vmcb12 as `kvm_nested_vmexit_inject` shows it. */
export const EXIT_IMAGE: ImagePlaces = {
  size: VMCB_SIZE,
  places: [
    { slot: SLOT.exit_code, offset: control.exit_code, size: 4 },
    { slot: SLOT.exit_info_1, offset: control.exit_info_1, size: 8 },
    { slot: SLOT.exit_info_2, offset: control.exit_info_2, size: 8 },
    { slot: SLOT.exit_int_info, offset: control.exit_int_info, size: 4 },
    { slot: SLOT.exit_int_info_err, offset: control.exit_int_info_err, size: 4 },
  ],
};

/** How many images are kept to be used again: those of 1 MiB. */
const KEPT_BYTES = 1 << 20;

/** Images are cut from larger allocations: so many at a time. */
const SLAB = 64;

/** Bit of a set of slots, one above them all: both halves of the exit code are known. */
const WIDE = 1 << 31;

/**
 * Makes images of slots. L1 runs the same few VMCBs over and over, and L2 exits
 * in the same few places, so the last images are kept, and one that was made
 * already is used again.
 */
export class KvmImages {
  readonly #size: number;
  readonly #slots: Int32Array;
  readonly #places: readonly Place[];
  readonly #all: number;
  readonly #masks = new Map<number, Uint8Array>();
  /** Of each kept image: the set of its slots, then both halves of each value. */
  readonly #keys: Int32Array;
  readonly #kept: (Image | undefined)[];
  readonly #key: Int32Array;
  #slab = new Uint8Array(0);
  #used = 0;

  /** @param what Which images. */
  constructor({ places, size }: ImagePlaces) {
    this.#places = places;
    this.#size = size;
    this.#slots = Int32Array.from(places, ({ slot }) => slot);
    this.#all = places.reduce((bits, { slot }) => bits | 1 << slot, 0);
    this.#key = new Int32Array(1 + places.length * 2);
    const kept = 2 ** Math.floor(Math.log2(KEPT_BYTES / size));
    this.#keys = new Int32Array(kept * this.#key.length);
    this.#kept = new Array(kept).fill(undefined);
  }

  /**
   * The image of some values.
   *
   * @param present Bits of the slots that have one.
   * @param wide Bits of the slots of which all 64 bits are known.
   * @param lo Low halves, by slot.
   * @param hi High halves, by slot.
   */
  of(present: number, wide: number, lo: Uint32Array, hi: Uint32Array): Image {
    const set = present & this.#all | ((wide & present) >>> SLOT.exit_code & 1 ? WIDE : 0);
    const key = this.#key, slots = this.#slots;
    key[0] = set;
    let hash = set;
    for (let i = 0, k = 1; i < slots.length; i++, k += 2) {
      const slot = slots[i]!;
      const there = -(set >>> slot & 1);
      const l = lo[slot]! & there, h = hi[slot]! & there;
      key[k] = l;
      key[k + 1] = h;
      hash = Math.imul(hash ^ l, 0x9e3779b1) ^ h;
      hash ^= hash >>> 15;
    }
    const at = (hash ^ hash >>> 8) & this.#kept.length - 1;
    const kept = this.#kept[at];
    const from = at * key.length;
    if (kept !== undefined && this.#same(from)) return kept;
    const image = { bytes: this.#page(set, lo, hi), known: this.#mask(set) };
    this.#kept[at] = image;
    this.#keys.set(key, from);
    return image;
  }

  #same(from: number): boolean {
    const key = this.#key, keys = this.#keys;
    for (let i = 0; i < key.length; i++) if (key[i] !== keys[from + i]) return false;
    return true;
  }

  #page(set: number, lo: Uint32Array, hi: Uint32Array): Uint8Array {
    if (this.#used === this.#slab.length) {
      this.#slab = new Uint8Array(SLAB * this.#size);
      this.#used = 0;
    }
    const start = this.#used;
    this.#used += this.#size;
    for (const { slot, offset, size } of this.#places) {
      if ((set >>> slot & 1) === 0) continue;
      const at = start + offset;
      if (size === 1) this.#slab[at] = lo[slot]! & 1;
      else this.#put(at, Math.min(size, 4), lo[slot]!);
      if (size === 8 || slot === SLOT.exit_code && set < 0) this.#put(at + 4, 4, hi[slot]!);
    }
    return this.#slab.subarray(start, this.#used);
  }

  #put(at: number, size: number, value: number): void {
    const slab = this.#slab;
    for (let i = 0; i < size; i++) slab[at + i] = value >>> 8 * i;
  }

  #mask(set: number): Uint8Array {
    const known = this.#masks.get(set);
    if (known !== undefined) return known;
    const mask = new Uint8Array(this.#size);
    for (const { slot, offset, size } of this.#places) {
      if ((set >>> slot & 1) === 0) continue;
      if (size === 1) mask[offset] = 1;
      else mask.fill(255, offset, offset + size);
      if (slot === SLOT.exit_code && set < 0) mask.fill(255, offset + 4, offset + 8);
    }
    this.#masks.set(set, mask);
    return mask;
  }
}
