/**
 * The tables that the processor really walks: KVM's nested page tables of its
 * own, and its shadow pages.
 *
 * @module
 */
import { CR4 } from "../svm/bits.ts";
import { DEVICES, DEVICES_AT, NESTED_AT, V } from "../svm/machine.ts";
import { FETCH, PF, USER, type Walk, WALK_FAULT, WALK_STAGE2, WRITE } from "./walk.ts";
import { ROLE } from "./roles.ts";
import { ENTRY, entryAt, findPage, mappedGfn, roleOf, rootGfn } from "./shadow_pages.ts";
import { Tool, type Vcpu } from "../kvm/vcpu.ts";

/** Which set of KVM's own nested page tables a root role uses: one for each of guest mode and SMM. */
export function nestedRoot(role: number): number {
  return ((role & ROLE.GUEST_MODE) !== 0 ? 1 : 0) | ((role & ROLE.SMM) !== 0 ? 2 : 0);
}

/** Whether KVM's own nested page tables know a page as one of a device. */
export function isDevice(v: Vcpu, root: number, gfn: number): boolean {
  const at = DEVICES_AT >> 2;
  for (let i = 0; i < DEVICES; i++) {
    if (v.word(at + i * 2) === root + 1 && v.word(at + i * 2 + 1) === gfn) return true;
  }
  return false;
}

/** Notes a page of a device in KVM's own nested page tables; the oldest makes room. */
export function addDevice(v: Vcpu, root: number, gfn: number): void {
  if (isDevice(v, root, gfn)) return;
  const at = DEVICES_AT >> 2;
  v.copy(DEVICES_AT + 8, DEVICES_AT, DEVICES * 8 - 8);
  v.setWord(at, root + 1);
  v.setWord(at + 1, gfn);
}

function refused(access: number, user: boolean): number {
  return (user ? PF.user : 0) | (access === WRITE ? PF.write : 0) |
    (access === FETCH ? PF.fetch : 0);
}

/** Fills `out` for an address that a nested page table does not let through; gives -1. */
function missed(out: Walk, gpa: number, error: number, table: boolean): number {
  out.outcome = WALK_STAGE2;
  out.error = error;
  out.onTable = table;
  out.stage2Address = gpa;
  return -1;
}

/** Looks an address up in KVM's own nested page tables: itself, or -1. */
export function lookUpDirect(
  v: Vcpu,
  root: number,
  gpa: number,
  access: number,
  table: boolean,
  out: Walk,
): number {
  if (gpa < v.memory.size) {
    const bits = v.u8(NESTED_AT + (gpa / 4096 | 0)) >> root;
    if ((bits & 1) !== 0 && (access !== WRITE || (bits & 16) !== 0)) return gpa;
    const error = refused(access, true);
    return missed(out, gpa, (bits & 1) !== 0 ? error | PF.present : error, table);
  }
  const device = isDevice(v, root, Math.floor(gpa / 4096));
  const error = refused(access, true);
  return missed(out, gpa, device ? error | PF.reserved : error, table);
}

/** Where a walk of shadow pages begins. */
export class ShadowRoot {
  /** The entry that a walk from it found last. */
  found = 0;
  /** Shadow page of the root, or -1 when it is one of four or there is none. */
  slot = -1;
  /** Level of the root's entries. */
  level = 0;
  /** Offset of the four roots of PAE tables in the vCPU area, or 0. */
  four = 0;
}

/** Finds the root of the MMU in use: of `guest_mmu` (nested page tables), or of `root_mmu`. */
export function findRoot(v: Vcpu, out: ShadowRoot): void {
  const guest = v.u8(V.mmu) === 1;
  const role = v.u32(guest ? V.guest_pgd_role : V.pgd_role);
  out.slot = -1;
  out.level = role & ROLE.LEVEL;
  out.four = 0;
  if (role === 0) return;
  if ((role & ROLE.SPECIAL) !== 0) {
    out.four = guest ? V.guest_pae_roots : V.pae_roots;
    out.level = 2;
  } else out.slot = findPage(v, rootGfn(v, guest ? V.guest_pgd_root : V.pgd_root), role);
}

