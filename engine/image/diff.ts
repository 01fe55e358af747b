/**
 * What differs between two images of one layout. An answer has three values:
 * a field is the same, it differs, or what is known does not settle it.
 *
 * @module
 */
import { Buffer } from "node:buffer";
import type { Field, Layout } from "../layout.ts";
import type { Image } from "../event.ts";
import { fieldMask, type FieldValue, fitImage, readField } from "./fields.ts";
import { bitMask, formatBits, formatValue, namedBits } from "./format.ts";
import { cutReserved, type Slot, slotsOf } from "./slots.ts";

/** Whether two things agree; `unknown` when what is known of them does not settle it. */
export type Verdict = "same" | "differs" | "unknown";

/** One named group of bits that is not the same on both sides. */
export interface BitDiff {
  /** Name of the bits; `reserved` for those without one. */
  readonly name: string;
  /** `unknown` when the bits known on both sides agree. */
  readonly verdict: "differs" | "unknown";
  /** Their value in the first image, by name where it has one; `?` when not all of it is known. */
  readonly a: string;
  /** Their value in the second image. */
  readonly b: string;
}

/**
 * One field that is not the same in two images.
 *
 * @example
 * ```ts
 * import { diffImages, type FieldDiff, VMCB_LAYOUT, VMCB_SIZE } from "@vmtape/vmtape/engine";
 * const a = { bytes: new Uint8Array(VMCB_SIZE) };
 * const b = { bytes: a.bytes.with(0x58, 1) };
 * const [row]: readonly FieldDiff[] = diffImages(VMCB_LAYOUT, a, b);
 * if (row?.field !== "control.asid" || row.verdict !== "differs") throw new Error();
 * if (row.differing !== 1n || row.text !== "control.asid 0x0 -> 0x1") throw new Error(row.text);
 * ```
 */
export class FieldDiff {
  /** Name of the field; `AREA+0xOFFSET` for bytes that no field covers. */
  readonly field: string;
  /** Its offset in the image, in bytes. */
  readonly offset: number;
  /** Its size in bytes. */
  readonly size: number;
  /** `unknown` when all bits known on both sides agree. */
  readonly verdict: "differs" | "unknown";
  /** Its value in the first image. */
  readonly a: FieldValue;
  /** Its value in the second image. */
  readonly b: FieldValue;
  /** Mask of the bits known on both sides that differ. */
  readonly differing: bigint;
  /** Mask of the bits that are not known on both sides. */
  readonly unknown: bigint;
  /** The field's row; one made up for bytes that no field covers. */
  readonly row: Field;

  /**
   * Compares two values of a field.
   *
   * @param row The field's row.
   * @param a Its value in the first image.
   * @param b Its value in the second image.
   */
  constructor(row: Field, a: FieldValue, b: FieldValue) {
    this.row = row;
    this.field = row.name;
    this.offset = row.offset;
    this.size = row.size;
    this.a = a;
    this.b = b;
    const both = a.known & b.known;
    this.differing = (a.value ^ b.value) & both;
    this.unknown = fieldMask(row) & ~both;
    this.verdict = this.differing !== 0n ? "differs" : "unknown";
  }

  /** The first value with its bits by name. */
  get aText(): string {
    return formatValue(this.row, this.a);
  }

  /** The second value with its bits by name. */
  get bText(): string {
    return formatValue(this.row, this.b);
  }

  /** The bits that are not the same, highest first; empty for a field without named bits. */
  get bits(): BitDiff[] {
    const out: BitDiff[] = [];
    if (this.row.bits === undefined) return out;
    for (const bits of this.row.bits.toReversed()) {
      const mask = bitMask(bits);
      this.#add(out, bits.name, mask, formatBits(bits, this.a), formatBits(bits, this.b));
    }
    const rest = fieldMask(this.row) & ~namedBits(this.row);
    const text = ({ value, known }: FieldValue) =>
      (known & rest) === rest ? `0x${(value & rest).toString(16)}` : "?";
    this.#add(out, "reserved", rest, text(this.a), text(this.b));
    return out;
  }

  /** One line: the field, both values, and the names of the bits that differ or cannot be told. */
  get text(): string {
    const names = this.bits.filter((bit) => bit.verdict === this.verdict).map((bit) => bit.name);
    const line = `${this.field} ${this.aText} -> ${this.bText}`;
    if (this.verdict === "differs") {
      return names.length === 0 ? line : `${line} (${names.join(" ")})`;
    }
    // A whole field that was not seen needs no list of its bits.
    const whole = this.unknown === fieldMask(this.row) || names.length === 0;
    return `${line} (cannot tell${whole ? "" : `: ${names.join(" ")}`})`;
  }

  /**
   * The difference for JSON: values and masks as hexadecimal text.
   *
   * @returns A plain object.
   */
  toJSON(): Record<string, unknown> {
    const hex = (value: bigint) => `0x${value.toString(16)}`;
    const all = fieldMask(this.row);
    const side = ({ value, known }: FieldValue, text: string) => ({
      value: hex(value),
      ...(known === all ? {} : { known: hex(known) }),
      text,
    });
    return {
      field: this.field,
      offset: this.offset,
      size: this.size,
      verdict: this.verdict,
      a: side(this.a, this.aText),
      b: side(this.b, this.bText),
      bits: this.bits,
    };
  }

