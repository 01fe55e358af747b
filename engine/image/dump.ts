/**
 * Every field of an image as a row of text.
 *
 * @module
 */
import type { Field, Layout } from "../layout.ts";
import type { Image } from "../event.ts";
import { fieldMask, fitImage, readField } from "./fields.ts";
import { formatValue } from "./format.ts";
import { cutReserved, slotsOf } from "./slots.ts";

/** One row of a dump. */
export interface DumpRow {
  /** Name of the field; `AREA+0xOFFSET` for bytes that no field covers. */
  readonly field: string;
  /** Its offset in the image, in bytes. */
  readonly offset: number;
  /** Its size in bytes. */
  readonly size: number;
  /** Its value; 0 in the bits that are not known. */
  readonly value: bigint;
  /** A 1 bit is a known bit. */
  readonly known: bigint;
  /** The value with its bits by name. */
  readonly text: string;
}

/** What to leave out of a dump. */
export interface DumpOptions {
  /** Leave out fields that are known to be 0. */
  readonly onlyNonZero?: boolean;
  /** Leave out fields of which nothing is known. */
  readonly onlyKnown?: boolean;
}

/**
 * The fields of an image, in order of their offset. Bytes that no field covers
 * get a row when they are not known to be 0.
 *
 * @param layout How the image is laid out.
 * @param from The image.
 * @param options What to leave out.
 * @returns One row a field.
 * @throws {ImageSizeError} When the image's mask is not as long as its bytes.
 * @example
 * ```ts
 * import { dumpImage, VMCB_LAYOUT } from "@vmtape/vmtape/engine";
 * const bytes = new Uint8Array(4096);
 * bytes[0x70] = 0x81;
 * const [row] = dumpImage(VMCB_LAYOUT, { bytes }, { onlyNonZero: true });
 * if (`${row?.field} ${row?.text}` !== "control.exit_code 0x81 [SVM_EXIT_VMMCALL]") throw new Error();
 * ```
 */
export function dumpImage(layout: Layout, from: Image, options: DumpOptions = {}): DumpRow[] {
  const image = fitImage(layout, from);
  const rows: DumpRow[] = [];
  const add = (field: Field, reserved: boolean) => {
    const { value, known } = readField(image, field);
    if (options.onlyKnown && known === 0n) return;
    if ((options.onlyNonZero || reserved) && value === 0n && known === fieldMask(field)) return;
    const { name, offset, size } = field;
    rows.push({
      field: name,
      offset,
      size,
      value,
      known,
      text: formatValue(field, { value, known }),
    });
  };
  for (const slot of slotsOf(layout)) {
    if (slot.area === undefined) add(slot.field, false);
    else {
      const words = cutReserved(slot, (at, size) => {
        if (image.known?.subarray(at, at + size).every((byte) => byte === 0)) return "unknown";
        return "loud";
      });
      for (const word of words) add(word, true);
    }
  }
  return rows;
}
