/**
 * How the processor's linear addresses become addresses of guest memory: L0
 * with nested paging, L1 with nested paging as well, or L0 with shadow paging.
 *
 * @module
 */
import { CR0, CR4, EFER } from "../svm/bits.ts";
import { hostPhysicalBits, type Machine } from "../svm/machine.ts";
import {
  FETCH,
  type KvmWalkMode,
  PF,
  type Stage2,
  USER,
  Walk,
  WALK_FAULT,
  WALK_OK,
  WALK_STAGE2,
  walkKvm,
  type WalkMode,
  walkProcessor,
  WRITE,
} from "./walk.ts";

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

// Error code of the hardware for a missing second-stage entry: L0's tables have NX.
function missing(access: number): number {
  return PF.user | (access === WRITE ? PF.write : 0) | (access === FETCH ? PF.fetch : 0);
}

function missed(out: Walk, gpa: number, access: number, table: boolean): number {
  out.outcome = WALK_STAGE2;
  out.error = missing(access);
  out.onTable = table;
  out.stage2Address = gpa;
  return -1;
}

/** Walks the tables at CR3, in the mode of the control registers, with a second stage below them. */
function throughTables(
  m: Machine,
  r: PagingRegisters,
  lo: number,
  hi: number,
  access: number,
  who: number,
  stage2: Stage2,
  out: Walk,
): boolean {
  const mode = walkMode(r.cr0, r.cr4, r.efer);
  const bits = hostPhysicalBits(m.caps);
  return walkProcessor(m.memory, bits, mode, r.cr3, lo, hi, access, who, stage2, out);
}

/**
 * L0 uses nested paging, L1 does not for this guest: every guest physical address must be memory.
 *
 * @example
 * ```ts
 * import { DirectPaging, Machine, READ, SUPERVISOR, Walk, WALK_STAGE2 } from "@vmtape/vmtape/engine";
 * const m = new Machine({ physicalBits: 40, npt: true, memory: 1 << 24 });
 * const off = { cr0: 0, cr3: 0, cr4: 0, efer: 0 };
 * const paging = new DirectPaging();
 * const out = new Walk();
 * if (!paging.translate(m, off, 0x1234, 0, READ, SUPERVISOR, out) || out.gpa !== 0x1234) throw new Error();
 * if (paging.translate(m, off, 0x2000000, 0, READ, SUPERVISOR, out)) throw new Error();
 * if (out.outcome !== WALK_STAGE2 || out.stage2Address !== 0x2000000) throw new Error();
 * ```
 */
