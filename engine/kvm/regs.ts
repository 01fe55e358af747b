/**
 * Control registers and flags: what KVM does when it loads them into the
 * active VMCB.
 *
 * @module
 */
import { S, V, VMCB02_AT } from "../svm/machine.ts";
import { CLEAN, CR0, CR4, EFER, INTERCEPT, REQ, RFLAGS } from "./constants.ts";
import { clearIntercept, markDirty, setGif, setIntercept } from "./control.ts";
import { leaveNested } from "./nested_state.ts";
import type { Vcpu } from "./vcpu.ts";

/** The guest's RFLAGS, less what single-stepping over an NMI window put there. */
export function rflags(v: Vcpu): number {
  let flags = v.u32(v.vmcb + S.rflags);
  if (v.u8(V.nmi_singlestep) !== 0) {
    const own = v.u32(V.nmi_singlestep_rflags);
    if ((own & RFLAGS.TF) === 0) flags &= ~RFLAGS.TF;
    if ((own & RFLAGS.RF) === 0) flags &= ~RFLAGS.RF;
  }
  return flags;
}

/** Writes the 64 bits of RFLAGS at `from` into the active VMCB and asks for events (kvm_set_rflags). */
export function loadRflags(v: Vcpu, from: number): void {
  const at = v.vmcb + S.rflags;
  v.set32(at, v.u32(from) | RFLAGS.FIXED);
  v.set32(at + 4, v.u32(from + 4));
  if (v.u8(V.nmi_singlestep) !== 0) v.or32(at, RFLAGS.TF | RFLAGS.RF);
  v.requestEvent();
}

/** Sets the low half of RFLAGS in the active VMCB; the high half is kept. */
export function setRflagsLow(v: Vcpu, flags: number): void {
  v.set32(v.vmcb + S.rflags, v.u8(V.nmi_singlestep) !== 0 ? flags | RFLAGS.TF | RFLAGS.RF : flags);
}

/** Loads EFER (svm_set_efer): shadow paging assumes NX, a change of SVME frees the nested state. */
export function setEfer(v: Vcpu, efer: number, high = 0): void {
  const old = v.u32(V.efer);
  v.set32(V.efer, efer);
  v.set32(V.efer + 4, high);
  let hardware = efer;
  if (!v.caps.npt) {
    hardware |= EFER.NX;
    if ((hardware & EFER.LMA) === 0) hardware &= ~EFER.LME;
  }
  if (((old ^ efer) & EFER.SVME) !== 0) {
    if (v.traits.recalcsByRequest) v.request(REQ.RECALC_INTERCEPTS);
    if ((efer & EFER.SVME) === 0) {
      if (v.guestMode && v.traits.clearingSvmeInL2ShutsDown) v.request(REQ.TRIPLE_FAULT);
      leaveNested(v);
      if (v.traits.clearingSvmeSetsGif) setGif(v, true);
      if (!v.smm) freeNested(v);
    } else if (v.u8(V.nested_initialized) === 0) {
      v.zero(VMCB02_AT, VMCB02_AT + 4096);
      v.set8(V.nested_initialized, 1);
    }
  }
  const at = v.vmcb + S.efer;
  v.set32(at, hardware | EFER.SVME);
  v.set32(at + 4, high);
  markDirty(v, v.vmcb, CLEAN.CR);
}

function freeNested(v: Vcpu): void {
  if (v.u8(V.nested_initialized) === 0) return;
  if (v.traits.freeingDropsTracking) {
    v.set8(V.nmi_l1_to_l2, 0);
    v.set8(V.soft_int_injected, 0);
  }
  v.set64(V.last_vmcb12_gpa, 0xffffffffffffffffn);
  v.set8(V.nested_initialized, 0);
}

/** Loads CR0 (svm_set_cr0): EFER.LMA follows CR0.PG, caching stays enabled, shadow paging adds PG and WP. */
export function setCr0(v: Vcpu, cr0: number, high = 0): void {
  const vmcb = v.vmcb;
  const wasPaging = v.paging;
  const paging = (cr0 & CR0.PG) !== 0;
  if ((v.u32(V.efer) & EFER.LME) !== 0) {
    if (!wasPaging && paging) {
      v.or32(V.efer, EFER.LMA);
      v.or32(vmcb + S.efer, EFER.LMA | EFER.LME);
    }
    if (wasPaging && !paging) {
      v.clear32(V.efer, EFER.LMA);
      v.clear32(vmcb + S.efer, EFER.LMA | EFER.LME);
    }
  }
  v.set32(V.cr0, cr0);
  v.set32(V.cr0 + 4, high);
  let hardware = cr0;
  if (!v.caps.npt) {
    hardware |= CR0.PG | CR0.WP;
    if (wasPaging !== paging) setCr4(v, v.u32(V.cr4), v.u32(V.cr4 + 4));
  }
  hardware &= ~(CR0.CD | CR0.NW);
  v.set32(vmcb + S.cr0, hardware);
  v.set32(vmcb + S.cr0 + 4, high);
  markDirty(v, vmcb, CLEAN.CR);
  if ((hardware | 0) === (cr0 | 0)) {
    clearIntercept(v, INTERCEPT.CR0_READ);
    clearIntercept(v, INTERCEPT.CR0_WRITE);
  } else {
    setIntercept(v, INTERCEPT.CR0_READ);
    setIntercept(v, INTERCEPT.CR0_WRITE);
  }
}

/** Loads CR4 (svm_set_cr4): shadow paging needs PAE, and hides SMEP, SMAP and PKE while paging is off. */
export function setCr4(v: Vcpu, cr4: number, high = 0): void {
  const vmcb = v.vmcb;
  v.set32(V.cr4, cr4);
  v.set32(V.cr4 + 4, high);
  let hardware = cr4;
  if (!v.caps.npt) {
    hardware |= CR4.PAE;
    if (!v.paging) hardware &= ~(CR4.SMEP | CR4.SMAP | CR4.PKE);
  }
  v.set32(vmcb + S.cr4, hardware);
  v.set32(vmcb + S.cr4 + 4, high);
  markDirty(v, vmcb, CLEAN.CR);
}

/** Puts DR7 into the active VMCB (kvm_update_dr7 without guest debugging). */
export function updateDr7(v: Vcpu): void {
  v.copy64(v.vmcb + S.dr7, V.dr7);
  markDirty(v, v.vmcb, CLEAN.DR);
}
