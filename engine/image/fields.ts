/**
 * Reading and writing one field of an image, with what is known of it.
 *
 * @module
 */
import { VmtapeError } from "../error.ts";
import type { Field, Layout } from "../layout.ts";
import type { Image, TraceEvent } from "../event.ts";
import { closest } from "../closest.ts";

/** A field's value as far as it is known. */
export interface FieldValue {
  /** The value, little-endian; 0 in the bits that are not known. */
  readonly value: bigint;
  /** A 1 bit is a known bit. */
  readonly known: bigint;
}

/**
 * A name that a layout has no field for.
 *
 * @example
 * ```ts
 * import { UnknownFieldError, fieldNamed, VMCB_LAYOUT } from "@vmtape/vmtape/engine";
 * try {
 *   fieldNamed(VMCB_LAYOUT, "save.effer");
 * } catch (error) {
 *   if (!(error instanceof UnknownFieldError) || error.suggestion !== "save.efer") throw error;
 * }
 * ```
 */
export class UnknownFieldError extends VmtapeError {
  /** Name of the class, for those who cannot use instanceof. */
  override readonly name = "UnknownFieldError";
  /** Name of the layout. */
  readonly layout: string;
  /** The name that was asked for. */
  readonly field: string;
  /** The name of a field that resembles it, if one does. */
  readonly suggestion: string | undefined;

  /**
   * Looks for a name that was probably meant.
   *
   * @param layout The layout that was searched.
   * @param field The name that was asked for.
   */
  constructor(layout: Layout, field: string) {
    const suggestion = closest(field, layout.fields.map((f) => f.name));
    const hint = suggestion === undefined ? "" : `: did you mean ${suggestion}?`;
    super(`Layout ${layout.name} has no field "${field}"${hint}`);
    this.layout = layout.name;
    this.field = field;
    this.suggestion = suggestion;
  }
}

/**
 * An image, or the mask of one, that is not as long as its layout.
 *
 * @example
 * ```ts
 * import { checkImage, ImageSizeError, VMCB_LAYOUT } from "@vmtape/vmtape/engine";
 * try {
 *   checkImage(VMCB_LAYOUT, { bytes: new Uint8Array(16) });
 * } catch (error) {
 *   if (!(error instanceof ImageSizeError) || error.actual !== 16) throw error;
 * }
 * ```
 */
export class ImageSizeError extends VmtapeError {
  /** Name of the class, for those who cannot use instanceof. */
  override readonly name = "ImageSizeError";
  /** Name of the layout. */
  readonly layout: string;
  /** Size of the layout in bytes. */
  readonly expected: number;
  /** Size of what was handed in, in bytes. */
  readonly actual: number;

  /**
   * Says which part has the wrong size.
   *
   * @param layout The layout.
   * @param what What was handed in: its bytes or its mask.
   * @param actual Size of it, in bytes.
   */
  constructor(layout: Layout, what: string, actual: number) {
    super(
      `The ${what} of an image of layout ${layout.name} must have ${layout.size} bytes, not ${actual}`,
    );
    this.layout = layout.name;
    this.expected = layout.size;
    this.actual = actual;
  }
}

/**
 * Checks that an image is as long as its layout.
 *
 * @param layout The layout.
 * @param image The image.
 * @throws {ImageSizeError} When its bytes or its mask are longer or shorter.
 * @example
 * ```ts
 * import { checkImage, VMCB_LAYOUT } from "@vmtape/vmtape/engine";
 * checkImage(VMCB_LAYOUT, { bytes: new Uint8Array(4096) });
 * ```
 */
export function checkImage(layout: Layout, image: Image): void {
  if (image.bytes.length !== layout.size) {
    throw new ImageSizeError(layout, "bytes", image.bytes.length);
  }
  if (image.known !== undefined && image.known.length !== layout.size) {
    throw new ImageSizeError(layout, "mask", image.known.length);
  }
}

/**
 * Whether an image is as long as its layout, or ends where the layout allows it.
 *
 * @param layout The layout.
 * @param image The image.
 * @example
 * ```ts
 * import { fits, VMCB_LAYOUT } from "@vmtape/vmtape/engine";
 * if (fits(VMCB_LAYOUT, { bytes: new Uint8Array(100) })) throw new Error();
 * ```
 */
export function fits(layout: Layout, { bytes: { length } }: Image): boolean {
  return length === layout.size || length === layout.shorter;
}

