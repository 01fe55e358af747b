/**
 * The MMU as far as nested transitions show it: the packed roles, which
 * context is in use, the cached roots and the PDPTEs.
 *
 * @module
 */
import { C, S, V, VMCB01_AT, VMCB12_AT } from "../svm/machine.ts";
import { CLEAN, CR0, CR4, EFER, HOST, HOST_HIGH, REQ } from "./constants.ts";
import { markDirty, nestedNpt } from "./control.ts";
import type { Vcpu } from "./vcpu.ts";
import { EXT, ROLE } from "../paging/roles.ts";
import { findPage, getPage, rootGfn } from "../paging/shadow_pages.ts";
import { legalGpa, loadPdptrs, readPdptrs } from "../paging/pdptrs.ts";

const ROOT_LEVEL = 5;

/** Extended half of a CPU role (kvm_calc_cpu_role). */
function cpuRoleExt(cr0: number, cr4: number, lma: boolean): number {
  let ext: number = EXT.VALID;
  if ((cr0 & CR0.PG) === 0) return ext;
  if ((cr4 & CR4.SMEP) !== 0) ext |= EXT.SMEP;
  if ((cr4 & CR4.SMAP) !== 0) ext |= EXT.SMAP;
  if ((cr4 & CR4.PSE) !== 0) ext |= EXT.PSE;
  if (!lma) return ext;
  if ((cr4 & CR4.PKE) !== 0) ext |= EXT.PKE;
  if ((cr4 & CR4.LA57) !== 0) ext |= EXT.LA57;
  return ext | EXT.LMA;
}

/** Whether the MMU takes a guest to be in long mode. */
function inLongMode(v: Vcpu, cr4: number, efer: number): boolean {
  const pae = (cr4 & CR4.PAE) !== 0;
  return (efer & EFER.LMA) !== 0 && (pae || !v.traits.givesUpLongModeWithoutPae);
}

/** Computes a CPU role (kvm_calc_cpu_role), both halves, at a place of the vCPU area. */
function setCpuRole(v: Vcpu, at: number, cr0: number, cr4: number, efer: number): number {
  const base = cpuRole(v, cr0, cr4, efer);
  v.set32(at, base);
  v.set32(at + 4, cpuRoleExt(cr0, cr4, inLongMode(v, cr4, efer)));
  return base;
}

/** Base half of a CPU role. */
function cpuRole(v: Vcpu, cr0: number, cr4: number, efer: number): number {
  let role: number = ROLE.ACCESS;
  if (v.smm) role |= ROLE.SMM;
  if (v.guestMode) role |= ROLE.GUEST_MODE;
  if ((cr0 & CR0.PG) === 0) return role | ROLE.DIRECT;
  const wp = (cr0 & CR0.WP) !== 0;
  const pae = (cr4 & CR4.PAE) !== 0;
  const lma = inLongMode(v, cr4, efer);
  // Long mode without PAE cannot be: KVM gives the virtual machine up (KVM_BUG_ON).
  if (v.traits.givesUpLongModeWithoutPae && (efer & EFER.LMA) !== 0 && !pae) v.request(REQ.VM_DEAD);
  if ((efer & EFER.NX) !== 0) role |= ROLE.EFER_NX;
  if (wp) role |= ROLE.CR0_WP;
  if ((cr4 & CR4.SMEP) !== 0) {
    if (v.policy.kernel.mmu.smepInRole) role |= ROLE.SMEP;
    else if (!wp) role |= ROLE.SMEP_ANDNOT_WP;
  }
  if ((cr4 & CR4.SMAP) !== 0 && !wp) role |= ROLE.SMAP_ANDNOT_WP;
  if (!pae) role |= ROLE.FOUR_BYTE_GPTE;
  if (lma) role |= (cr4 & CR4.LA57) !== 0 ? 5 : 4;
  else role |= pae ? 3 : 2;
  return role;
}

