/**
 * What a consistency check is, and what the rows of the check sets share.
 *
 * @module
 */
import type { Feature } from "../svm/cpuid.ts";
import { CR0, CR4, EFER } from "../svm/bits.ts";
import { C, type Machine, S } from "../svm/machine.ts";

/** Where a check belongs: on the save area, on the control area, or on loading CR3. */
export type CheckGroup = "save" | "control" | "cr3";

/** One consistency check. */
export interface Check {
  /** Stable id; never reused for another meaning. */
  readonly id: string;
  /** The kernel's own text of it, newest first; it changes from kernel to kernel. */
  readonly texts: readonly string[];
  /** Where it belongs. */
  readonly group: CheckGroup;
  /** Fields it reads, as `save.NAME` and `control.NAME`. */
  readonly reads: readonly string[];
  /** What it forbids, in one line. */
  readonly doc: string;
  /** What it reads outside the VMCB; what {@linkcode Check.fails} forbids may then be allowed. */
  readonly beyond?: string;
  /**
   * What it reads of L1's CPUID, beside the address width where a field is an address. A feature
   * that is there never makes it fail where it would pass without.
   */
  readonly cpuid?: readonly Feature[];
  /** It is only made when nested state was restored. */
  readonly restore?: boolean;
  /**
   * Whether it fails. Checks of the group `cr3` are made by the step that loads
   * CR3, which knows what lies beyond the VMCB.
   *
   * @param m The machine.
   * @param at Byte offset of the VMCB image in `m.bytes`.
   */
  fails(m: Machine, at: number): boolean;
}

const EFER_LME = EFER.LME, EFER_LMA = EFER.LMA;
const CR0_PG = CR0.PG;

/** EFER.SVME. */
export const EFER_SVME: number = EFER.SVME;
/** CR0.PE. */
export const CR0_PE: number = CR0.PE;
/** CR0.NW. */
export const CR0_NW: number = CR0.NW;
/** CR0.CD. */
export const CR0_CD: number = CR0.CD;
/** CR4.PAE. */
export const CR4_PAE: number = CR4.PAE;

/** Bytes of the MSR permission map. */
export const MSRPM_SIZE = 0x2000;
/** Bytes of the I/O permission map. */
export const IOPM_SIZE = 0x3000;

/** Whether long mode paging is asked for, where further rules apply. */
export function longPaging(m: Machine, at: number): boolean {
  return (m.u32(at + S.efer) & EFER_LME) !== 0 && (m.u32(at + S.cr0) & CR0_PG) !== 0;
}

/** Whether the address at an offset has a bit beyond the physical address width. */
export function illegal(m: Machine, at: number): boolean {
  return m.u32(at + 4) >>> m.caps.physicalBits - 32 !== 0;
}

/** Whether a permission map reaches beyond the physical address width. */
export function bitmapIllegal(m: Machine, at: number, size: number): boolean {
  if (illegal(m, at)) return true;
  const last = (m.u32(at + 4) * 0x1_0000_0000) + ((m.u32(at) & ~0xfff) >>> 0) + size - 1;
  return last >= 2 ** m.caps.physicalBits;
}

/** Whether PDPTEs may be loaded from guest memory: PAE paging, not long mode (EFER.LMA), no nested paging. */
export function paeWithoutNp(m: Machine, at: number): boolean {
  return (m.u32(at + C.nested_ctl) & 1) === 0 && (m.u32(at + S.cr4) & CR4_PAE) !== 0 &&
    (m.u32(at + S.cr0) & CR0_PG) !== 0 && (m.u32(at + S.efer) & EFER_LMA) === 0;
}

/** Makes a row. */
export function check(
  group: CheckGroup,
  id: string,
  text: string | readonly string[],
  reads: readonly string[],
  doc: string,
  fails: (m: Machine, at: number) => boolean,
): Check {
  return { id, group, reads, doc, texts: typeof text === "string" ? [text] : text, fails };
}
