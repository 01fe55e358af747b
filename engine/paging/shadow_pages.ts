/**
 * KVM's shadow pages: page tables that it keeps for a guest's tables, found by
 * the page they shadow and their role. They outlive the root they were made
 * for; a write to a shadowed table is caught, and drops what it changes.
 *
 * A page is {@linkcode SHADOW_PAGE_WORDS} words: role (0: free), page number of
 * the table, whether it is out of step with the table, how often the table was
 * written; then 512 entries.
 *
 * @module
 */
import { NESTED_AT, SHADOW_AT, SHADOW_PAGE_WORDS, SHADOW_PAGES, V } from "../svm/machine.ts";
import { REQ } from "../kvm/constants.ts";
import { ROLE } from "./roles.ts";
import type { Vcpu } from "../kvm/vcpu.ts";

/** Bits of an entry; the number of a page or of a shadow page follows from bit 12. */
export const ENTRY = { PRESENT: 1, WRITE: 2, USER: 4, EXECUTE: 8, DEVICE: 16 } as const;

const FIRST = SHADOW_AT >> 2;
const GFN = 1, UNSYNC = 2, WRITES = 3, ENTRIES = 4;

function base(slot: number): number {
  return FIRST + slot * SHADOW_PAGE_WORDS;
}

/** Number of the word of an entry of a shadow page. */
export function entryAt(slot: number, index: number): number {
  return base(slot) + ENTRIES + index;
}

/** Role of a shadow page; 0 when the slot is free. */
export function roleOf(v: Vcpu, slot: number): number {
  return v.word(base(slot));
}

/** Page number of the table that a shadow page shadows, or of the first page it maps. */
export function gfnOf(v: Vcpu, slot: number): number {
  return v.word(base(slot) + GFN);
}

/** The shadow page of a table in a role, or -1. */
export function findPage(v: Vcpu, gfn: number, role: number): number {
  role >>>= 0;
  for (let slot = 0, at = FIRST; slot < SHADOW_PAGES; slot++, at += SHADOW_PAGE_WORDS) {
    if (v.word(at) === role && v.word(at + GFN) === gfn) return slot;
  }
  return -1;
}

/** The shadow page of a table in a role, made if there is none (kvm_mmu_get_shadow_page). */
export function getPage(v: Vcpu, gfn: number, role: number): number {
  const found = findPage(v, gfn, role);
  if (found >= 0) {
    if (v.word(base(found) + UNSYNC) !== 0) dropEntries(v, found);
    v.setWord(base(found) + WRITES, 0);
    return found;
  }
  const slot = freeSlot(v);
  const at = base(slot);
  v.zero(at * 4, (at + SHADOW_PAGE_WORDS) * 4);
  v.setWord(at, role);
  v.setWord(at + GFN, gfn);
  if ((role & ROLE.DIRECT) === 0) protect(v, gfn);
  return slot;
}

function freeSlot(v: Vcpu): number {
  for (let slot = 0; slot < SHADOW_PAGES; slot++) if (roleOf(v, slot) === 0) return slot;
  // KVM has a limit as well, and drops pages that were not used for long.
  for (let slot = 0; slot < SHADOW_PAGES; slot++) zapPage(v, slot);
  return 0;
}

/** Whether a page's writes are caught because it is a table above the last level. */
export function isTracked(v: Vcpu, gfn: number): boolean {
  for (let slot = 0, at = FIRST; slot < SHADOW_PAGES; slot++, at += SHADOW_PAGE_WORDS) {
    const role = v.word(at);
    if (
      role !== 0 && v.word(at + GFN) === gfn && (role & ROLE.DIRECT) === 0 &&
      (role & ROLE.LEVEL) > 1
    ) return true;
  }
  return false;
}

/**
 * Whether a page may be mapped writable (mmu_try_to_unsync_pages): a table of
 * the last level then runs out of step.
 *
 * @param prefetch Whether the page is mapped without having been asked for.
 */
