/**
 * The control area of the VMCBs: clean bits, intercepts, GIF, guest mode.
 *
 * @module
 */
import { C, canUse, S, V, VMCB01_AT, VMCB02_AT, VMCB12_AT } from "../svm/machine.ts";
import { CLEAN, EFER, HF, INT_CTL, INTERCEPT, REQ, RFLAGS, V_IRQ_INJECTION } from "./constants.ts";
import { VIRT_EXT } from "../svm/control_bits.ts";
import type { Vcpu } from "./vcpu.ts";

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
  v.set32(vmcb + C.clean, v.traits.cleanBits);
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
  return (v.u32(VMCB12_AT + C.int_ctl) & INT_CTL.V_GIF_ENABLE) !== 0 && canUse(v.caps, "vgif");
}

/** Whether L1 gave L2 virtual NMIs (nested_vnmi_enabled). */
export function nestedVnmi(v: Vcpu): boolean {
  return (v.u32(VMCB12_AT + C.int_ctl) & INT_CTL.V_NMI_ENABLE) !== 0 && canUse(v.caps, "vnmi");
}

/** Whether L1 virtualizes the last-branch records for L2. */
export function nestedLbrs(v: Vcpu): boolean {
  return (v.u32(VMCB12_AT + C.virt_ext) & VIRT_EXT.LBR_CTL_ENABLE) !== 0 && canUse(v.caps, "lbrv");
}

/** Whether L2's VMLOAD and VMSAVE go to the processor (not nested_vmcb_needs_vls_intercept). */
function nestedVls(v: Vcpu): boolean {
  return (v.u32(VMCB12_AT + C.virt_ext) & VIRT_EXT.VIRTUAL_VMLOAD_VMSAVE_ENABLE) !== 0 &&
    nestedNpt(v) &&
    canUse(v.caps, "v_vmsave_vmload");
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
    const closed = v.traits.vintrByMaskingAlone || (v.u32(VMCB01_AT + S.rflags) & RFLAGS.IF) === 0;
    if (closed) clearBit(v, active, INTERCEPT.VINTR);
  }
  if (!v.traits.interceptsVmmcallOfL2) clearBit(v, active, INTERCEPT.VMMCALL);
  for (let word = 0; word < 24; word += 4) {
    v.or32(active + word, v.u32(VMCB12_AT + word));
  }
  if (nestedVls(v)) return;
  setBit(v, active, INTERCEPT.VMLOAD);
  setBit(v, active, INTERCEPT.VMSAVE);
}

function setBit(v: Vcpu, vmcb: number, bit: number): void {
  v.or32(vmcb + (bit >> 5) * 4, 1 << (bit & 31));
}

/** Drops an intercept from a VMCB alone. */
export function clearBit(v: Vcpu, vmcb: number, bit: number): void {
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

/** Recomputes what follows from EFER.SVME and CPUID: vGIF's intercepts and the MSR bitmap (KVM_REQ_RECALC_INTERCEPTS). */
export function recalcForGuest(v: Vcpu): void {
  const change = (v.u32(V.efer) & EFER.SVME) !== 0 ? clearBit : setBit;
  change(v, VMCB01_AT, INTERCEPT.STGI);
  change(v, VMCB01_AT, INTERCEPT.CLGI);
  recalcIntercepts(v);
  v.set8(V.msrpm_recalc, 1);
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

/** The vCPU's flags as the kernel numbers them (hflags). */
export function hflags(v: Vcpu): number {
  const { flags } = v.traits, own = v.u32(V.hflags);
  return ((own & HF.GUEST) !== 0 ? flags.guest : 0) | ((own & HF.SMM) !== 0 ? flags.smm : 0) |
    ((own & HF.SMM_INSIDE_NMI) !== 0 ? flags.smmInsideNmi : 0) |
    (v.u8(V.nmi_masked) !== 0 ? flags.nmiMasked : 0) |
    (v.u8(V.awaiting_iret) !== 0 ? flags.awaitingIret : 0);
}

/** Enters guest mode. */
export function enterGuestMode(v: Vcpu): void {
  v.or32(V.hflags, HF.GUEST);
}

/** Leaves guest mode; a page-table rebuild waiting for it is not dropped. */
export function leaveGuestMode(v: Vcpu): void {
  v.clear32(V.hflags, HF.GUEST);
}

/** Requests that a nested transition always makes (nested_svm_transition_tlb_flush). */
export function transitionFlush(v: Vcpu): void {
  v.request(REQ.MMU_SYNC);
  v.request(REQ.TLB_FLUSH_CURRENT);
}
