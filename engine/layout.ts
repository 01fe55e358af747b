/**
 * Tables that describe how bytes are laid out: VMCB areas, the nested
 * bookkeeping, register files. Accessors, dumps, diffs, codecs and the
 * documentation are all generated from such a table.
 *
 * @module
 */

/** A named group of bits within a {@linkcode Field}. */
export interface BitField {
  /** Name as the field's own manuals spell it. */
  readonly name: string;
  /** Lowest bit, counted from 0. */
  readonly bit: number;
  /** How many bits; 1 when left out. */
  readonly width?: number;
  /** Names of the values, where they have some. */
  readonly values?: Readonly<Record<number, string>>;
}

/** One row of a {@linkcode Layout}: a little-endian value at a fixed place. */
export interface Field {
  /** Unique within its layout. */
  readonly name: string;
  /** Byte offset from the start of the layout. */
  readonly offset: number;
  /** Size in bytes. */
  readonly size: number;
  /** Bit of the VMCB clean field that covers this field, where there is one. */
  readonly clean?: number;
  /** Named bits, lowest first. */
  readonly bits?: readonly BitField[];
  /** Names of the values of an enumeration. */
  readonly values?: Readonly<Record<number, string>>;
  /** What it is, in one line. */
  readonly doc: string;
}

/** A table of fields over an image of a fixed size. */
export interface Layout {
  /** Name used in traces and messages. */
  readonly name: string;
  /** Size of the image in bytes. */
  readonly size: number;
  /** Size of images that end earlier; what they leave off is unknown. */
  readonly shorter?: number;
  /** Rows in order of their offset. */
  readonly fields: readonly Field[];
}

/** Byte offsets of a layout's fields by name. */
export type Offsets<T extends readonly Field[]> = {
  readonly [K in T[number]["name"]]: number;
};

/**
 * Byte offsets of the fields of a table, moved by `base`.
 *
 * @param fields The table.
 * @param base Where the layout begins in a larger buffer, in bytes.
 * @returns An object with one offset per field name.
 * @example
 * ```ts
 * import { offsets } from "@vmtape/vmtape/engine";
 * const at = offsets([{ name: "rip", offset: 0x178, size: 8, doc: "" }] as const, 0x400);
 * if (at.rip !== 0x578) throw new Error();
 * ```
 */
export function offsets<const T extends readonly Field[]>(
  fields: T,
  base = 0,
): Offsets<T> {
  const out: Record<string, number> = {};
  for (const field of fields) out[field.name] = base + field.offset;
  return out as Offsets<T>;
}