export function mayWrite(v: Vcpu, gfn: number, prefetch: boolean): boolean {
  if (isTracked(v, gfn)) return false;
  for (let slot = 0; slot < SHADOW_PAGES; slot++) {
    const role = roleOf(v, slot);
    if (role === 0 || gfnOf(v, slot) !== gfn || (role & ROLE.DIRECT) !== 0) continue;
    if (v.word(base(slot) + UNSYNC) !== 0) continue;
    if (prefetch) return false;
    v.setWord(base(slot) + UNSYNC, 1);
  }
  return true;
}

/** Page number that an entry of a last-level shadow page maps. */
export function mappedGfn(v: Vcpu, slot: number, index: number): number {
  return (roleOf(v, slot) & ROLE.DIRECT) !== 0
    ? gfnOf(v, slot) + index
    : v.word(entryAt(slot, index)) >>> 12;
}

/** Makes every mapping of a page read-only. */
function protect(v: Vcpu, gfn: number): void {
  if (gfn * 4096 < v.caps.memory) v.set8(NESTED_AT + gfn, v.u8(NESTED_AT + gfn) & 15);
  for (let slot = 0; slot < SHADOW_PAGES; slot++) {
    const role = roleOf(v, slot);
    if ((role & ROLE.LEVEL) !== 1) continue;
    if ((role & ROLE.DIRECT) !== 0) {
      const index = gfn - gfnOf(v, slot);
      if (index >= 0 && index < 512) v.clear32(entryAt(slot, index) * 4, ENTRY.WRITE);
      continue;
    }
    for (let i = 0; i < 512; i++) {
      const at = entryAt(slot, i);
      const entry = v.word(at);
      if ((entry & ENTRY.PRESENT) !== 0 && entry >>> 12 === gfn) {
        v.setWord(at, entry & ~ENTRY.WRITE);
      }
    }
  }
}

function dropEntries(v: Vcpu, slot: number): void {
  v.zero(entryAt(slot, 0) * 4, entryAt(slot, 512) * 4);
  v.setWord(base(slot) + UNSYNC, 0);
}

/** Brings last-level pages back in step with their tables, which are caught again (mmu_sync_children). */
export function syncPages(v: Vcpu): void {
  for (let slot = 0; slot < SHADOW_PAGES; slot++) {
    if (roleOf(v, slot) === 0 || v.word(base(slot) + UNSYNC) === 0) continue;
    dropEntries(v, slot);
    protect(v, gfnOf(v, slot));
  }
}

/** Whether another shadow page has an entry for this one. */
function hasParent(v: Vcpu, child: number): boolean {
  for (let slot = 0; slot < SHADOW_PAGES; slot++) {
    if ((roleOf(v, slot) & ROLE.LEVEL) < 2) continue;
    for (let i = 0; i < 512; i++) {
      const entry = v.word(entryAt(slot, i));
      if ((entry & ENTRY.PRESENT) !== 0 && entry >>> 12 === child) return true;
    }
  }
  return false;
}

/** Drops a shadow page and every entry that leads to it (kvm_mmu_prepare_zap_page). */
export function zapPage(v: Vcpu, slot: number): void {
  const role = roleOf(v, slot);
  if (role === 0) return;
  v.setWord(base(slot), 0);
  if (isRoot(v, slot, gfnOf(v, slot), role)) v.request(REQ.MMU_FREE_OBSOLETE_ROOTS);
  for (let parent = 0; parent < SHADOW_PAGES; parent++) {
    if ((roleOf(v, parent) & ROLE.LEVEL) < 2) continue;
    for (let i = 0; i < 512; i++) {
      const at = entryAt(parent, i);
      const entry = v.word(at);
      if ((entry & ENTRY.PRESENT) !== 0 && entry >>> 12 === slot) v.setWord(at, 0);
    }
  }
  if ((role & ROLE.LEVEL) < 2) return;
  for (let i = 0; i < 512; i++) {
    const entry = v.word(entryAt(slot, i));
    if ((entry & ENTRY.PRESENT) === 0) continue;
    const child = entry >>> 12;
    // Nested tables without a parent are unlikely to be used again.
    if (v.caps.npt && (roleOf(v, child) & ROLE.GUEST_MODE) !== 0 && !hasParent(v, child)) {
      zapPage(v, child);
    }
  }
}

