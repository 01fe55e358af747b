/**
 * Page faults that KVM resolves itself: it maps what the guest may reach, and
 * lets the guest repeat the access (kvm_mmu_page_fault).
 *
 * @module
 */
import { NESTED_AT, V } from "../svm/machine.ts";
import { FETCH, PF, type Walk, WRITE } from "../paging/walk.ts";
import { ROLE } from "../paging/roles.ts";
import {
  ENTRY,
  entryAt,
  getPage,
  gfnOf,
  isTracked,
  mayWrite,
  roleOf,
  unprotect,
} from "../paging/shadow_pages.ts";
import {
  addDevice,
  findRoot,
  indexAt,
  isDevice,
  nestedRoot,
  ShadowRoot,
  topPage,
} from "../paging/shadow_walk.ts";
import { Tool, type Vcpu } from "./vcpu.ts";

/** The page is mapped: the guest repeats its access. */
export const FIXED = 0;
/** The access has to be emulated: it reaches a device or a shadowed table. */
export const EMULATE = 1;

/** There is nothing to map it in: KVM_RUN has failed. */
export const FAILED = 2;

/** EFAULT. */
const EFAULT = 14;

/** Bit 33 of EXITINFO1, in its high half: the fault is on the guest's own page tables. */
const ON_TABLE = 2;

/** What a guest physical address beyond which nothing is cached; KVM's kvm_mmu_max_gfn(). */
const MAX_ADDRESS = 2 ** 52;

/** Access of a fault, from its error code. */
export function accessOf(error: number): number {
  return (error & PF.fetch) !== 0 ? FETCH : (error & PF.write) !== 0 ? WRITE : 0;
}

/** A fault in KVM's own nested page tables (kvm_tdp_page_fault). */
export function fixDirect(v: Vcpu, gpa: number, error: number, errorHigh: number): number {
  const root = nestedRoot(v.u32(V.root_root_role));
  const gfn = Math.floor(gpa / 4096);
  if ((error & PF.reserved) !== 0 && isDevice(v, root, gfn)) return EMULATE;
  if (!v.memory.backed(gpa)) {
    if (gpa < MAX_ADDRESS) addDevice(v, root, gfn);
    return EMULATE;
  }
  const write = (error & PF.write) !== 0;
  const at = NESTED_AT + gfn;
  const writable = mayWrite(v, gfn, false);
  v.set8(at, v.u8(at) | (writable ? 0x11 : 1) << root);
  if (!write || writable) return FIXED;
  return writeProtected(v, gpa, gfn, error, errorHigh, true);
}

/**
 * A write to a shadowed table (kvm_mmu_write_protect_fault).
 *
 * @param address What the fault was at: a linear address under shadow paging.
 */
function writeProtected(
  v: Vcpu,
  address: number,
  gfn: number,
  error: number,
  errorHigh: number,
  direct: boolean,
): number {
  const again = v.u64(V.last_retry_rip) === v.u64(V.rip) &&
    v.u64(V.last_retry_address) === BigInt(address);
  if (again) return EMULATE;
  v.set64(V.last_retry_rip, 0n);
  v.set64(V.last_retry_address, 0n);
  const mask = PF.write | PF.present;
  const table = (errorHigh & ON_TABLE) !== 0 && (error & mask) === mask;
  const waiting = v.u8(V.exception_injected) !== 0 || v.u8(V.interrupt_injected) !== 0 ||
    v.u8(V.nmi_injected) !== 0;
  if (!(direct ? table : waiting) || !unprotect(v, gfn)) return EMULATE;
  v.copy64(V.last_retry_rip, V.rip);
  v.set64(V.last_retry_address, BigInt(address));
  return FIXED;
}

const ROOT = new Tool(() => new ShadowRoot());

/** How a fault under shadow paging, or in L1's nested page table, is to be resolved. */
export interface ShadowFault {
  /** Address: linear, or L2 physical; low and high half. */
  readonly lo: number;
  /** High half. */
  readonly hi: number;
  /** Error code. */
  readonly error: number;
  /** Level of the guest's tables (0 without paging). */
  readonly levels: number;
  /** CR0.WP of the guest, and CR4.SMEP. */
  readonly writeProtect: boolean;
  /** CR4.SMEP of the guest. */
  readonly smep: boolean;
}

/**
 * Maps what the guest's own tables, which `walk` has just gone through, lead to
 * (FNAME(page_fault), FNAME(fetch)); without paging the address itself.
 */
export function fixShadow(v: Vcpu, f: ShadowFault, walk: Walk): number {
  const gfn = Math.floor(walk.gpa / 4096);
  const write = (f.error & PF.write) !== 0;
  const address = f.hi * 0x1_0000_0000 + f.lo;
  const backed = v.memory.backed(walk.gpa);
  const caught = backed && write && (f.error & PF.present) !== 0 && isTracked(v, gfn);
  if (caught) return writeProtected(v, address, gfn, f.error, 0, false);
  let access = f.levels === 0 ? 7 : walk.access;
  if (backed && write && (access & 2) === 0 && !f.writeProtect && (f.error & PF.user) === 0) {
    access = (access | 2) & ~4;
    if (f.smep) access &= ~1;
  }
  const slot = link(v, f, walk, gfn, access);
  if (slot < 0) {
    // A quarter of PAE tables that KVM took for unreachable, by bits that its walk does not look at.
    const root = ROOT.of(v);
    if (root.four !== 0 && f.hi === 0 && topPage(v, root, f.lo, f.hi) < 0) {
      v.result.rc = -1;
      v.result.errno = EFAULT;
      return FAILED;
    }
    return backed ? FIXED : EMULATE;
  }
  const index = indexAt(1, f.lo, f.hi);
  const at = entryAt(slot, index);
  if (!backed) {
    v.setWord(at, ENTRY.DEVICE);
    return EMULATE;
  }
  const blocked = set(v, at, gfn, access, false);
  prefetch(v, slot, index);
  if (blocked && write) return writeProtected(v, address, gfn, f.error, 0, false);
  return FIXED;
}

