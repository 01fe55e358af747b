/**
 * The fields in which two vCPUs differ. In most runs they are a few of before, with the values of
 * before: then they are found again by the words that differ.
 *
 * @module
 */
import { Buffer } from "node:buffer";
import { KnownContents } from "../content_numbers.ts";
import { slotsOf } from "../image/slots.ts";
import type { Vcpu } from "../kvm/vcpu.ts";
import type { Layout } from "../layout.ts";
import { hostVmcbMask } from "../replay/views.ts";
import { INNER_LAYOUT } from "../svm/inner_layout.ts";
import { VMCB01_AT, VMCB02_AT, VMCB12_AT } from "../svm/machine.ts";
import { REGS_LAYOUT } from "../svm/regs_layout.ts";
import type { Place } from "../svm/view_source.ts";
import { VMCB_LAYOUT, VMCB_SIZE } from "../svm/vmcb_fields.ts";
import { placeOf, VCPU_LAYOUT } from "./areas.ts";
import { differingRows, keyOf, type Row } from "./compare.ts";
import { DifferingWords } from "./differing_words.ts";
import { ExplainedRuns } from "./explained_runs.ts";
import type { StateParts } from "./state_parts.ts";

/** Fields that differ, and what is known of them. */
export class Rows {
  /** The fields. */
  readonly list: readonly Row[];
  /** Name of each. */
  readonly names: readonly string[];
  /** Where each is in the machine's bytes. */
  readonly places: readonly Place[];
  /** Whether userspace sees any of them. */
  readonly seen: boolean;
  /** How runs were explained that end with these. */
  readonly explained: ExplainedRuns = new ExplainedRuns();

  /**
   * Says what is known of them.
   *
   * @param list The fields.
   */
  constructor(list: readonly Row[]) {
    this.list = list;
    this.names = list.map(keyOf);
    this.seen = list.some(({ area }) => area.name === "L1");
    this.places = list.map(({ area, row }) => placeOf(area, row.row));
  }
}

/** For each word of an image, the words of the fields that have a part in it. */
interface Reach {
  /** The first of them. */
  readonly first: Int32Array;
  /** One behind the last. */
  readonly end: Int32Array;
}

/** Of layouts, each with where it begins in bytes. */
function reachOf(size: number, ...layouts: readonly (readonly [Layout, number])[]): Reach {
  const first = Int32Array.from({ length: size >> 2 }, (_, word) => word);
  const end = first.map((word) => word + 1);
  const join = (at: number, next: number) => {
    const from = at >> 2, to = (next + 3) >> 2;
    for (let word = from; word < to; word++) {
      first[word] = Math.min(first[word] as number, from);
      end[word] = Math.max(end[word] as number, to);
    }
  };
  for (const [layout, base] of layouts) {
    for (const { field: { offset, size }, area } of slotsOf(layout)) {
      const from = base + offset, to = from + size;
      if (area === undefined) join(from, to);
      // Bytes that no field covers are told of in words of eight.
      else for (let at = from; at < to; at += 8 - at % 8) join(at, Math.min(to, at + 8 - at % 8));
    }
  }
  return { first, end };
}

const OWN = reachOf(
  VMCB12_AT,
  [VCPU_LAYOUT, 0],
  [VMCB_LAYOUT, VMCB01_AT],
  [VMCB_LAYOUT, VMCB02_AT],
);
const PAGE = reachOf(VMCB_SIZE, [VMCB_LAYOUT, 0]);
const REGS = reachOf(REGS_LAYOUT.size, [REGS_LAYOUT, 0]);
const INNER = reachOf(INNER_LAYOUT.size, [INNER_LAYOUT, 0]);

/** Which bits count of the vCPU area and the hypervisor's own VMCBs. */
function ownMask(npt: boolean): Uint32Array {
  const bytes = new Uint8Array(VMCB12_AT).fill(0xff);
  for (const at of [VMCB01_AT, VMCB02_AT]) bytes.set(hostVmcbMask(npt), at);
  return new Uint32Array(bytes.buffer);
}

const MASKS = { npt: ownMask(true), shadow: ownMask(false) };

/** Fields that are kept at most. */
const MOST_KNOWN = 1 << 10;
/** Numbers that they may follow from. */
const LONGEST = 1 << 11;

/** Finds the fields in which vCPUs differ, those of before as the same object. */
export class KnownRows {
  readonly #own = new DifferingWords(VMCB12_AT);
  readonly #page = new DifferingWords(VMCB_SIZE);
  readonly #known = new KnownContents<Rows>(MOST_KNOWN);
  /**
   * What the fields follow from: how L1's memory is mapped, and of each word that differs or shares
   * a field with one its number, and what it is in both.
   */
  readonly #key = new Int32Array(LONGEST);
  #length = 0;