const ROOTS = [
  [V.pgd_root, V.pgd_role],
  [V.prev0_pgd, V.prev0_role],
  [V.prev1_pgd, V.prev1_role],
  [V.prev2_pgd, V.prev2_role],
  [V.guest_pgd_root, V.guest_pgd_role],
  [V.guest_prev0_pgd, V.guest_prev0_role],
  [V.guest_prev1_pgd, V.guest_prev1_role],
  [V.guest_prev2_pgd, V.guest_prev2_role],
] as const;

function isRoot(v: Vcpu, slot: number, gfn: number, role: number): boolean {
  for (const [pgd, at] of ROOTS) {
    if (v.u32(at) === role && rootGfn(v, pgd) === gfn) return true;
  }
  for (let i = 0; i < 4; i++) {
    if (v.u32(V.pae_roots + i * 4) === slot + 1) return true;
    if (v.u32(V.guest_pae_roots + i * 4) === slot + 1) return true;
  }
  return false;
}

/** Page number of the table at a CR3 value kept in the vCPU area. */
export function rootGfn(v: Vcpu, at: number): number {
  return (v.u32(at) >>> 12) + (v.u32(at + 4) & 0xfffff) * 0x10_0000;
}

/**
 * An emulated write reached guest memory (kvm_mmu_track_write): entries that
 * shadow what was written are dropped, whole pages after an odd or the third write.
 */
export function trackWrite(v: Vcpu, gpa: number, size: number): void {
  const gfn = Math.floor(gpa / 4096);
  for (let slot = 0; slot < SHADOW_PAGES; slot++) {
    const role = roleOf(v, slot);
    if (role === 0 || gfnOf(v, slot) !== gfn || (role & ROLE.DIRECT) !== 0) continue;
    const four = (role & ROLE.FOUR_BYTE_GPTE) !== 0;
    if (misaligned(gpa % 4096, size, four ? 4 : 8) || flooded(v, slot, role)) zapPage(v, slot);
    else zapWritten(v, slot, role, gpa % 4096);
  }
}

function misaligned(offset: number, size: number, entry: number): boolean {
  if (offset % entry === 0 && size === 1) return false;
  return ((offset ^ (offset + size - 1)) & ~(entry - 1)) !== 0 || size < 4;
}

function flooded(v: Vcpu, slot: number, role: number): boolean {
  if ((role & ROLE.LEVEL) === 1) return false;
  const at = base(slot) + WRITES;
  v.setWord(at, v.word(at) + 1);
  return v.word(at) >= 3;
}

function zapWritten(v: Vcpu, slot: number, role: number, offset: number): void {
  let index = offset >> 3, count = 1;
  if ((role & ROLE.FOUR_BYTE_GPTE) !== 0) {
    // A 32-bit directory's entry covers two of a shadow page's.
    let at = offset * 2;
    if ((role & ROLE.LEVEL) > 1) {
      at = (at & ~7) * 2;
      count = 2;
    }
    if (at >> 12 !== (role & ROLE.QUADRANT) >> 5) return;
    index = (at & 4095) >> 3;
  }
  v.zero(entryAt(slot, index) * 4, entryAt(slot, index + count) * 4);
}

/** Drops every shadow page of a table (kvm_mmu_unprotect_gfn_and_retry); whether there was one. */
export function unprotect(v: Vcpu, gfn: number): boolean {
  let any = false;
  for (let slot = 0; slot < SHADOW_PAGES; slot++) {
    const role = roleOf(v, slot);
    if (role === 0 || gfnOf(v, slot) !== gfn || (role & ROLE.DIRECT) !== 0) continue;
    zapPage(v, slot);
    any = true;
  }
  return any;
}
