/**
 * Control registers, flags, intercepts and GIF: what KVM does when it loads
 * them, with the clean bits that it marks.
 *
 * @module
 */
import { C, S, V, VMCB01_AT, VMCB02_AT, VMCB12_AT } from "../svm/machine.ts";
import {
  ALL_CLEAN,
  CLEAN,
  CR0,
  CR4,
  EFER,
  HF,
  INT_CTL,
  INTERCEPT,
  REQ,
  RFLAGS,
  V_IRQ_INJECTION,
} from "./constants.ts";
import type { Vcpu } from "./vcpu.ts";
import { leaveNested } from "./nested_state.ts";

const V_TPR = INT_CTL.V_TPR;

/** Marks a group of fields of a VMCB as changed (vmcb_mark_dirty). */
export function markDirty(v: Vcpu, vmcb: number, bit: number): void {
  v.clear32(vmcb + C.clean, 1 << bit);
}

/** Marks every group of a VMCB as changed. */
export function markAllDirty(v: Vcpu, vmcb: number): void {
  v.set32(vmcb + C.clean, 0);
}

/** Marks every group of a VMCB as unchanged, as after a run. */
export function markAllClean(v: Vcpu, vmcb: number): void {
  v.set32(vmcb + C.clean, ALL_CLEAN);
}

/** Whether a VMCB has an intercept. */
export function isIntercept(v: Vcpu, vmcb: number, bit: number): boolean {
  return (v.u32(vmcb + (bit >> 5) * 4) >>> (bit & 31) & 1) === 1;
}

/** Whether L1 asked for an intercept (the cached vmcb12). */
export function l1Intercepts(v: Vcpu, bit: number): boolean {
  return isIntercept(v, VMCB12_AT, bit);
}

/** Whether L1 gave L2 nested paging. */
export function nestedNpt(v: Vcpu): boolean {
  return (v.u32(VMCB12_AT + C.nested_ctl) & 1) !== 0;
}

/** Whether L1 gave L2 a virtual GIF. */
export function nestedVgif(v: Vcpu): boolean {
  return (v.u32(VMCB12_AT + C.int_ctl) & INT_CTL.V_GIF_ENABLE) !== 0;
}

/** Makes the active VMCB's intercepts from vmcb01's and, in guest mode, L1's (recalc_intercepts). */
export function recalcIntercepts(v: Vcpu): void {
  markDirty(v, VMCB01_AT, CLEAN.INTERCEPTS);
  if (!v.guestMode) return;
  const active = v.vmcb;
  markDirty(v, active, CLEAN.INTERCEPTS);
  for (let word = 0; word < 24; word += 4) {
    v.set32(active + word, v.u32(VMCB01_AT + word));
  }
  if ((v.u32(VMCB12_AT + C.int_ctl) & INT_CTL.V_INTR_MASKING) !== 0) {
    clearBit(v, active, INTERCEPT.CR8_WRITE);
    if ((v.u32(VMCB01_AT + S.rflags) & RFLAGS.IF) === 0) clearBit(v, active, INTERCEPT.VINTR);
  }
  for (let word = 0; word < 24; word += 4) {
    v.or32(active + word, v.u32(VMCB12_AT + word));
  }
  setBit(v, active, INTERCEPT.VMLOAD);
  setBit(v, active, INTERCEPT.VMSAVE);
}

function setBit(v: Vcpu, vmcb: number, bit: number): void {
  v.or32(vmcb + (bit >> 5) * 4, 1 << (bit & 31));
}

function clearBit(v: Vcpu, vmcb: number, bit: number): void {
  v.clear32(vmcb + (bit >> 5) * 4, 1 << (bit & 31));
}

/** Adds an intercept for L0 (svm_set_intercept). */
export function setIntercept(v: Vcpu, bit: number): void {
  setBit(v, VMCB01_AT, bit);
  recalcIntercepts(v);
}

/** Drops an intercept of L0 (svm_clr_intercept). */
export function clearIntercept(v: Vcpu, bit: number): void {
  clearBit(v, VMCB01_AT, bit);
  recalcIntercepts(v);
}

/** Adds (`on`) or drops the intercepts of all debug register accesses. */
export function setDrIntercepts(v: Vcpu, on: boolean): void {
  v.set32(VMCB01_AT + C.intercept_dr, on ? 0x00ff00ff : 0);
  recalcIntercepts(v);
}

function gifVmcb(v: Vcpu): number {
  return v.guestMode && !nestedVgif(v) ? VMCB02_AT : VMCB01_AT;
}

/** The global interrupt flag (gif_set). */
export function gif(v: Vcpu): boolean {
  return (v.u32(gifVmcb(v) + C.int_ctl) & INT_CTL.V_GIF) !== 0;
}

/** Sets or clears the global interrupt flag (svm_set_gif). */
export function setGif(v: Vcpu, value: boolean): void {
  if (!value) {
    v.clear32(gifVmcb(v) + C.int_ctl, INT_CTL.V_GIF);
    return;
  }
  clearIntercept(v, INTERCEPT.STGI);
  if (isIntercept(v, v.vmcb, INTERCEPT.VINTR)) clearVintr(v);
  v.or32(gifVmcb(v) + C.int_ctl, INT_CTL.V_GIF);
  if (
    v.u8(V.smi_pending) !== 0 || v.u32(V.nmi_pending) !== 0 || v.u8(V.interrupt_injected) !== 0
  ) v.requestEvent();
}

/** Takes back a request for an interrupt window (svm_clear_vintr). */
export function clearVintr(v: Vcpu): void {
  clearIntercept(v, INTERCEPT.VINTR);
  const active = v.vmcb;
  v.clear32(active + C.int_ctl, V_IRQ_INJECTION);
  if (v.guestMode) {
    v.clear32(VMCB01_AT + C.int_ctl, V_IRQ_INJECTION);
    v.assertThat(
      (v.u32(active + C.int_ctl) & V_TPR) === (v.u32(VMCB12_AT + C.int_ctl) & V_TPR),
      "(svm->vmcb->control.int_ctl & V_TPR_MASK) != (svm->nested.ctl.int_ctl & V_TPR_MASK)",
    );
    v.or32(active + C.int_ctl, v.u32(VMCB12_AT + C.int_ctl) & V_IRQ_INJECTION);
    v.set32(active + C.int_vector, v.u32(VMCB12_AT + C.int_vector));
  }
  markDirty(v, active, CLEAN.INTR);
}

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
    if ((efer & EFER.SVME) === 0) {
      leaveNested(v);
      setGif(v, true);
      if (!v.smm) freeNested(v);
    } else if (v.u8(V.nested_initialized) === 0) {
      v.bytes.fill(0, VMCB02_AT, VMCB02_AT + 4096);
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

/** Enters guest mode. */
export function enterGuestMode(v: Vcpu): void {
  v.or32(V.hflags, HF.GUEST);
}

/** Leaves guest mode; a page-table rebuild waiting for it is not dropped. */
export function leaveGuestMode(v: Vcpu): void {
  v.clear32(V.hflags, HF.GUEST);
}

/** Puts DR7 into the active VMCB (kvm_update_dr7 without guest debugging). */
export function updateDr7(v: Vcpu): void {
  v.copy64(v.vmcb + S.dr7, V.dr7);
  markDirty(v, v.vmcb, CLEAN.DR);
}

/** Requests that a nested transition always makes (nested_svm_transition_tlb_flush). */
export function transitionFlush(v: Vcpu): void {
  v.request(REQ.MMU_SYNC);
  v.request(REQ.TLB_FLUSH_CURRENT);
}