export class DirectPaging implements Paging {
  #m: Machine | undefined;
  readonly #stage2: Stage2 = (gpa, access, table, out) =>
    (this.#m as Machine).memory.backed(gpa) ? gpa : missed(out, gpa, access, table);

  /**
   * Translates through the tables at CR3.
   *
   * @param m The machine.
   * @param r Its control registers.
   * @param lo Linear address, low half.
   * @param hi Linear address, high half.
   * @param access {@linkcode READ}, {@linkcode WRITE} or {@linkcode FETCH}.
   * @param who {@linkcode SUPERVISOR}, {@linkcode USER} or {@linkcode SUPERVISOR_AC}.
   * @param out Where it leads, or why not.
   * @returns Whether the address is mapped.
   */
  translate(
    m: Machine,
    r: PagingRegisters,
    lo: number,
    hi: number,
    access: number,
    who: number,
    out: Walk,
  ): boolean {
    this.#m = m;
    return throughTables(m, r, lo, hi, access, who, this.#stage2, out);
  }
}

/**
 * L0 and L1 use nested paging: every L2 physical address goes through L1's
 * nested page table, which KVM walks in the mode of L1's CR4 and EFER.
 *
 * @example
 * ```ts
 * import { Machine, NestedPaging, nptMode, READ, SUPERVISOR, Walk, WALK_STAGE2 } from "@vmtape/vmtape/engine";
 * const m = new Machine({ physicalBits: 40, npt: true, memory: 1 << 24 });
 * m.memory.write64(0x60000, 0x87n); // 32-bit tables: a page of 4 MiB at 0
 * const paging = new NestedPaging(nptMode(0x10, 0, 0x60000));
 * const off = { cr0: 0, cr3: 0, cr4: 0, efer: 0 };
 * const out = new Walk();
 * if (!paging.translate(m, off, 0x1234, 0, READ, SUPERVISOR, out) || out.gpa !== 0x1234) throw new Error();
 * if (paging.translate(m, off, 0x400000, 0, READ, SUPERVISOR, out)) throw new Error();
 * if (out.outcome !== WALK_STAGE2 || out.stage2Address !== 0x400000) throw new Error();
 * ```
 */
export class NestedPaging implements Paging {
  /** Mode and root of L1's nested page table. */
  npt: KvmWalkMode;
  #m: Machine | undefined;
  readonly #inner: Walk = new Walk();
  readonly #stage2: Stage2 = (gpa, access, table, out) => {
    const m = this.#m as Machine;
    const lo = gpa % 0x1_0000_0000;
    const inner = this.#inner;
    const hi = (gpa - lo) / 0x1_0000_0000;
    const found = walkKvm(
      m.memory,
      m.caps.physicalBits,
      this.npt,
      lo,
      hi,
      access,
      USER,
      memoryOnly(m),
      inner,
    );
    if (found && m.memory.backed(inner.gpa)) return inner.gpa;
    return missed(out, gpa, access, table);
  };

  /**
   * Uses a nested page table.
   *
   * @param npt Mode and root of L1's nested page table, see {@linkcode nptMode}.
   */
  constructor(npt: KvmWalkMode) {
    this.npt = npt;
  }

  /**
   * Translates through the tables at CR3, each of them through L1's nested page table.
   *
   * @param m The machine.
   * @param r Its control registers.
   * @param lo Linear address, low half.
   * @param hi Linear address, high half.
   * @param access {@linkcode READ}, {@linkcode WRITE} or {@linkcode FETCH}.
   * @param who {@linkcode SUPERVISOR}, {@linkcode USER} or {@linkcode SUPERVISOR_AC}.
   * @param out Where it leads, or why not.
   * @returns Whether the address is mapped.
   */
  translate(
    m: Machine,
    r: PagingRegisters,
    lo: number,
    hi: number,
    access: number,
    who: number,
    out: Walk,
  ): boolean {
    this.#m = m;
    return throughTables(m, r, lo, hi, access, who, this.#stage2, out);
  }
}

/**
 * Mode of L1's nested page table: KVM takes CR0 as PG alone, CR4 and EFER from
 * vmcb01 (nested_svm_init_mmu_context).
 *
 * @param cr4 L1's CR4.
 * @param efer L1's EFER.
 * @param root nCR3.
 * @returns The mode, for {@linkcode NestedPaging} and {@linkcode walkNpt}.
 * @example
 * ```ts
 * import { Machine, NestedPaging, nptMode, READ, Walk, walkNpt } from "@vmtape/vmtape/engine";
 * const m = new Machine({ physicalBits: 40, npt: true, memory: 1 << 24 });
 * const npt = nptMode(0x20, 0x1500, 0x60000);
 * const paging = new NestedPaging(npt);
 * const out = new Walk();
 * // Nothing is mapped: a fault with the user bit alone.
 * if (walkNpt(m, paging.npt, 0x9000, READ, out) || out.error !== 4) throw new Error();
 * ```
 */
export function nptMode(cr4: number, efer: number, root: number): KvmWalkMode {
  return { ...walkMode(0x80000000, cr4, efer), root };
}

let owner: Machine | undefined;
const backedOnly: Stage2 = (gpa, _access, _table, out) => {
  if ((owner as Machine).memory.backed(gpa)) return gpa;
  out.stage2Address = gpa;
  return -1;
};

/** Second stage of L1's own addresses: memory as it is, anything else is not there. */
export function memoryOnly(m: Machine): Stage2 {
  owner = m;
  return backedOnly;
}

/**
 * KVM's walk of L1's nested page table for one L2 physical address.
 *
 * @param m The machine.
 * @param npt Mode and root of the table, see {@linkcode nptMode}.
 * @param gpa The address.
 * @param access {@linkcode READ}, {@linkcode WRITE} or {@linkcode FETCH}.
 * @param out Where it leads, or why not.
 * @returns Whether the address is mapped; `out` holds the error code that KVM
 * reports in EXITINFO1 when it is not.
 * @example
 * ```ts
 * import { Machine, nptMode, READ, Walk, walkNpt, WRITE } from "@vmtape/vmtape/engine";
 * const m = new Machine({ physicalBits: 40, npt: true, memory: 1 << 24 });
 * m.memory.write64(0x60000, 0x85n); // a page of 4 MiB, not to be written
 * const npt = nptMode(0x10, 0, 0x60000);
 * const out = new Walk();
 * if (!walkNpt(m, npt, 0x9000, READ, out) || out.gpa !== 0x9000) throw new Error();
 * // Present, write and user.
 * if (walkNpt(m, npt, 0x9000, WRITE, out) || out.error !== 7) throw new Error();
 * ```
 */
export function walkNpt(
  m: Machine,
  npt: KvmWalkMode,
  gpa: number,
  access: number,
  out: Walk,
): boolean {
  const lo = gpa % 0x1_0000_0000;
  const hi = (gpa - lo) / 0x1_0000_0000;
  return walkKvm(m.memory, m.caps.physicalBits, npt, lo, hi, access, USER, memoryOnly(m), out);
}

/**
 * L0 uses shadow paging: what counts are the guest's own tables, in the mode
 * that KVM believes the guest is in.
 *
 * @example
 * ```ts
 * import { Machine, READ, ShadowPaging, SUPERVISOR, Walk, WALK_FAULT, walkMode } from "@vmtape/vmtape/engine";
 * const m = new Machine({ physicalBits: 40, npt: false, memory: 1 << 24 });
 * m.memory.write64(0x1000, 0x83n); // a page of 4 MiB at 0
 * const registers = { cr0: 0x80000001, cr3: 0x1000, cr4: 0x10, efer: 0 };
 * const paging = new ShadowPaging({ ...walkMode(0x80000001, 0x10, 0), root: 0x1000 });
 * const out = new Walk();
 * if (!paging.translate(m, registers, 0x1234, 0, READ, SUPERVISOR, out)) throw new Error();
 * if (out.gpa !== 0x1234 || out.pageSize !== 1 << 22) throw new Error();
 * if (paging.translate(m, registers, 0x400000, 0, READ, SUPERVISOR, out)) throw new Error();
 * if (out.outcome !== WALK_FAULT || out.error !== 0) throw new Error();
 * ```
 */
export class ShadowPaging implements Paging {
  /** Mode and root as KVM knows them. */
  role: KvmWalkMode;

  /**
   * Uses the guest's tables.
   *
   * @param role Mode and root as KVM knows them; replace it when CR3 or the mode changes.
   */
  constructor(role: KvmWalkMode) {
    this.role = role;
  }

  /**
   * Walks the guest's tables as KVM does; anything that is not memory is a page fault too.
   *
   * @param m The machine.
   * @param _r Not used: the mode is the role's.
   * @param lo Linear address, low half.
   * @param hi Linear address, high half.
   * @param access {@linkcode READ}, {@linkcode WRITE} or {@linkcode FETCH}.
   * @param who {@linkcode SUPERVISOR}, {@linkcode USER} or {@linkcode SUPERVISOR_AC}.
   * @param out Where it leads, or why not.
   * @returns Whether the address is mapped.
   */
  translate(
    m: Machine,
    _r: PagingRegisters,
    lo: number,
    hi: number,
    access: number,
    who: number,
    out: Walk,
  ): boolean {
    if (
      walkKvm(m.memory, m.caps.physicalBits, this.role, lo, hi, access, who, memoryOnly(m), out)
    ) {
      if (m.memory.backed(out.gpa)) return true;
      out.error = (who === USER ? PF.user : 0) | (access === WRITE ? PF.write : 0) |
        (access === FETCH ? PF.fetch : 0);
    } else if (out.outcome === WALK_OK) out.error = who === USER ? PF.user : 0;
    out.outcome = WALK_FAULT;
    return false;
  }
}
