/**
 * Segment registers: the VMCB's packed attributes, what KVM reports of them,
 * and the form in which the SMRAM state save area keeps them.
 *
 * @module
 */
import { S, VMCB01_AT } from "../svm/machine.ts";
import { CLEAN } from "./constants.ts";
import { markDirty } from "./control.ts";
import type { Vcpu } from "./vcpu.ts";

/** Segment registers in the order of the VMCB's save area. */
export const SEGMENTS = ["es", "cs", "ss", "ds", "fs", "gs", "ldtr", "tr"] as const;

/** Name of a segment register. */
export type SegmentName = typeof SEGMENTS[number];

const OFFSET: Readonly<Record<SegmentName, number>> = {
  es: S.es_selector,
  cs: S.cs_selector,
  ss: S.ss_selector,
  ds: S.ds_selector,
  fs: S.fs_selector,
  gs: S.gs_selector,
  ldtr: S.ldtr_selector,
  tr: S.tr_selector,
};

const PRESENT = 0x80, TYPE_ACCESSED = 1, TYPE_BUSY = 2, L_DB_AVL = 0x700, DB = 0x400, G = 0x800;

/** Where a segment register is kept: FS, GS, LDTR and TR always in vmcb01 (svm_seg). */
export function segmentAt(v: Vcpu, name: SegmentName): number {
  const own = name === "fs" || name === "gs" || name === "ldtr" || name === "tr";
  return (own ? VMCB01_AT : v.vmcb) + OFFSET[name];
}

/** Attributes as KVM reports them to userspace and to SMRAM (svm_get_segment), packed as in a VMCB. */
export function reportedAttributes(v: Vcpu, name: SegmentName): number {
  const at = segmentAt(v, name);
  let attrib = v.u16(at + 2) & (0xff | L_DB_AVL);
  if (v.u32(at + 4) > 0xfffff) attrib |= G;
  const present = (attrib & PRESENT) !== 0;
  if (name === "tr") attrib |= TYPE_BUSY;
  else if (name === "ss") {
    if (!present) attrib &= ~DB;
    attrib = attrib & ~0x60 | (v.u8(v.vmcb + S.cpl) & 3) << 5;
  } else if (name !== "cs" && name !== "ldtr" && present) attrib |= TYPE_ACCESSED;
  return attrib;
}

/** Loads a segment register (svm_set_segment). */
export function setSegment(
  v: Vcpu,
  name: SegmentName,
  selector: number,
  attrib: number,
  limit: number,
  base: bigint,
): void {
  const at = segmentAt(v, name);
  v.set16(at, selector);
  v.set16(at + 2, attrib);
  v.set32(at + 4, limit);
  v.set64(at + 8, base);
  if (name === "ss") v.set8(v.vmcb + S.cpl, attrib >> 5 & 3);
  markDirty(v, v.vmcb, CLEAN.SEG);
}

/** VMCB attributes (12 bits) as the state save area has them (16 bits). */
export function toSmram(attrib: number): number {
  return attrib & 0xff | (attrib & 0xf00) << 4;
}

/** State save area attributes as a VMCB has them. */
export function fromSmram(attributes: number): number {
  return attributes & 0xff | attributes >> 4 & 0xf00;
}
