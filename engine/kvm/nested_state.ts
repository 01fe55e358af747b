/**
 * Dropping nested state without a #VMEXIT: what INIT, a restore of other state
 * and clearing EFER.SVME do.
 *
 * @module
 */
import { V, VMCB01_AT } from "../svm/machine.ts";
import { REQ } from "./constants.ts";
import { leaveGuestMode, markAllDirty, setGif } from "./control.ts";
import type { Vcpu } from "./vcpu.ts";

/** Makes the given VMCB (1 or 2) the active one (svm_switch_vmcb). */
export function switchVmcb(v: Vcpu, to: 1 | 2): void {
  const from = v.u32(V.active);
  v.set32(V.active, to);
  if (from !== to) v.observer?.switched?.(to, v);
}

/** Puts L1's MMU context back in place (nested_svm_uninit_mmu_context). */
export function uninitMmu(v: Vcpu): void {
  v.set8(V.mmu, 0);
  v.set8(V.walk_mmu, 0);
}

/** Leaves L2 at once, as if it had never been entered (svm_leave_nested). */
export function leaveNested(v: Vcpu): void {
  if (v.guestMode) {
    v.set8(V.run_pending, 0);
    v.set64(V.vmcb12_gpa, 0xffffffffffffffffn);
    leaveGuestMode(v);
    switchVmcb(v, 1);
    // The MMU goes on with L2's root, which vmcb01 does not point at.
    if (v.u8(V.mmu) === 0) v.set8(V.stale_root, 1);
    uninitMmu(v);
    markAllDirty(v, VMCB01_AT);
    if (!v.traits.clearingSvmeSetsGif) setGif(v, true);
  }
  v.unrequest(REQ.GET_NESTED_STATE_PAGES);
}