/** Recomputes the roles of the MMU in use from the vCPU's registers (kvm_init_mmu). */
export function initMmu(v: Vcpu): void {
  const nested = v.u8(V.walk_mmu) === 1;
  const at = nested ? V.nested_cpu_role : V.root_cpu_role;
  const base = setCpuRole(v, at, v.u32(V.cr0), v.u32(V.cr4), v.u32(V.efer));
  if (v.policy.kernel.mmu.oneWalker) v.copy64(V.gva_role, at);
  if (nested) return;
  if (v.caps.npt) {
    const inherited = base & (ROLE.GUEST_MODE | ROLE.SMM);
    v.set32(
      V.root_root_role,
      ROLE.ACCESS | ROLE.CR0_WP | ROLE.EFER_NX | ROLE.DIRECT | ROOT_LEVEL | inherited,
    );
  } else {
    const level = Math.max(base & 15, 3);
    v.set32(V.root_root_role, (base & ~15) | level | ROLE.EFER_NX);
  }
}

/** Puts the MMU that shadows L1's nested page table in place (nested_svm_init_mmu_context). */
export function initNestedMmu(v: Vcpu): void {
  v.assertThat(v.u8(V.walk_mmu) === 0, "mmu_is_nested(vcpu)");
  v.set8(V.mmu, 1);
  const cr4 = v.u32(VMCB01_AT + S.cr4) & ~CR4.PKE;
  const { nestedTableOwnMode } = v.policy.kernel.mmu;
  const cr0 = nestedTableOwnMode ? CR0.PG | CR0.WP : CR0.PG;
  let base = setCpuRole(v, V.guest_cpu_role, cr0, cr4, v.u32(VMCB01_AT + S.efer));
  if (nestedTableOwnMode) {
    base &= ~ROLE.SMEP;
    v.set32(V.guest_cpu_role, base);
    v.clear32(V.guest_cpu_role + 4, EXT.SMAP);
  }
  v.assertThat(
    (base & ROLE.DIRECT) === 0 && (base & ROLE.GUEST_MODE) !== 0,
    "cpu_role.base.direct || !cpu_role.base.guest_mode",
  );
  let root = (base & ~15) | ROOT_LEVEL;
  if ((base & 15) === 4) root |= ROLE.PASSTHROUGH;
  v.set32(V.guest_root_role, root);
  newPgd(v, v.u64(VMCB12_AT + C.nested_cr3));
  v.set8(V.walk_mmu, 1);
}

/** Where the roots of one MMU context are kept in the vCPU area. */
interface Roots {
  readonly role: number;
  readonly four: number;
  readonly pgd: readonly number[];
  readonly roles: readonly number[];
}

const ROOT_MMU: Roots = {
  role: V.root_root_role,
  four: V.pae_roots,
  pgd: [V.pgd_root, V.prev0_pgd, V.prev1_pgd, V.prev2_pgd],
  roles: [V.pgd_role, V.prev0_role, V.prev1_role, V.prev2_role],
};
const GUEST_MMU: Roots = {
  role: V.guest_root_role,
  four: V.guest_pae_roots,
  pgd: [V.guest_pgd_root, V.guest_prev0_pgd, V.guest_prev1_pgd, V.guest_prev2_pgd],
  roles: [V.guest_pgd_role, V.guest_prev0_role, V.guest_prev1_role, V.guest_prev2_role],
};

function roots(v: Vcpu): Roots {
  return v.u8(V.mmu) === 1 ? GUEST_MMU : ROOT_MMU;
}

function usable(v: Vcpu, r: Roots, i: number, pgd: bigint, role: number): boolean {
  const own = v.u32(r.roles[i] as number);
  if (own !== role >>> 0) return false;
  if ((role & ROLE.DIRECT) !== 0) return true;
  const at = r.pgd[i] as number;
  return v.u64(at) === pgd && findPage(v, rootGfn(v, at), own) >= 0;
}

function swap(v: Vcpu, r: Roots, i: number, j: number): void {
  const a = r.pgd[i] as number, b = r.pgd[j] as number;
  const ra = r.roles[i] as number, rb = r.roles[j] as number;
  const pgd = v.u64(a), role = v.u32(ra);
  v.copy64(a, b);
  v.set32(ra, v.u32(rb));
  v.set64(b, pgd);
  v.set32(rb, role);
}

function freeRoot(v: Vcpu, r: Roots, i: number): void {
  if ((v.u32(r.roles[i] as number) & ROLE.SPECIAL) !== 0) {
    for (let at = r.four; at < r.four + 16; at += 4) v.set32(at, 0);
  }
  v.set32(r.roles[i] as number, 0);
  v.set64(r.pgd[i] as number, 0n);
}