  #add(out: BitDiff[], name: string, mask: bigint, a: string, b: string): void {
    if ((this.differing & mask) !== 0n) out.push({ name, verdict: "differs", a, b });
    else if ((this.unknown & mask) !== 0n) out.push({ name, verdict: "unknown", a, b });
  }
}

/** What to leave out of a diff. */
export interface DiffOptions {
  /** Leave out fields whose verdict is `unknown`. */
  readonly onlyKnown?: boolean;
}

const NONE: readonly FieldDiff[] = Object.freeze([]);

/**
 * The fields that are not the same in two images, in order of their offset.
 * Bytes that no field covers are reported like fields. Two fully known images
 * that are equal cost one native comparison.
 *
 * @param layout How both images are laid out.
 * @param a The first image.
 * @param b The second image.
 * @param options What to leave out.
 * @returns One row a field that differs or that cannot be told.
 * @throws {ImageSizeError} When an image's mask is not as long as its bytes.
 * @example
 * ```ts
 * import { diffImages, fieldNamed, VMCB_LAYOUT, writeField } from "@vmtape/vmtape/engine";
 * const a = { bytes: new Uint8Array(4096) };
 * const b = { bytes: new Uint8Array(4096) };
 * writeField(a.bytes, fieldNamed(VMCB_LAYOUT, "save.efer"), 0x1500);
 * writeField(b.bytes, fieldNamed(VMCB_LAYOUT, "save.efer"), 0x500);
 * const [row] = diffImages(VMCB_LAYOUT, a, b);
 * if (row?.text !== "save.efer 0x1500 [SVME LMA LME] -> 0x500 [LMA LME] (SVME)") throw new Error();
 * ```
 */
export function diffImages(
  layout: Layout,
  one: Image,
  other: Image,
  options: DiffOptions = {},
): readonly FieldDiff[] {
  // Two that end early compare as they are.
  if (one.bytes.length < layout.size && compareImages(one, other) === "same") return NONE;
  const a = fitImage(layout, one), b = fitImage(layout, other);
  if (options.onlyKnown === true || isKnown(layout, a) && isKnown(layout, b)) {
    if (Buffer.compare(a.bytes, b.bytes) === 0) return NONE;
    const slots = slotsThatDiffer(layout, a, b);
    return slots.length === 0 ? NONE : rowsOf(slots, a, b, false, options);
  }
  return rowsOf(slotsOf(layout), a, b, true, options);
}

/** Rows for those of some slots that are not the same. */
function rowsOf(
  slots: readonly Slot[],
  a: Image,
  b: Image,
  masked: boolean,
  { onlyKnown = false }: DiffOptions,
): readonly FieldDiff[] {
  const rows: FieldDiff[] = [];
  const at = new Pair(a, b);
  const add = (field: Field) => {
    const row = new FieldDiff(field, readField(a, field), readField(b, field));
    if (row.differing !== 0n || (row.unknown !== 0n && !onlyKnown)) rows.push(row);
  };
  const classify = (offset: number, size: number) => {
    if (at.differ(offset, size)) return "loud";
    return masked && at.masked(offset, size) ? "unknown" : "quiet";
  };
  for (const slot of slots) {
    const { offset, size } = slot.field;
    if (!at.differ(offset, size) && !(masked && at.masked(offset, size))) continue;
    if (slot.area === undefined) add(slot.field);
    else for (const word of cutReserved(slot, classify)) add(word);
  }
  return rows;
}

/** For each 32-bit word of a layout, the number of the first slot that is in it. */
const firstSlots = new WeakMap<Layout, Uint16Array>();

function firstsOf(layout: Layout): Uint16Array {
  let firsts = firstSlots.get(layout);
  if (firsts === undefined) {
    const slots = slotsOf(layout);
    firsts = new Uint16Array(Math.ceil(layout.size / 4));
    for (let word = 0, slot = 0; word < firsts.length; word++) {
      while (slots[slot]!.field.offset + slots[slot]!.field.size <= 4 * word) slot++;
      firsts[word] = slot;
    }
    firstSlots.set(layout, firsts);
  }
  return firsts;
}

function wordsOf(bytes: Uint8Array): Uint32Array | undefined {
  return bytes.byteOffset % 4 === 0 && bytes.length % 4 === 0
    ? new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4)
    : undefined;
}

