/**
 * Loading control registers on the guest's behalf (kvm_set_cr0, kvm_set_cr3,
 * kvm_set_cr4, set_efer): the checks, and what they do to the MMU.
 *
 * @module
 */
import { S, V } from "../svm/machine.ts";
import { CR0, CR4, EFER, REQ } from "./constants.ts";
import { initMmu, newPgd, resetContext, unload } from "./mmu.ts";
import { legalGpa, loadPdptrs } from "../paging/pdptrs.ts";
import { setCr0, setCr4, setEfer } from "./regs.ts";
import type { Vcpu } from "./vcpu.ts";

const CR0_RESERVED =
  ~(CR0.PE | CR0.MP | CR0.EM | CR0.TS | CR0.ET | CR0.NE | CR0.WP | CR0.AM | CR0.NW |
    CR0.CD | CR0.PG);
const CR0_PDPTR = CR0.CD | CR0.NW | CR0.PG;
const CR4_PDPTR = CR4.PGE | CR4.PSE | CR4.PAE | CR4.SMEP;
const CR4_ROLE = CR4.PSE | CR4.PAE | CR4.LA57 | CR4.SMEP | CR4.SMAP | CR4.PKE;

/** Whether CR4 has only bits that L1's CPUID offers (kvm_is_valid_cr4). */
export function validCr4(v: Vcpu, cr4: bigint): boolean {
  return (cr4 & ~BigInt(v.policy.kernel.reserves.cr4Bits(v.caps))) === 0n;
}

/** Whether EFER has only bits that L1's CPUID offers (kvm_valid_efer). */
export function validEfer(v: Vcpu, efer: bigint): boolean {
  return (efer & ~BigInt(v.policy.kernel.reserves.eferBits(v.caps))) === 0n;
}

/** Whether CR0's bits go together (kvm_is_valid_cr0). */
export function validCr0(cr0: bigint): boolean {
  if (cr0 >> 32n !== 0n) return false;
  const low = Number(cr0);
  if ((low & CR0.NW) !== 0 && (low & CR0.CD) === 0) return false;
  return (low & CR0.PG) === 0 || (low & CR0.PE) !== 0;
}

/** Loads CR0 for the guest; false means #GP. */
export function setGuestCr0(v: Vcpu, value: bigint): boolean {
  const old = v.u32(V.cr0);
  if (!validCr0(value)) return false;
  const cr0 = (Number(value) | CR0.ET) & ~CR0_RESERVED;
  const paging = (cr0 & CR0.PG) !== 0;
  const lme = (v.u32(V.efer) & EFER.LME) !== 0;
  const pae = (v.u32(V.cr4) & CR4.PAE) !== 0;
  const longCode = (v.u16(v.vmcb + S.cs_attrib) & 0x200) !== 0;
  if (lme && !v.paging && paging && (!pae || longCode)) return false;
  if (
    !lme && paging && pae && ((cr0 ^ old) & CR0_PDPTR) !== 0 && !loadPdptrs(v, v.u64(V.cr3))
  ) return false;
  if (!paging && (v.longMode && longCode || (v.u32(V.cr4) & CR4.PCIDE) !== 0)) return false;
  setCr0(v, cr0);
  const changed = cr0 ^ old;
  if (changed === CR0.WP) {
    if (!paging) return true;
    if (v.caps.npt) {
      initMmu(v);
      return true;
    }
  }
  if ((changed & CR0.PG) !== 0 && !paging) v.request(REQ.TLB_FLUSH_GUEST);
  if ((changed & (CR0.PG | CR0.WP)) !== 0) resetContext(v);
  return true;
}

/** Loads CR3 for the guest; false means #GP. */
export function setGuestCr3(v: Vcpu, value: bigint): boolean {
  const old = v.u64(V.cr3);
  if (value !== old || v.paePaging) {
    if (!legalGpa(v, value)) return false;
    if (v.paePaging && !loadPdptrs(v, value)) return false;
    if (value !== old) newPgd(v, value);
    v.set64(V.cr3, value);
  }
  if (v.caps.npt) {
    v.request(REQ.TLB_FLUSH_GUEST);
  } else {
    v.request(REQ.MMU_SYNC);
    v.request(REQ.TLB_FLUSH_CURRENT);
  }
  return true;
}

/** Loads CR4 for the guest; false means #GP. */
export function setGuestCr4(v: Vcpu, value: bigint): boolean {
  const old = v.u32(V.cr4);
  if (!validCr4(v, value)) return false;
  const cr4 = Number(value);
  const changed = cr4 ^ old;
  if (v.longMode) {
    if ((cr4 & CR4.PAE) === 0 || (changed & CR4.LA57) !== 0) return false;
  } else if (
    v.paging && (cr4 & CR4.PAE) !== 0 && (changed & CR4_PDPTR) !== 0 &&
    !loadPdptrs(v, v.u64(V.cr3))
  ) return false;
  setCr4(v, cr4);
  if ((changed & CR4_ROLE) !== 0) resetContext(v);
  if (!v.caps.npt && (cr4 & ~old & CR4.PCIDE) !== 0) unload(v);
  if ((changed & CR4.PGE) !== 0 || (old & ~cr4 & CR4.PCIDE) !== 0) v.request(REQ.TLB_FLUSH_GUEST);
  else if ((changed & CR4.PAE) !== 0 || (cr4 & ~old & CR4.SMEP) !== 0) {
    v.request(REQ.TLB_FLUSH_CURRENT);
  }
  return true;
}

/** Writes the EFER MSR; false means #GP. LMA is the processor's own. */
export function setGuestEfer(v: Vcpu, value: bigint, fromHost: boolean): boolean {
  if (!validEfer(v, value)) return false;
  const old = v.u32(V.efer);
  const asked = Number(value);
  if (!fromHost && v.paging && ((old ^ asked) & EFER.LME) !== 0) return false;
  const efer = asked & ~EFER.LMA | old & EFER.LMA;
  setEfer(v, efer);
  if (((efer ^ old) & (EFER.LME | EFER.NX)) !== 0) resetContext(v);
  return true;
}