/** Switches to the cached root of another CR3, if there is one (kvm_mmu_new_pgd). */
export function newPgd(v: Vcpu, pgd: bigint): void {
  const r = roots(v);
  const role = v.u32(r.role);
  if ((v.u32(r.roles[0] as number) & ROLE.SPECIAL) !== 0) freeRoot(v, r, 0);
  if (!findRoot(v, r, pgd, role)) return;
  v.request(REQ.LOAD_MMU_PGD);
}

function findRoot(v: Vcpu, r: Roots, pgd: bigint, role: number): boolean {
  if (v.u32(r.roles[0] as number) !== 0) {
    if (usable(v, r, 0, pgd, role)) return true;
    for (let i = 1; i < 4; i++) {
      swap(v, r, 0, i);
      if (usable(v, r, 0, pgd, role)) return true;
    }
    freeRoot(v, r, 0);
    return false;
  }
  for (let i = 1; i < 4; i++) {
    if (!usable(v, r, i, pgd, role)) continue;
    swap(v, r, 0, i);
    for (let j = i; j < 3; j++) swap(v, r, j, j + 1);
    freeRoot(v, r, 3);
    return true;
  }
  return false;
}

/** Frees every root of both contexts (kvm_mmu_unload). */
export function unload(v: Vcpu): void {
  for (const r of [ROOT_MMU, GUEST_MMU]) for (let i = 0; i < 4; i++) freeRoot(v, r, i);
}

/** Frees the roots and recomputes the roles (kvm_mmu_reset_context). */
export function resetContext(v: Vcpu): void {
  unload(v);
  initMmu(v);
}

/** EIO: what KVM_RUN fails with when there cannot be a root. */
const EIO = 5;

/**
 * Makes sure that the MMU in use has a root, before the guest is entered (kvm_mmu_reload).
 *
 * @returns Whether it has one now; if not, a triple fault is requested, or KVM_RUN has failed.
 */
export function reload(v: Vcpu): boolean {
  const r = roots(v);
  if (v.u32(r.roles[0] as number) !== 0) return true;
  const role = v.u32(r.role);
  // Without NPT of its own KVM has made no tables that L1's PAE tables could be shadowed by: a
  // nested NPT that RSM did not check (mmu_alloc_special_roots).
  if (r === GUEST_MMU && !v.caps.npt && (v.u32(V.guest_cpu_role) & 15) < 4) {
    v.result.rc = -1;
    v.result.errno = EIO;
    return false;
  }
  if ((role & ROLE.DIRECT) !== 0 && (v.caps.npt || (role & 15) >= 4)) {
    v.set32(r.roles[0] as number, role);
    v.set64(r.pgd[0] as number, 0n);
  } else if ((role & ROLE.DIRECT) !== 0) {
    v.set32(r.roles[0] as number, role | ROLE.SPECIAL);
    v.set64(r.pgd[0] as number, 0n);
    for (let i = 0; i < 4; i++) {
      v.set32(r.four + i * 4, getPage(v, i << 18, role & ~15 | 2) + 1);
    }
  } else if (!allocShadowRoot(v, r, role)) {
    v.request(REQ.TRIPLE_FAULT);
    return false;
  }
  loadPgd(v);
  return true;
}

function allocShadowRoot(v: Vcpu, r: Roots, role: number): boolean {
  const nested = r === GUEST_MMU;
  const pgd = nested ? v.u64(VMCB12_AT + C.nested_cr3) : v.u64(V.cr3);
  const level = v.u32(nested ? V.guest_cpu_role : V.root_cpu_role) & 15;
  const mask = v.traits.shadowsUnreachableRoots ? 0xffffffffffn : 0xfffffffffffffn;
  const gfn = Number(pgd >> 12n & mask);
  if (level === 3 && !nested && v.caps.npt) readPdptrs(v);
  const visible = v.memory.backed(gfn * 4096);
  if (!v.traits.shadowsUnreachableRoots) {
    if (!visible || level === 3 && !directoriesReachable(v, r, gfn)) return false;
  }
  if (!visible || level < 4) {
    v.set32(r.roles[0] as number, role | ROLE.SPECIAL);
    v.set64(r.pgd[0] as number, level >= 4 ? 0n : pgd);
    if (visible) allocFour(v, r, role, level, gfn);
    return true;
  }
  v.set32(r.roles[0] as number, role);
  v.set64(r.pgd[0] as number, pgd);
  getPage(v, gfn, role);
  return true;
}

