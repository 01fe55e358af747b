/**
 * How the processor's linear addresses become addresses of guest memory: L0
 * with nested paging, L1 with nested paging as well, or L0 with shadow paging.
 *
 * @module
 */
import { CR0, CR4, EFER } from "../svm/bits.ts";
import type { Machine } from "../svm/machine.ts";
import type { Stage2, Walk, WalkMode } from "./walk.ts";

/** The processor's control registers, as far as paging depends on them. */
export interface PagingRegisters {
  /** CR0. */
  readonly cr0: number;
  /** CR3. */
  readonly cr3: number;
  /** CR4. */
  readonly cr4: number;
  /** EFER, low half. */
  readonly efer: number;
}

/**
 * A way from linear addresses to memory. On failure {@linkcode Walk.outcome} is
 * WALK_FAULT for a page fault of the guest, WALK_STAGE2 for a #VMEXIT with
 * exit code NPF, whose EXITINFO1 is `error` with bit 33 (`onTable`) or 32.
 */
export interface Paging {
  /**
   * Translates one address; `out` holds where to, or why not.
   *
   * @param m The machine.
   * @param registers Its control registers.
   * @param lo Linear address, low half.
   * @param hi Linear address, high half.
   * @param access {@linkcode READ}, {@linkcode WRITE} or {@linkcode FETCH}.
   * @param who {@linkcode SUPERVISOR}, {@linkcode USER} or {@linkcode SUPERVISOR_AC}.
   * @param out Where it leads, or why not.
   * @returns Whether the address is mapped.
   */
  translate(
    m: Machine,
    registers: PagingRegisters,
    lo: number,
    hi: number,
    access: number,
    who: number,
    out: Walk,
  ): boolean;
}

const CR0_WP = CR0.WP;
const CR4_PSE = CR4.PSE;
const CR4_PAE = CR4.PAE;
const CR4_LA57 = CR4.LA57;
const EFER_LMA = EFER.LMA;
const EFER_NXE = EFER.NX;

// One mode object per combination of the bits that matter.
const MODES: (WalkMode | undefined)[] = [];

/**
 * Paging mode that control registers select (QEMU's get_pg_mode).
 *
 * @param cr0 CR0.
 * @param cr4 CR4.
 * @param efer EFER, low half.
 * @returns The mode; shared between calls, not to be changed.
 * @example
 * ```ts
 * import { walkMode } from "@vmtape/vmtape/engine";
 * const mode = walkMode(0x80000011, 0x20, 0x500);
 * if (mode.levels !== 4 || mode.writeProtect || mode.noExecute) throw new Error();
 * ```
 */
export function walkMode(cr0: number, cr4: number, efer: number): WalkMode {
  const paging = cr0 < 0 || cr0 >= 0x80000000;
  const pae = (cr4 & CR4_PAE) !== 0;
  const long = (cr4 & CR4_LA57) !== 0 ? 5 : 4;
  const levels = !paging ? 0 : !pae ? 2 : (efer & EFER_LMA) !== 0 ? long : 3;
  const key = levels | ((cr0 & CR0_WP) !== 0 ? 8 : 0) | ((cr4 & CR4_PSE) !== 0 ? 16 : 0) |
    ((efer & EFER_NXE) !== 0 ? 32 : 0) | cr4 >>> 14 & 0xc0;
  return MODES[key] ??= {
    levels,
    writeProtect: (key & 8) !== 0,
    largePages: (key & 16) !== 0,
    noExecute: (key & 32) !== 0 && levels > 2,
    smep: (key & 64) !== 0,
    smap: (key & 128) !== 0,
  };
}

/** Second stage of L1's own addresses: memory as it is, anything else is not there. */
export function memoryOnly(m: Machine): Stage2 {
  return (gpa, _access, _table, out) => {
    if (m.memory.backed(gpa)) return gpa;
    out.stage2Address = gpa;
    return -1;
  };
}