/** Index of an address's entry at a level. */
export function indexAt(level: number, lo: number, hi: number): number {
  switch (level) {
    case 5:
      return hi >>> 16 & 0x1ff;
    case 4:
      return hi >>> 7 & 0x1ff;
    case 3:
      return (hi << 2 | lo >>> 30) & 0x1ff;
    case 2:
      return lo >>> 21 & 0x1ff;
    default:
      return lo >>> 12 & 0x1ff;
  }
}

/** Shadow page that covers an address at the top level, or -1. */
export function topPage(v: Vcpu, root: ShadowRoot, lo: number, hi: number): number {
  if (root.four === 0) return root.slot;
  return hi === 0 ? v.u32(root.four + (lo >>> 30) * 4) - 1 : -1;
}

/** Where shadow pages put an address, or -1; the root holds the entry that was found. */
function leaf(v: Vcpu, root: ShadowRoot, lo: number, hi: number): number {
  root.found = 0;
  let slot = topPage(v, root, lo, hi);
  for (let level = root.level; slot >= 0; level--) {
    const index = indexAt(level, lo, hi);
    const entry = v.word(entryAt(slot, index));
    if (level === 1 || (entry & ENTRY.PRESENT) === 0) {
      root.found = entry;
      return (entry & ENTRY.PRESENT) !== 0 ? mappedGfn(v, slot, index) * 4096 + (lo & 0xfff) : -1;
    }
    slot = entry >>> 12;
    if (roleOf(v, slot) === 0) return -1;
  }
  return -1;
}

/** Looks an L2 physical address up in the shadow pages of L1's nested page table, or gives -1. */
export function lookUpNested(
  v: Vcpu,
  root: ShadowRoot,
  gpa: number,
  access: number,
  table: boolean,
  out: Walk,
): number {
  const lo = gpa % 0x1_0000_0000;
  const at = leaf(v, root, lo, (gpa - lo) / 0x1_0000_0000);
  const { found } = root;
  const error = refused(access, true);
  if (at < 0) {
    return missed(out, gpa, (found & ENTRY.DEVICE) !== 0 ? error | PF.reserved : error, table);
  }
  const ok = (found & ENTRY.USER) !== 0 && (access !== WRITE || (found & ENTRY.WRITE) !== 0) &&
    (access !== FETCH || (found & ENTRY.EXECUTE) !== 0);
  return ok ? at : missed(out, gpa, error | PF.present, table);
}

/** Whether the shadow pages know an address as one of a device (handle_mmio_page_fault). */
export function isDeviceAt(v: Vcpu, lo: number, hi: number): boolean {
  const device = DEVICE.of(v);
  findRoot(v, device);
  return leaf(v, device, lo, hi) < 0 && (device.found & ENTRY.DEVICE) !== 0;
}

const DEVICE = new Tool(() => new ShadowRoot());

const CR4_SMEP = CR4.SMEP, CR4_SMAP = CR4.SMAP;

/** Looks a linear address up in the shadow pages of the guest's tables. */
export function lookUpShadow(
  v: Vcpu,
  root: ShadowRoot,
  cr4: number,
  lo: number,
  hi: number,
  access: number,
  who: number,
  out: Walk,
): boolean {
  const at = leaf(v, root, lo, hi);
  const { found } = root;
  const error = refused(access, who === USER);
  out.outcome = WALK_FAULT;
  if (at < 0) {
    out.error = (found & ENTRY.DEVICE) !== 0 ? error | PF.reserved : error;
    return false;
  }
  const user = (found & ENTRY.USER) !== 0;
  const barred = who === USER
    ? !user
    : user && (access === FETCH ? (cr4 & CR4_SMEP) !== 0 : (cr4 & CR4_SMAP) !== 0 && who === 0);
  if (
    barred || access === WRITE && (found & ENTRY.WRITE) === 0 ||
    access === FETCH && (found & ENTRY.EXECUTE) === 0
  ) {
    out.error = error | PF.present;
    return false;
  }
  out.outcome = 0;
  out.gpa = at;
  return true;
}
