/**
 * Images with the few values in them that a tracepoint shows: their bits are
 * known, all others are not.
 *
 * @module
 */
import type { Image } from "../engine/event.ts";
import { offsets } from "../engine/layout.ts";
import { REGS_FIELDS, REGS_LAYOUT } from "../engine/svm/regs_layout.ts";
import { CONTROL_FIELDS, SAVE_AREA, SAVE_FIELDS, VMCB_SIZE } from "../engine/svm/vmcb_fields.ts";
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

/** How many images are kept to be used again. */
const KEPT = 256;

/** Images are cut from larger allocations: so many at a time. */
const SLAB = 64;

/**
 * Makes images of slots. L1 runs the same few VMCBs over and over, so the last
 * images are kept, and one that was made already is used again.
 */
export class KvmImages {
  readonly #places: readonly Place[];
  readonly #masks = new Map<number, Uint8Array>();
  readonly #kept: ({ key: Int32Array; image: Image } | undefined)[] = new Array(KEPT).fill(
    undefined,
  );
  readonly #key: Int32Array;
  readonly #slots: number;
  readonly #size: number;
  #slab = new Uint8Array(0);
  #used = 0;

  /** @param what Which images. */
  constructor({ places, size }: ImagePlaces) {
    this.#places = places;
    this.#size = size;
    this.#slots = places.reduce((bits, { slot }) => bits | 1 << slot, 0);
    this.#key = new Int32Array(1 + places.length * 2);
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
    const code = SLOT.exit_code;
    // One more bit of the set: both halves of the exit code are known.
    const set = present & this.#slots |
      ((wide >>> code & present >>> code & 1) === 0 ? 0 : 1 << 31);
    const key = this.#key;
    key[0] = set;
    let hash = set;
    for (let i = 0, k = 1; i < this.#places.length; i++) {
      const { slot } = this.#places[i]!;
      const there = (set >>> slot & 1) !== 0;
      const l = there ? lo[slot]! : 0, h = there ? hi[slot]! : 0;
      key[k++] = l;
      key[k++] = h;
      hash = Math.imul(hash ^ l, 0x9e3779b1) + h | 0;
      hash ^= hash >>> 15;
    }
    const at = (hash ^ hash >>> 8) & KEPT - 1;
    const kept = this.#kept[at];
    if (kept !== undefined && same(kept.key, key)) return kept.image;
    const image = { bytes: this.#page(set, lo, hi), known: this.#mask(set) };
    this.#kept[at] = { key: key.slice(), image };
    return image;
  }

  #page(set: number, lo: Uint32Array, hi: Uint32Array): Uint8Array {
    if (this.#used === this.#slab.length) {
      this.#slab = new Uint8Array(SLAB * this.#size);
      this.#used = 0;
    }
    const page = this.#slab.subarray(this.#used, this.#used += this.#size);
    for (const { slot, offset, size } of this.#places) {
      if ((set >>> slot & 1) === 0) continue;
      put(page, offset, Math.min(size, 4), size === 1 ? lo[slot]! & 1 : lo[slot]!);
      if (size === 8 || slot === SLOT.exit_code && set >>> 31 !== 0) {
        put(page, offset + 4, 4, hi[slot]!);
      }
    }
    return page;
  }

  #mask(set: number): Uint8Array {
    const known = this.#masks.get(set);
    if (known !== undefined) return known;
    const mask = new Uint8Array(this.#size);
    for (const { slot, offset, size } of this.#places) {
      if ((set >>> slot & 1) === 0) continue;
      if (size === 1) mask[offset] = 1;
      else mask.fill(255, offset, offset + size);
      if (slot === SLOT.exit_code && set >>> 31 !== 0) mask.fill(255, offset + 4, offset + 8);
    }
    this.#masks.set(set, mask);
    return mask;
  }
}

function put(page: Uint8Array, offset: number, size: number, value: number): void {
  for (let i = 0; i < size; i++) page[offset + i] = value >>> 8 * i;
}

function same(a: Int32Array, b: Int32Array): boolean {
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}
