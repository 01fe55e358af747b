/**
 * A layout without holes: its fields, and the bytes that no field covers, which
 * a comparison must not pass over.
 *
 * @module
 */
import type { Field, Layout } from "../layout.ts";

/** A field, or a stretch of bytes between fields. */
export interface Slot {
  /** The field; for a stretch, a row made up for it, named `AREA+0xOFFSET`. */
  readonly field: Field;
  /** Name of the area that a stretch's offsets count from; absent for a field. */
  readonly area?: string;
  /** Where that area begins, in bytes. */
  readonly base: number;
}

const cache = new WeakMap<Layout, readonly Slot[]>();

/**
 * All slots of a layout, in order of their offset. Together they cover every
 * byte of it. A stretch belongs to the area of the field before it: what is
 * before the dot in that field's name.
 *
 * @param layout The layout.
 * @returns Its slots; the same array every time.
 * @example
 * ```ts
 * import { slotsOf, VMCB_LAYOUT } from "@vmtape/vmtape/engine";
 * const first = slotsOf(VMCB_LAYOUT).find((slot) => slot.area !== undefined);
 * if (first?.field.name !== "control+0x18") throw new Error();
 * ```
 */
export function slotsOf(layout: Layout): readonly Slot[] {
  let slots = cache.get(layout);
  if (slots === undefined) {
    slots = build(layout);
    cache.set(layout, slots);
  }
  return slots;
}

/**
 * The row for some bytes of a stretch between fields.
 *
 * @param slot The stretch.
 * @param offset Where the bytes begin in the image.
 * @param size How many.
 * @returns A row named after their place.
 * @example
 * ```ts
 * import { reservedField, slotsOf, VMCB_LAYOUT } from "@vmtape/vmtape/engine";
 * const gap = slotsOf(VMCB_LAYOUT).find((slot) => slot.field.name === "save+0xa0")!;
 * if (reservedField(gap, 0x4a8, 8).name !== "save+0xa8") throw new Error();
 * ```
 */
export function reservedField(slot: Slot, offset: number, size: number): Field {
  const name = `${slot.area}+0x${(offset - slot.base).toString(16)}`;
  return { name, offset, size, doc: "Reserved" };
}

/**
 * Cuts a stretch into rows worth reporting: one for each 8-byte word that is
 * `loud`, one for each run of words that are `unknown`, none for `quiet` ones.
 *
 * @param slot The stretch.
 * @param classify Says what a word is, from its offset in the image and its size in bytes.
 * @returns The rows, in order.
 * @example
 * ```ts
 * import { cutReserved, slotsOf, VMCB_LAYOUT } from "@vmtape/vmtape/engine";
 * const gap = slotsOf(VMCB_LAYOUT).find((slot) => slot.field.name === "control+0x18")!;
 * const rows = cutReserved(gap, (offset) => offset === 0x20 ? "loud" : "quiet");
 * if (rows.length !== 1 || rows[0]?.name !== "control+0x20") throw new Error();
 * ```
 */
export function cutReserved(
  slot: Slot,
  classify: (offset: number, size: number) => "quiet" | "loud" | "unknown",
): Field[] {
  const rows: Field[] = [];
  const end = slot.field.offset + slot.field.size;
  let run = -1;
  const close = (at: number) => {
    if (run >= 0) rows.push(reservedField(slot, run, at - run));
    run = -1;
  };
  for (let at = slot.field.offset, next = 0; at < end; at = next) {
    next = Math.min(end, at - at % 8 + 8);
    const kind = classify(at, next - at);
    if (kind === "unknown") {
      if (run < 0) run = at;
      continue;
    }
    close(at);
    if (kind === "loud") rows.push(reservedField(slot, at, next - at));
  }
  close(end);
  return rows;
}

function build(layout: Layout): readonly Slot[] {
  const slots: Slot[] = [];
  const fields = layout.fields.toSorted((a, b) => a.offset - b.offset);
  let area = layout.name;
  let base = 0;
  let end = 0;
  const fill = (to: number) => {
    if (to <= end) return;
    const gap = { field: { name: "", offset: end, size: to - end, doc: "Reserved" }, area, base };
    slots.push({ ...gap, field: reservedField(gap, end, to - end) });
  };
  for (const field of fields) {
    fill(field.offset);
    const dot = field.name.indexOf(".");
    const its = dot < 0 ? layout.name : field.name.slice(0, dot);
    if (its !== area) {
      area = its;
      base = dot < 0 ? 0 : field.offset;
    }
    slots.push({ field, base });
    end = Math.max(end, field.offset + field.size);
  }
  fill(layout.size);
  return slots;
}