/**
 * An image as long as its layout, as a layout of another version may have laid it out: what ends
 * earlier gets unknown bytes at its end, and of what is longer the rest is left out.
 *
 * @param layout The layout.
 * @param image The image.
 * @returns The image itself when it is as long as the layout.
 * @throws {ImageSizeError} When its mask is not as long as its bytes.
 * @example
 * ```ts
 * import { fieldNamed, fitImage, INNER_LAYOUT, readField } from "@vmtape/vmtape/engine";
 * const short = { bytes: new Uint8Array(INNER_LAYOUT.shorter!) };
 * const whole = fitImage(INNER_LAYOUT, short);
 * if (readField(whole, fieldNamed(INNER_LAYOUT, "gva_role")).known !== 0n) throw new Error();
 * ```
 */
export function fitImage(layout: Layout, image: Image): Image {
  const { bytes: given, known: mask } = image;
  const { length } = given;
  if (mask !== undefined && mask.length !== length) {
    throw new ImageSizeError(layout, "mask", mask.length);
  }
  const { size } = layout;
  if (length === size) return image;
  if (length > size) {
    return { bytes: given.subarray(0, size), ...(mask && { known: mask.subarray(0, size) }) };
  }
  const bytes = new Uint8Array(size), known = new Uint8Array(size);
  bytes.set(given);
  if (mask === undefined) known.fill(0xff, 0, length);
  else known.set(mask);
  return { bytes, known };
}

/**
 * Numbers of the 32-bit words of a mask of which a bit is set; the last word may be cut short.
 *
 * @param known The mask.
 * @returns The numbers, ascending.
 * @example
 * ```ts
 * import { knownWordsOf } from "@vmtape/vmtape/engine";
 * if (knownWordsOf(Uint8Array.of(0, 0, 0, 0, 0, 1)).join() !== "1") throw new Error();
 * ```
 */
export function knownWordsOf(known: Uint8Array): Uint16Array {
  const words: number[] = [];
  for (let at = 0; at < known.length; at++) {
    if (known[at] !== 0 && words.at(-1) !== at >> 2) words.push(at >> 2);
  }
  return Uint16Array.from(words);
}

/**
 * A copy of an image, to be kept when the original is used again.
 *
 * @param image The image.
 * @returns The copy.
 * @example
 * ```ts
 * import { copyImage } from "@vmtape/vmtape/engine";
 * const image = { bytes: new Uint8Array(4) };
 * const copy = copyImage(image);
 * image.bytes[0] = 1;
 * if (copy.bytes[0] !== 0 || copy.known !== undefined) throw new Error();
 * ```
 */
export function copyImage({ bytes, known }: Image): Image {
  return known === undefined
    ? { bytes: bytes.slice() }
    : { bytes: bytes.slice(), known: known.slice() };
}

/**
 * A copy of an event with images of its own.
 *
 * @param event The event.
 * @returns The copy.
 * @example
 * ```ts
 * import { copyEvent } from "@vmtape/vmtape/engine";
 * const bytes = new Uint8Array(512);
 * const copy = copyEvent({ kind: "smi", vcpu: 0, smram: { bytes } });
 * bytes[0] = 1;
 * if (copy.kind !== "smi" || copy.smram?.bytes[0] !== 0) throw new Error("Not a copy");
 * ```
 */
export function copyEvent(event: TraceEvent): TraceEvent {
  const copy: Record<string, unknown> = { ...event };
  for (const name in copy) {
    const value = copy[name];
    if (typeof value === "object" && (value as Image).bytes instanceof Uint8Array) {
      copy[name] = copyImage(value as Image);
    }
  }
  return copy as unknown as TraceEvent;
}

/**
 * Takes over what is known of an image; the other bits stay.
 *
 * @param to Bytes, as many as the image has.
 * @param image The image.
 * @example
 * ```ts
 * import { overlayImage } from "@vmtape/vmtape/engine";
 * const to = Uint8Array.of(0x12, 0x34);
 * overlayImage(to, { bytes: Uint8Array.of(0xff, 0xff), known: Uint8Array.of(0xf0, 0) });
 * if (to[0] !== 0xf2 || to[1] !== 0x34) throw new Error();
 * ```
 */
