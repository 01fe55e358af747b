/**
 * What a condition can ask an event about: its own fields, and those of its images.
 *
 * @module
 */
import { closest } from "../closest.ts";
import { EVENTS, type FieldType, type Image, type TraceEvent } from "../event.ts";
import { fits, readField } from "../image/fields.ts";
import type { Field, Layout } from "../layout.ts";
import { exitCodeName, shortExitName } from "../svm/exit_codes.ts";
import { INNER_LAYOUT } from "../svm/inner_layout.ts";
import { REGS_LAYOUT } from "../svm/regs_layout.ts";
import { VMCB_LAYOUT } from "../svm/vmcb_fields.ts";

/** A number and which of its bits are known, or a text. */
export type Seen =
  | { readonly value: bigint; readonly known: bigint; readonly mask: bigint }
  | { readonly text: string };

/** Something of an event that has a name. */
export interface Asked {
  /** The field's row, of an image; undefined of an event's own field. */
  readonly row: Field | undefined;
  /** Reads it; undefined when the event does not have it. */
  read(event: TraceEvent, number: number): Seen | undefined;
}

const ALL = 0xffff_ffff_ffff_ffffn;
const LAYOUTS: Partial<Record<FieldType, Layout>> = {
  vmcb: VMCB_LAYOUT,
  regs: REGS_LAYOUT,
  inner: INNER_LAYOUT,
};

type Loose = Readonly<Record<string, unknown>>;

function seenOf(value: unknown): Seen | undefined {
  if (typeof value === "string") return { text: value };
  if (typeof value === "number") return { value: BigInt(value), known: ALL, mask: ALL };
  return typeof value === "bigint" ? { value, known: ALL, mask: ALL } : undefined;
}

/** Names of image fields, with the layout of what they hold, in the order of the kinds. */
const IMAGES: ReadonlyMap<string, Layout> = new Map(
  EVENTS.flatMap((kind) =>
    kind.fields.flatMap(({ name, type }) => {
      const layout = LAYOUTS[type as FieldType];
      return layout === undefined ? [] : [[name, layout] as const];
    })
  ),
);

/** Names of the events' own fields that have a value to be held against another. */
const OWN: ReadonlySet<string> = new Set([
  "kind",
  "vcpu",
  "time",
  ...EVENTS.flatMap((kind) =>
    kind.fields.flatMap(({ name, type }) =>
      ["u32", "i32", "u64", "text"].includes(type) ? [name] : []
    )
  ),
]);

function imageField(names: readonly string[], row: Field, layout: Layout): Asked {
  const mask = (1n << BigInt(8 * row.size)) - 1n;
  return {
    row,
    read(event) {
      for (const name of names) {
        const image = (event as unknown as Loose)[name] as Image | undefined;
        // An image of another size is of another version: nothing of it is known by name.
        if (image?.bytes === undefined || !fits(layout, image)) continue;
        return { ...readField(image, row), mask };
      }
      return undefined;
    },
  };
}

/** The fields of a layout that have a value of at most 64 bits. */
function valuesOf(layout: Layout): readonly Field[] {
  return layout.fields.filter(({ size }) => size <= 8);
}

function imagesOf(layout: Layout): string[] {
  return [...IMAGES].flatMap(([name, its]) => its === layout ? [name] : []);
}

const known: Map<string, Asked> = new Map();
for (const layout of [VMCB_LAYOUT, REGS_LAYOUT, INNER_LAYOUT]) {
  const names = imagesOf(layout);
  for (const row of valuesOf(layout)) {
    for (const name of names) known.set(`${name}.${row.name}`, imageField([name], row, layout));
    // Without the image's name the first one that the event has is meant.
    if (!known.has(row.name)) known.set(row.name, imageField(names, row, layout));
  }
}
for (const name of OWN) {
  const image = known.get(name);
  known.set(name, {
    row: undefined,
    read: (event, number) =>
      seenOf((event as unknown as Loose)[name]) ?? image?.read(event, number),
  });
}
known.set("event", { row: undefined, read: (_, number) => seenOf(number) });

/** Names that a condition can ask about. */
export const FIELD_NAMES: readonly string[] = [...known.keys()];

/**
 * What a name asks about.
 *
 * @param name Such as `kind`, `save.rip`, `vmcb02.control.int_ctl`, `inner.gif`.
 * @returns It; undefined when there is no such name.
 */
export function askedBy(name: string): Asked | undefined {
  return known.get(name);
}

/** The name there is that is closest to one that there is not. */
export function closestField(name: string): string | undefined {
  return closest(name, FIELD_NAMES);
}

/**
 * A way to print a field of events.
 *
 * @param name Its name.
 * @returns Gives the field of an event as text, `-` where the event lacks it and `?` where it is
 * unknown; or, for a name that there is not, what is wrong.
 * @example
 * ```ts
 * import { eventField } from "@vmtape/vmtape/engine";
 * const text = eventField("exit_code");
 * if (typeof text === "string") throw new Error(text);
 * if (text({ kind: "l2exit", vcpu: 0, exit_code: 0x400n }, 3) !== "NPF") throw new Error();
 * ```
 */
export function eventField(
  name: string,
): ((event: TraceEvent, number: number) => string) | string {
  const asked = askedBy(name);
  if (asked === undefined) {
    const near = closestField(name);
    return `There is no field ${JSON.stringify(name)}${near ? `, did you mean ${near}?` : ""}`;
  }
  const decimal = DECIMAL.has(name);
  return (event, number) => {
    const seen = asked.read(event, number);
    if (seen === undefined) return "-";
    if ("text" in seen) return seen.text;
    if (seen.known !== seen.mask) return "?";
    if (name === "exit_code") return shortExitName(exitCodeName(seen.value));
    const named = asked.row?.values?.[Number(seen.value)];
    if (named !== undefined) return shortExitName(named);
    return decimal ? String(seen.value) : `0x${seen.value.toString(16)}`;
  };
}

/** Fields that are counted, not addressed. */
const DECIMAL: ReadonlySet<string> = new Set(["event", "vcpu", "time", "errno", "rc", "count"]);