  /**
   * The fields in which two vCPUs differ.
   *
   * @param va One vCPU.
   * @param a The parts of its state; it was looked at.
   * @param vb The other, with the same capabilities.
   * @param b The parts of its state; it was looked at, too.
   * @param vmcb12 Guest physical address of vmcb12.
   */
  between(va: Vcpu, a: StateParts, vb: Vcpu, b: StateParts, vmcb12: number): Rows {
    this.#length = 0;
    const { npt } = va.caps;
    this.#push(npt ? 1 : 0);
    let base = 0;
    const own = this.#own.find(a.bytes, b.bytes, a.words, b.words);
    this.#add(base, own, own.length, OWN, a.words, b.words, npt ? MASKS.npt : MASKS.shadow);
    base += OWN.first.length;
    if (va.memory.backed(vmcb12, VMCB_SIZE)) {
      const x = va.memory.page(vmcb12), y = vb.memory.page(vmcb12);
      if (x !== y && Buffer.compare(x, y) !== 0) {
        const p = va.memory.words(vmcb12), q = vb.memory.words(vmcb12);
        const page = this.#page.find(x, y, p, q);
        this.#add(base, page, page.length, PAGE, p, q);
      }
    }
    base += PAGE.first.length;
    const { regs, inner } = a.memory, { regs: otherRegs, inner: otherInner } = b.memory;
    this.#add(base, undefined, regs.words.length, REGS, regs.words, otherRegs.words);
    base += REGS.first.length;
    this.#add(base, undefined, inner.words.length, INNER, inner.words, otherInner.words);
    const make = () => new Rows(differingRows(a.of(va, vmcb12), b.of(vb, vmcb12)));
    return this.#length > LONGEST ? make() : this.#known.of(this.#key, this.#length, make);
  }

  #push(number: number): void {
    if (this.#length < LONGEST) this.#key[this.#length] = number;
    this.#length++;
  }

  /** Adds what differs of an image to the key; only some of its words may, or any when left out. */
  #add(
    base: number,
    some: readonly number[] | undefined,
    count: number,
    { first, end }: Reach,
    a: Uint32Array,
    b: Uint32Array,
    mask?: Uint32Array,
  ): void {
    let next = 0;
    for (let i = 0; i < count; i++) {
      const word = some === undefined ? i : some[i] as number;
      const bits = (a[word] as number) ^ (b[word] as number);
      if (bits === 0 || mask !== undefined && (bits & (mask[word] as number)) === 0) continue;
      const to = end[word] as number;
      for (let k = Math.max(first[word] as number, next); k < to; k++) {
        this.#push(base + k);
        this.#push(a[k] as number | 0);
        this.#push(b[k] as number | 0);
      }
      next = Math.max(next, to);
    }
  }
}

/**
 * Whether a field is the same in two vCPUs, in the bits that are compared.
 *
 * @param row The field.
 * @param va One vCPU, as it was looked at.
 * @param a The parts of its state.
 * @param vb The other.
 * @param b The parts of its state.
 * @param vmcb12 Guest physical address of vmcb12.
 */
export function sameField(
  { area: { name, at }, row: { offset, size } }: Row,
  va: Vcpu,
  a: StateParts,
  vb: Vcpu,
  b: StateParts,
  vmcb12: number,
): boolean {
  switch (name) {
    case "vmcb12":
      return sameAt(va.memory.page(vmcb12), vb.memory.page(vmcb12), offset, size);
    case "L1":
      return sameAt(a.memory.regs.bytes, b.memory.regs.bytes, offset, size);
    case "nested":
      return sameAt(a.memory.inner.bytes, b.memory.inner.bytes, offset, size);
    case "vcpu":
      return sameAt(a.bytes, b.bytes, offset, size);
    default:
      return sameAt(a.bytes, b.bytes, offset, size, at, hostVmcbMask(va.caps.npt));
  }
}

function sameAt(
  x: Uint8Array,
  y: Uint8Array,
  offset: number,
  size: number,
  base = 0,
  mask?: Uint8Array,
): boolean {
  for (let i = offset; i < offset + size; i++) {
    const bits = (x[base + i] as number) ^ (y[base + i] as number);
    if (bits !== 0 && (mask === undefined || (bits & (mask[i] as number)) !== 0)) return false;
  }
  return true;
}