export function overlayImage(to: Uint8Array, { bytes, known, knownWords }: Image): void {
  const end = bytes.length;
  if (known === undefined) to.set(bytes);
  else if (knownWords !== undefined) {
    for (let i = 0; i < knownWords.length; i++) {
      const at = 4 * (knownWords[i] as number);
      overlayBytes(to, bytes, known, at, Math.min(at + 4, end));
    }
  } else if ((known.byteOffset & 3) !== 0) overlayBytes(to, bytes, known, 0, end);
  else {
    // Of most images that are not known whole most is unknown.
    const words = new Int32Array(known.buffer, known.byteOffset, end >> 2);
    for (let word = 0; word < words.length; word++) {
      if (words[word] !== 0) overlayBytes(to, bytes, known, 4 * word, 4 * word + 4);
    }
    overlayBytes(to, bytes, known, 4 * words.length, end);
  }
}

function overlayBytes(
  to: Uint8Array,
  bytes: Uint8Array,
  known: Uint8Array,
  from: number,
  end: number,
): void {
  for (let i = from; i < end; i++) {
    const mask = known[i] as number;
    to[i] = (to[i] as number) & ~mask | (bytes[i] as number) & mask;
  }
}

/**
 * Keeps one image at a time, in the same memory as long as its size stays the same.
 *
 * @example
 * ```ts
 * import { ImageKeeper } from "@vmtape/vmtape/engine";
 * const keeper = new ImageKeeper();
 * const image = { bytes: Uint8Array.of(1) };
 * const kept = keeper.keep(image);
 * image.bytes[0] = 2;
 * if (kept.bytes[0] !== 1 || keeper.keep(image).bytes !== kept.bytes) throw new Error();
 * ```
 */
export class ImageKeeper {
  /** The image that was kept last, and its revision then. */
  #given: Image | undefined;
  #revision: number | undefined;
  #kept: Image = { bytes: new Uint8Array(0) };
  #bytes: Uint8Array = new Uint8Array(0);
  #known: Uint8Array = new Uint8Array(0);

  /**
   * Copies an image over the one kept before.
   *
   * @param image The image.
   * @returns The copy, valid until the next is kept.
   */
  keep(image: Image): Image {
    const { bytes, known, revision } = image;
    const same = image === this.#given && revision !== undefined && revision === this.#revision;
    if (same) return this.#kept;
    this.#given = image;
    this.#revision = revision;
    this.#bytes = copied(bytes, this.#bytes);
    if (known === undefined) return this.#kept = { bytes: this.#bytes };
    this.#known = copied(known, this.#known);
    return this.#kept = { bytes: this.#bytes, known: this.#known };
  }
}

function copied(from: Uint8Array, to: Uint8Array): Uint8Array {
  if (to.length !== from.length) return from.slice();
  to.set(from);
  return to;
}

const indexes = new WeakMap<Layout, ReadonlyMap<string, Field>>();

/**
 * The row of a layout's field.
 *
 * @param layout The layout.
 * @param name Name of the field.
 * @returns Its row.
 * @throws {UnknownFieldError} When the layout has no such field.
 * @example
 * ```ts
 * import { fieldNamed, VMCB_LAYOUT } from "@vmtape/vmtape/engine";
 * if (fieldNamed(VMCB_LAYOUT, "save.rip").offset !== 0x578) throw new Error();
 * ```
 */
export function fieldNamed(layout: Layout, name: string): Field {
  let index = indexes.get(layout);
  if (index === undefined) {
    index = new Map(layout.fields.map((field) => [field.name, field]));
    indexes.set(layout, index);
  }
  const field = index.get(name);
  if (field === undefined) throw new UnknownFieldError(layout, name);
  return field;
}

/**
 * All bits of a field.
 *
 * @param field The field.
 * @returns A mask of 8 × size ones.
 * @example
 * ```ts
 * import { fieldMask } from "@vmtape/vmtape/engine";
 * if (fieldMask({ name: "cpl", offset: 0, size: 1, doc: "" }) !== 0xffn) throw new Error();
 * ```
 */
export function fieldMask(field: Field): bigint {
  return fieldMasks[field.size] ??= (1n << BigInt(8 * field.size)) - 1n;
}

const eight = new Uint8Array(8);
const eightView = new DataView(eight.buffer);

// By size in bytes: making a mask takes longer than comparing two pages.
const fieldMasks: bigint[] = [];

