/**
 * Builds the project's own guest: a 64 KiB image that stands in for QEMU's
 * firmware, so that it runs from the first instruction after reset.
 *
 * @module
 */
import {
  type CodeItem,
  type CodeRow,
  type CommonLabel,
  ROM_BASE,
  ROM_SIZE,
  ROM_TABLES,
  type ScenarioLabel,
} from "./machine_code.ts";

/** The guest as bytes and addresses. */
export interface GuestImage<L extends string = string> {
  /** The image, {@linkcode ROM_SIZE} bytes, for QEMU's `-bios`. */
  readonly bytes: Uint8Array;
  /** Address of each label in the guest. */
  readonly labels: Readonly<Record<L, number>>;
  /** Bytes of code and descriptors, without page tables and padding. */
  readonly codeSize: number;
}

/** The image that runs scenarios. */
export type ScenarioGuest = GuestImage<ScenarioLabel>;

/**
 * Builds an image from a table of instructions.
 *
 * @param table The instructions; they begin at label `start`, where the processor comes from reset.
 * @returns The image.
 * @throws {RangeError} When a short jump of the table does not reach.
 * @example
 * ```ts
 * import { buildGuest, MACHINE_CODE } from "@vmtape/vmtape/traces";
 * const guest = buildGuest(MACHINE_CODE);
 * if (guest.bytes[0xfff0] !== 0xea || guest.codeSize > 0x1000) throw new Error();
 * ```
 */
export function buildGuest<L extends string>(
  table: readonly CodeRow<L | CommonLabel>[],
): GuestImage<L | CommonLabel> {
  const labels = {} as Record<L | CommonLabel, number>;
  let at = ROM_BASE;
  for (const row of table) {
    if (row.label !== undefined) labels[row.label] = at;
    at += size(row);
  }
  const codeSize = at - ROM_BASE;
  const bytes = new Uint8Array(ROM_SIZE);
  const view = new DataView(bytes.buffer);
  at = 0;
  for (const row of table) {
    const end = at + size(row);
    for (const item of row.bytes) at = put(view, at, item, labels, ROM_BASE + end);
  }
  pageTables(view, ROM_TABLES - ROM_BASE);
  // jmp far f000:start, where the processor begins after reset.
  bytes.set([0xea, labels.start & 0xff, (labels.start >> 8) & 0xff, 0x00, 0xf0], 0xfff0);
  return { bytes, labels, codeSize };
}

function size(row: CodeRow): number {
  let bytes = 0;
  for (const item of row.bytes) bytes += width(item);
  return bytes;
}

function width(item: CodeItem): number {
  if (typeof item === "number" || "rel8" in item) return 1;
  return "abs16" in item ? 2 : 4;
}

function put<L extends string>(
  view: DataView,
  at: number,
  item: CodeItem<L>,
  labels: Readonly<Record<L, number>>,
  next: number,
): number {
  if (typeof item === "number") {
    view.setUint8(at, item);
  } else if ("rel8" in item) {
    const distance = labels[item.rel8] - next;
    if (distance < -128 || distance > 127) {
      throw new RangeError(`The short jump to ${item.rel8} is ${distance} bytes`);
    }
    view.setInt8(at, distance);
  } else if ("abs16" in item) {
    view.setUint16(at, labels[item.abs16] & 0xffff, true);
  } else {
    view.setUint32(at, labels[item.abs32], true);
  }
  return at + width(item);
}

/** PML4, PDPT and two PDs of 2 MiB pages, accessed and dirty already: a ROM cannot take the bits. */
function pageTables(view: DataView, at: number): void {
  const entry = (offset: number, value: number) => view.setBigUint64(offset, BigInt(value), true);
  entry(at, (ROM_TABLES + 0x1000) | 0x63);
  entry(at + 0x1000, (ROM_TABLES + 0x2000) | 0x63);
  // The fourth GiB holds the local APIC; its pages are not cached.
  entry(at + 0x1018, (ROM_TABLES + 0x3000) | 0x63);
  for (let i = 0; i < 512; i++) {
    entry(at + 0x2000 + 8 * i, i * 0x200000 + 0xe3);
    entry(at + 0x3000 + 8 * i, 0xc0000000 + i * 0x200000 + 0xf3);
  }
}

/**
 * A table as a listing: address, bytes, instruction.
 *
 * @param table The instructions.
 * @returns One line a row.
 * @example
 * ```ts
 * import { guestListing, MACHINE_CODE } from "@vmtape/vmtape/traces";
 * if (!guestListing(MACHINE_CODE).startsWith("start:")) throw new Error();
 * ```
 */
export function guestListing<L extends string>(table: readonly CodeRow<L | CommonLabel>[]): string {
  const { bytes } = buildGuest(table);
  const lines: string[] = [];
  let at = 0;
  for (const row of table) {
    const end = at + size(row);
    if (row.label !== undefined) lines.push(`${row.label}:`);
    const hex = [...bytes.subarray(at, end)].map((b) => b.toString(16).padStart(2, "0"));
    lines.push(`  ${(ROM_BASE + at).toString(16)}  ${hex.join(" ").padEnd(30)}  ${row.text}`);
    at = end;
  }
  return lines.join("\n") + "\n";
}