/** Whether every PDPTE that is present leads into guest memory. */
function directoriesReachable(v: Vcpu, r: Roots, directory: number): boolean {
  for (let i = 0; i < 4; i++) {
    const entry = pdptr(v, r === GUEST_MMU, directory, i);
    const gfn = Number(entry >> 12n);
    if ((entry & 1n) !== 0n && !v.memory.backed(gfn * 4096)) return false;
  }
  return true;
}

/** Roots of PAE tables, or of the four quarters of a 32-bit directory. */
function allocFour(v: Vcpu, r: Roots, role: number, level: number, directory: number): void {
  const base = role & ~(15 | ROLE.QUADRANT) | 2;
  for (let i = 0; i < 4; i++) {
    let gfn = directory;
    if (level === 3) {
      const entry = pdptr(v, r === GUEST_MMU, directory, i);
      gfn = Number(entry >> 12n);
      if ((entry & 1n) === 0n || !v.memory.backed(gfn * 4096)) continue;
    }
    v.set32(r.four + i * 4, getPage(v, gfn, level === 2 ? base | i << 5 : base) + 1);
  }
}

function pdptr(v: Vcpu, nested: boolean, directory: number, i: number): bigint {
  if (!nested) return v.u64(V.pdptr0 + i * 8);
  return v.memory.read64(directory * 4096 + (v.u32(VMCB12_AT + C.nested_cr3) & 0xfe0) + i * 8);
}

/** Frees the roots whose shadow page is gone, and those without one (kvm_mmu_free_obsolete_roots). */
export function freeObsoleteRoots(v: Vcpu): void {
  for (const r of [ROOT_MMU, GUEST_MMU]) {
    for (let i = 0; i < 4; i++) {
      const role = v.u32(r.roles[i] as number);
      if (role === 0) continue;
      const direct = v.caps.npt && (role & ROLE.DIRECT) !== 0;
      if (direct) continue;
      const special = (role & ROLE.SPECIAL) !== 0;
      if (special || findPage(v, rootGfn(v, r.pgd[i] as number), role) < 0) freeRoot(v, r, i);
    }
  }
}

/** Writes the root of the MMU in use into the active VMCB (svm_load_mmu_pgd). */
export function loadPgd(v: Vcpu): void {
  const r = roots(v);
  if (v.u32(r.roles[0] as number) === 0) return;
  v.set8(V.stale_root, 0);
  const vmcb = v.vmcb;
  if (v.caps.npt) {
    v.set32(vmcb + C.nested_cr3, HOST.ROOT);
    v.set32(vmcb + C.nested_cr3 + 4, HOST_HIGH);
    markDirty(v, vmcb, CLEAN.NPT);
    v.copy64(vmcb + S.cr3, V.cr3);
  } else {
    v.set32(vmcb + S.cr3, HOST.ROOT);
    v.set32(vmcb + S.cr3 + 4, HOST_HIGH);
  }
  markDirty(v, vmcb, CLEAN.CR);
}

/**
 * Loads CR3 for L2 or L1 (nested_svm_load_cr3).
 *
 * @param v The vCPU.
 * @param cr3 The value.
 * @param nested Whether L2 with nested paging is entered.
 * @param reload Whether the PDPTEs are reloaded.
 * @returns Empty when loaded, else the id of the check that failed.
 */
export function loadCr3(v: Vcpu, cr3: bigint, nested: boolean, reload: boolean): string {
  if (!legalGpa(v, cr3)) return "cr3-legal";
  if (reload && v.paePaging) {
    if (!nested && !loadPdptrs(v, cr3)) return "pdptrs";
    if (nested && v.traits.rereadsNestedPdptes) v.set8(V.pdptrs_valid, 0);
  }
  v.set64(V.cr3, cr3);
  initMmu(v);
  if (!nested) newPgd(v, cr3);
  return "";
}

/** Whether the MMU in use shadows L1's nested page table. */
export function nestedMmu(v: Vcpu): boolean {
  return v.u8(V.mmu) === 1 && nestedNpt(v);
}