/**
 * Reads a field of at most 4 bytes as a number.
 *
 * @param bytes The bytes.
 * @param field The field.
 * @param base Where the layout begins in `bytes`, in bytes.
 * @returns Its unsigned value.
 * @throws {RangeError} When the field is longer than 4 bytes.
 * @example
 * ```ts
 * import { fieldNamed, readNumber, VMCB_LAYOUT } from "@vmtape/vmtape/engine";
 * const bytes = new Uint8Array(4096);
 * bytes[0x70] = 0x81;
 * if (readNumber(bytes, fieldNamed(VMCB_LAYOUT, "control.exit_code")) !== 0x81) throw new Error();
 * ```
 */
export function readNumber(bytes: Uint8Array, field: Field, base = 0): number {
  if (field.size > 4) {
    throw new RangeError(`Field ${field.name} has ${field.size} bytes: read it as a bigint`);
  }
  let value = 0;
  for (let i = field.size - 1; i >= 0; i--) {
    value = value * 256 + bytes[base + field.offset + i]!;
  }
  return value;
}

/**
 * Reads a field of any size.
 *
 * @param bytes The bytes.
 * @param field The field.
 * @param base Where the layout begins in `bytes`, in bytes.
 * @returns Its unsigned value.
 * @example
 * ```ts
 * import { fieldNamed, readBigint, VMCB_LAYOUT } from "@vmtape/vmtape/engine";
 * const bytes = new Uint8Array(4096).fill(0xff);
 * const cr0 = readBigint(bytes, fieldNamed(VMCB_LAYOUT, "save.cr0"));
 * if (cr0 !== 0xffff_ffff_ffff_ffffn) throw new Error();
 * ```
 */
export function readBigint(bytes: Uint8Array, field: Field, base = 0): bigint {
  const at = base + field.offset;
  if (field.size === 8) {
    // A view of its own would take longer than copying eight bytes.
    for (let i = 0; i < 8; i++) eight[i] = bytes[at + i] as number;
    return eightView.getBigUint64(0, true);
  }
  if (field.size <= 4) return BigInt(readNumber(bytes, field, base));
  let hex = "0x";
  for (let i = field.size - 1; i >= 0; i--) hex += bytes[at + i]!.toString(16).padStart(2, "0");
  return BigInt(hex);
}

/**
 * Writes a field of any size.
 *
 * @param bytes The bytes.
 * @param field The field.
 * @param value Its new value.
 * @param base Where the layout begins in `bytes`, in bytes.
 * @throws {RangeError} When the value is negative or does not fit.
 * @example
 * ```ts
 * import { fieldNamed, readBigint, VMCB_LAYOUT, writeField } from "@vmtape/vmtape/engine";
 * const bytes = new Uint8Array(4096);
 * const efer = fieldNamed(VMCB_LAYOUT, "save.efer");
 * writeField(bytes, efer, 0x1500);
 * if (readBigint(bytes, efer) !== 0x1500n) throw new Error();
 * ```
 */
export function writeField(
  bytes: Uint8Array,
  field: Field,
  value: bigint | number,
  base = 0,
): void {
  let rest = BigInt(value);
  if (rest < 0n || rest > fieldMask(field)) {
    throw new RangeError(
      `Value 0x${rest.toString(16)} does not fit into the ${field.size} bytes of ${field.name}`,
    );
  }
  for (let i = 0; i < field.size; i++) {
    bytes[base + field.offset + i] = Number(rest & 0xffn);
    rest >>= 8n;
  }
}

/**
 * Reads a field of an image with what is known of it; beyond the end of an image nothing is.
 *
 * @param image The image.
 * @param field The field.
 * @returns Its value and the mask of its known bits.
 * @example
 * ```ts
 * import { fieldNamed, readField, VMCB_LAYOUT } from "@vmtape/vmtape/engine";
 * const image = { bytes: new Uint8Array(4096), known: new Uint8Array(4096) };
 * if (readField(image, fieldNamed(VMCB_LAYOUT, "save.rip")).known !== 0n) throw new Error();
 * ```
 */
export function readField(image: Image, field: Field): FieldValue {
  if (field.offset + field.size > image.bytes.length) return { value: 0n, known: 0n };
  const value = readBigint(image.bytes, field);
  if (image.known === undefined) return { value, known: fieldMask(field) };
  const known = readBigint(image.known, field);
  return { value: value & known, known };
}
