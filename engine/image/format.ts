/**
 * Values as text, with their bits by name.
 *
 * @module
 */
import type { BitField, Field } from "../layout.ts";
import { fieldMask, type FieldValue } from "./fields.ts";

/**
 * A field's value in hexadecimal, followed by the names of its bits, highest
 * first. Digits and names whose bits are not known carry a question mark; bits
 * without a name are `reserved=`. A field of more than 8 bytes is printed byte
 * by byte, in the order of memory.
 *
 * @param field The field.
 * @param value Its value.
 * @returns The text.
 * @example
 * ```ts
 * import { fieldNamed, formatValue, VMCB_LAYOUT } from "@vmtape/vmtape/engine";
 * const all = 0xffff_ffff_ffff_ffffn;
 * const efer = fieldNamed(VMCB_LAYOUT, "save.efer");
 * const event = fieldNamed(VMCB_LAYOUT, "control.event_inj");
 * const texts = [
 *   formatValue(efer, { value: 0x1500n, known: all }),
 *   formatValue(event, { value: 0x8000_030en, known: 0xffff_ffffn }),
 *   formatValue(efer, { value: 0x1000n, known: all ^ 0x500n }),
 * ];
 * const expected = [
 *   "0x1500 [SVME LMA LME]",
 *   "0x8000030e [V type=EXEPT vec=0xe]",
 *   "0x0000000000001?00 [SVME LMA? LME?]",
 * ];
 * if (texts.join() !== expected.join()) throw new Error(texts.join());
 * ```
 */
export function formatValue(field: Field, { value, known }: FieldValue): string {
  if (known === 0n) return "?";
  const whole = known === fieldMask(field);
  const digits = formatDigits(field, { value, known });
  const name = whole && value <= 0xffff_ffffn ? field.values?.[Number(value)] : undefined;
  if (name !== undefined) return `${digits} [${name}]`;
  const names = whole && value === 0n ? [] : bitTexts(field, value, known);
  return names.length === 0 ? digits : `${digits} [${names.join(" ")}]`;
}

/**
 * A field's value as {@linkcode formatValue} gives it, without the names of its bits.
 *
 * @param field The field.
 * @param value Its value.
 * @returns The text.
 * @example
 * ```ts
 * import { fieldNamed, formatDigits, VMCB_LAYOUT } from "@vmtape/vmtape/engine";
 * const efer = fieldNamed(VMCB_LAYOUT, "save.efer");
 * const text = formatDigits(efer, { value: 0x1500n, known: 0xffff_ffff_ffff_ffffn });
 * if (text !== "0x1500") throw new Error(text);
 * ```
 */
export function formatDigits(field: Field, { value, known }: FieldValue): string {
  if (known === 0n) return "?";
  return field.size > 8 ? memoryOrder(field, value, known) : hex(field, value, known);
}

/**
 * The part of a field's value that one row of its bits stands for.
 *
 * @param bits The row.
 * @param value The value of the whole field.
 * @returns The value of that part, or its name where it has one; `?` when any of its bits is not known.
 * @example
 * ```ts
 * import { formatBits } from "@vmtape/vmtape/engine";
 * const type = { name: "type", bit: 8, width: 3, values: { 2: "NMI" } };
 * const text = formatBits(type, { value: 0x202n, known: 0xffff_ffffn });
 * if (text !== "NMI") throw new Error(text);
 * ```
 */
export function formatBits(bits: BitField, { value, known }: FieldValue): string {
  const ones = (1n << BigInt(bits.width ?? 1)) - 1n;
  const shift = BigInt(bits.bit);
  if (((known >> shift) & ones) !== ones) return "?";
  const part = (value >> shift) & ones;
  const name = part <= 0xffff_ffffn ? bits.values?.[Number(part)] : undefined;
  if (name !== undefined) return name;
  return bits.width === undefined ? String(part) : `0x${part.toString(16)}`;
}

/**
 * The bits of a field that have a name.
 *
 * @param field The field.
 * @returns A mask of them.
 * @example
 * ```ts
 * import { fieldNamed, namedBits, VMCB_LAYOUT } from "@vmtape/vmtape/engine";
 * if (namedBits(fieldNamed(VMCB_LAYOUT, "control.int_state")) !== 3n) throw new Error();
 * ```
 */
export function namedBits(field: Field): bigint {
  let mask = 0n;
  for (const bits of field.bits ?? []) mask |= bitMask(bits);
  return mask;
}

/**
 * The bits that one row of a field's bits stands for.
 *
 * @param bits The row.
 * @returns A mask of them.
 * @example
 * ```ts
 * import { bitMask } from "@vmtape/vmtape/engine";
 * if (bitMask({ name: "IOPL", bit: 12, width: 2 }) !== 0x3000n) throw new Error();
 * ```
 */
export function bitMask({ bit, width = 1 }: BitField): bigint {
  return ((1n << BigInt(width)) - 1n) << BigInt(bit);
}

/**
 * Names of the bits of a field that a mask takes in, highest first; `reserved` for those without.
 *
 * @param field The field.
 * @param mask The mask.
 * @returns The names; none for a field without named bits.
 * @example
 * ```ts
 * import { bitNames, fieldNamed, VMCB_LAYOUT } from "@vmtape/vmtape/engine";
 * const names = bitNames(fieldNamed(VMCB_LAYOUT, "save.efer"), 0x1400n);
 * if (names.join() !== "SVME,LMA") throw new Error(names.join());
 * ```
 */
export function bitNames(field: Field, mask: bigint): string[] {
  const names: string[] = [];
  for (const bits of field.bits?.toReversed() ?? []) {
    if ((mask & bitMask(bits)) !== 0n) names.push(bits.name);
  }
  if (field.bits !== undefined && (mask & ~namedBits(field)) !== 0n) names.push("reserved");
  return names;
}

function bitTexts(field: Field, value: bigint, known: bigint): string[] {
  const out: string[] = [];
  if (field.bits === undefined) return out;
  for (const bits of field.bits.toReversed()) {
    const text = formatBits(bits, { value, known });
    if (bits.width === undefined) {
      if (text !== "0") out.push(text === "?" ? `${bits.name}?` : bits.name);
    } else if (text !== "0x0") {
      out.push(`${bits.name}=${text}`);
    }
  }
  const rest = value & ~namedBits(field);
  if (rest !== 0n) out.push(`reserved=0x${rest.toString(16)}`);
  return out;
}

// Known digits in full width when some are not, so that the place of the unknown ones shows.
function hex(field: Field, value: bigint, known: bigint): string {
  if (known === fieldMask(field)) return `0x${value.toString(16)}`;
  const width = 2 * field.size;
  const digits = value.toString(16).padStart(width, "0");
  const seen = known.toString(16).padStart(width, "0");
  let out = "0x";
  for (let i = 0; i < width; i++) out += seen[i] === "f" ? digits[i]! : "?";
  return out;
}

function memoryOrder(field: Field, value: bigint, known: bigint): string {
  const digits = hex(field, value, known).slice(2).padStart(2 * field.size, "0");
  const bytes: string[] = [];
  for (let i = digits.length - 2; i >= 0; i -= 2) bytes.push(digits.slice(i, i + 2));
  const zeros = bytes.length - 1 - bytes.findLastIndex((byte) => byte !== "00");
  // One zero byte is as short as saying so.
  if (zeros < 2) return bytes.join(" ");
  return [...bytes.slice(0, bytes.length - zeros), `(${zeros} zero bytes)`].join(" ");
}