/** Sets an entry of the last level (mmu_set_spte); whether a write is caught although the guest allows it. */
function set(v: Vcpu, at: number, gfn: number, access: number, ahead: boolean): boolean {
  const writable = (access & 2) !== 0 &&
    ((v.word(at) & 3) === 3 || mayWrite(v, gfn, ahead));
  v.setWord(
    at,
    ENTRY.PRESENT | (writable ? ENTRY.WRITE : 0) |
      ((access & 4) !== 0 ? ENTRY.USER : 0) | ((access & 1) !== 0 ? ENTRY.EXECUTE : 0) | gfn << 12,
  );
  return (access & 2) !== 0 && !writable;
}

/** Makes the shadow pages down to the last level; gives the last one, or -1 without a root. */
function link(v: Vcpu, f: ShadowFault, walk: Walk, gfn: number, access: number): number {
  const root = ROOT.of(v);
  findRoot(v, root);
  let slot = topPage(v, root, f.lo, f.hi);
  const last = f.levels === 0 ? root.level + 1 : walk.level;
  for (let level = root.level; slot >= 0 && level > 1; level--) {
    const direct = level <= last;
    const at = entryAt(slot, indexAt(level, f.lo, f.hi));
    const table = direct
      ? Math.floor(gfn / 512 ** (level - 1)) * 512 ** (level - 1)
      : walk.tables[level - 2] as number;
    const allowed = direct ? access : walk.tableAccess[level - 2] as number;
    const role = childRole(roleOf(v, slot), direct, allowed, indexAt(level, f.lo, f.hi));
    const old = v.word(at);
    const child = old >>> 12;
    if (
      (old & ENTRY.PRESENT) !== 0 && gfnOf(v, child) === table && roleOf(v, child) === role
    ) {
      slot = child;
      continue;
    }
    const next = getPage(v, table, role);
    // Making room may have dropped the pages on the way.
    if (roleOf(v, slot) === 0) return -1;
    v.setWord(at, ENTRY.PRESENT | ENTRY.WRITE | ENTRY.USER | ENTRY.EXECUTE | next << 12);
    slot = next;
  }
  return slot;
}

function childRole(parent: number, direct: boolean, access: number, index: number): number {
  let role = (parent & ~(ROLE.LEVEL | ROLE.ACCESS | ROLE.DIRECT | ROLE.PASSTHROUGH)) |
    (parent & ROLE.LEVEL) - 1 | access << 8 | (direct ? ROLE.DIRECT : 0);
  if ((role & ROLE.FOUR_BYTE_GPTE) !== 0) role = role & ~ROLE.QUADRANT | (index & 1) << 5;
  return role >>> 0;
}

/** Pages that are mapped together: KVM maps the neighbours of a page that are at hand as well. */
const AHEAD = 8;

function prefetch(v: Vcpu, slot: number, index: number): void {
  const first = index & ~(AHEAD - 1);
  const role = roleOf(v, slot);
  const access = role >>> 8 & 7;
  if ((role & ROLE.DIRECT) === 0) {
    prefetchEntries(v, slot, first, index, access);
    return;
  }
  const start = gfnOf(v, slot);
  for (let i = first; i < first + AHEAD; i++) {
    const at = entryAt(slot, i);
    if (i === index || (v.word(at) & ENTRY.PRESENT) !== 0) continue;
    const gpa = (start + i) * 4096;
    // A stretch ends at the first page that is not at hand.
    if (!v.memory.backed(gpa, 4096) || !v.memory.allocated(gpa)) return;
    set(v, at, start + i, access, true);
  }
}

/** The same for a table of the guest's: entries that it has used. */
function prefetchEntries(
  v: Vcpu,
  slot: number,
  first: number,
  index: number,
  access: number,
): void {
  const role = roleOf(v, slot);
  const four = (role & ROLE.FOUR_BYTE_GPTE) !== 0;
  const table = gfnOf(v, slot) * 4096 + (four ? ((role & ROLE.QUADRANT) >> 5) * 2048 : 0);
  for (let i = first; i < first + AHEAD; i++) {
    const at = entryAt(slot, i);
    if (i === index || (v.word(at) & ENTRY.PRESENT) !== 0) continue;
    const gpte = table + i * (four ? 4 : 8);
    const low = v.memory.read(gpte, 4), high = four ? 0 : v.memory.read(gpte + 4, 4);
    const gfn = (low >>> 12) + (high & 0xfffff) * 0x10_0000;
    if ((low & 0x21) !== 0x21 || !v.memory.allocated(gfn * 4096)) return;
    let own = access & (low & 6 | (high >>> 31 === 0 ? 1 : 0));
    if ((low & 0x40) === 0) own &= ~2;
    set(v, at, gfn, own, true);
  }
}