/** The slots with a word in which known bits differ; all slots where that cannot be told at once. */
function slotsThatDiffer(layout: Layout, a: Image, b: Image): readonly Slot[] {
  const slots = slotsOf(layout);
  const x = wordsOf(a.bytes), y = wordsOf(b.bytes);
  const p = a.known && wordsOf(a.known), q = b.known === a.known ? p : b.known && wordsOf(b.known);
  const aligned = x !== undefined && y !== undefined &&
    (p === undefined) === (a.known === undefined) && (q === undefined) === (b.known === undefined);
  if (!aligned) return slots;
  const firsts = firstsOf(layout);
  const found: Slot[] = [];
  let next = 0;
  const length = x.length;
  if (p !== undefined && q === p) {
    // Most often both are masked alike, and all else is the same.
    let word = 0;
    while (word < length && ((x[word]! ^ y[word]!) & p[word]!) === 0) word++;
    if (word === length) return found;
  }
  for (let word = 0; word < x.length; word++) {
    let bits = (x[word] as number) ^ (y[word] as number);
    if (bits === 0) continue;
    if (p !== undefined) bits &= p[word] as number;
    if (q !== undefined) bits &= q[word] as number;
    if (bits === 0) continue;
    next = Math.max(next, firsts[word] as number);
    while (next < slots.length && slots[next]!.field.offset < 4 * word + 4) {
      found.push(slots[next++] as Slot);
    }
  }
  return found;
}

/**
 * Whether two images agree, without saying where.
 *
 * @param a The first image.
 * @param b The second image, of the same layout.
 * @returns `unknown` when all bits known in both agree and some are not known; `differs` when
 * their lengths do.
 * @example
 * ```ts
 * import { compareImages } from "@vmtape/vmtape/engine";
 * const a = { bytes: Uint8Array.of(1, 0), known: Uint8Array.of(0xff, 0) };
 * const b = { bytes: Uint8Array.of(1, 2) };
 * if (compareImages(a, b) !== "unknown") throw new Error();
 * ```
 */
export function compareImages(a: Image, b: Image): Verdict {
  if (a.known === undefined && b.known === undefined) {
    return Buffer.compare(a.bytes, b.bytes) === 0 ? "same" : "differs";
  }
  if (a.bytes.length !== b.bytes.length || !agree(a, b)) return "differs";
  for (let i = 0; i < a.bytes.length; i++) {
    if (((a.known?.[i] ?? 0xff) & (b.known?.[i] ?? 0xff)) !== 0xff) return "unknown";
  }
  return "same";
}

/** Whether all bits known in both of two images of one length agree. */
function agree(a: Image, b: Image): boolean {
  const x = a.bytes, y = b.bytes;
  const p = a.known, q = b.known;
  for (let i = 0; i < x.length; i++) {
    let bits = (x[i] as number) ^ (y[i] as number);
    if (bits === 0) continue;
    if (p !== undefined) bits &= p[i] as number;
    if (q !== undefined) bits &= q[i] as number;
    if (bits !== 0) return false;
  }
  return true;
}

const ones = new WeakMap<Layout, Uint8Array>();

function isKnown(layout: Layout, { known }: Image): boolean {
  if (known === undefined) return true;
  let all = ones.get(layout);
  if (all === undefined) ones.set(layout, all = new Uint8Array(layout.size).fill(0xff));
  return Buffer.compare(known, all) === 0;
}

// From about here on a native comparison is faster than a loop, in spite of its views.
const LONG = 128;

/** Two images side by side, looked at in 32-bit words. */
class Pair {
  readonly #images: readonly [Image, Image];
  readonly #a: DataView;
  readonly #b: DataView;
  /** The bits known in both images, when any are not. */
  readonly #both: DataView | undefined;

  constructor(a: Image, b: Image) {
    this.#images = [a, b];
    this.#a = view(a.bytes);
    this.#b = view(b.bytes);
    const mask = a.known ?? b.known;
    if (mask === undefined) return;
    const other = b.known ?? mask;
    this.#both = view(other === mask ? mask : mask.map((byte, i) => byte & other[i]!));
  }

  /** Whether any bits known in both images differ. */
  differ(offset: number, size: number): boolean {
    const both = this.#both;
    const end = offset + size;
    if (both === undefined && size >= LONG) {
      const [a, b] = this.#images;
      return Buffer.compare(a.bytes.subarray(offset, end), b.bytes.subarray(offset, end)) !== 0;
    }
    let at = offset;
    for (; at + 4 <= end; at += 4) {
      const bits = this.#a.getUint32(at) ^ this.#b.getUint32(at);
      if (bits !== 0 && (both === undefined || (bits & both.getUint32(at)) !== 0)) return true;
    }
    for (; at < end; at++) {
      const bits = this.#a.getUint8(at) ^ this.#b.getUint8(at);
      if (bits !== 0 && (both === undefined || (bits & both.getUint8(at)) !== 0)) return true;
    }
    return false;
  }

  /** Whether any bits are unknown in one of the images. */
  masked(offset: number, size: number): boolean {
    const both = this.#both;
    if (both === undefined) return false;
    const end = offset + size;
    let at = offset;
    for (; at + 4 <= end; at += 4) if (both.getUint32(at) !== 0xffff_ffff) return true;
    for (; at < end; at++) if (both.getUint8(at) !== 0xff) return true;
    return false;
  }
}

function view(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
