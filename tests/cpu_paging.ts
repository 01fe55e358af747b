/**
 * Ways from linear addresses to memory that need no vCPU, for tests of the processor alone.
 *
 * @module
 */
import { hostPhysicalBits, type Machine } from "../engine/svm/machine.ts";
import {
  memoryOnly,
  type Paging,
  type PagingRegisters,
  walkMode,
} from "../engine/paging/paging.ts";
import {
  FETCH,
  PF,
  type Stage2,
  USER,
  Walk,
  WALK_FAULT,
  WALK_OK,
  WALK_STAGE2,
  WRITE,
} from "../engine/paging/walk.ts";
import { type KvmWalkMode, walkKvm } from "../engine/paging/walk_kvm.ts";
import { walkProcessor } from "../engine/paging/walk_processor.ts";

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
 */
export class NestedPaging implements Paging {
  /** Mode and root of L1's nested page table. */
  npt: KvmWalkMode;
  #m: Machine | undefined;
  readonly #inner: Walk = new Walk();
  readonly #stage2: Stage2 = (gpa, access, table, out) => {
    const m = this.#m as Machine;
    const inner = this.#inner;
    const found = walkNpt(m, this.npt, gpa, access, inner);
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
 */
export function nptMode(cr4: number, efer: number, root: number): KvmWalkMode {
  return { ...walkMode(0x80000000, cr4, efer), root };
}

/**
 * KVM's walk of L1's nested page table for one L2 physical address.
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
