/**
 * The four entries at the top of PAE page tables: KVM checks and caches them
 * when CR3 is loaded, and reads them again when its copy is stale.
 *
 * @module
 */
import { V } from "../svm/machine.ts";
import { REQ } from "../kvm/constants.ts";
import type { Vcpu } from "../kvm/vcpu.ts";
import { walkL1Npt } from "./vcpu_walk.ts";

/** Bits that must be 0 in a guest physical address (reserved_gpa_bits). */
export function reservedGpaBits(v: Vcpu): bigint {
  const { physicalBits } = v.caps;
  return reserved[physicalBits] ??= 0xffffffffffffffffn << BigInt(physicalBits) &
    0xffffffffffffffffn;
}

// By the number of address bits.
const reserved: bigint[] = [];

/** Whether a guest physical address, or CR3, has no reserved bit set. */
export function legalGpa(v: Vcpu, gpa: bigint): boolean {
  return (gpa & reservedGpaBits(v)) === 0n;
}

const PDPTE_RESERVED = 0x1e6n;

/** Loads and checks the four PDPTEs at CR3 (load_pdptrs); false when one is bad or unreadable. */
export function loadPdptrs(v: Vcpu, cr3: bigint): boolean {
  let base = Number(BigInt.asUintN(52, cr3) & ~0xfffn);
  if (v.u8(V.walk_mmu) === 1) {
    base = walkL1Npt(v, base);
    if (base < 0) return false;
  }
  const at = base + Number(cr3 & 0xfe0n);
  if (cr3 >> 52n !== 0n || !v.memory.backed(at, 32)) return false;
  const reserved = reservedGpaBits(v) | PDPTE_RESERVED;
  let changed = false;
  for (let i = 0; i < 4; i++) {
    const entry = v.memory.read64(at + i * 8);
    if ((entry & 1n) !== 0n && (entry & reserved) !== 0n) return false;
    if (entry !== v.u64(V.pdptr0 + i * 8)) changed = true;
  }
  if (!v.caps.npt && changed) {
    v.set32(V.pgd_role, 0);
    v.set64(V.pgd_root, 0n);
    v.zero(V.pae_roots, V.pae_roots + 16);
  }
  for (let i = 0; i < 4; i++) v.set64(V.pdptr0 + i * 8, v.memory.read64(at + i * 8));
  v.set8(V.pdptrs_valid, 1);
  v.request(REQ.LOAD_MMU_PGD);
  v.set8(V.pdptrs_from_userspace, 0);
  return true;
}

/** Reads the PDPTEs when the cached ones are stale: KVM does so lazily under nested paging (svm_cache_reg). */
export function readPdptrs(v: Vcpu): void {
  if (v.u8(V.pdptrs_valid) === 0) loadPdptrs(v, v.u64(V.cr3));
}
