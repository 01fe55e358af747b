/**
 * Steps into L2: from saving L1 to merging the MSR bitmap.
 *
 * @module
 */
import { VIRT_EXT } from "../svm/control_bits.ts";
import {
  C,
  canUse,
  hostCpuid,
  MAPPED_AT,
  S,
  V,
  VMCB01_AT,
  VMCB02_AT,
  VMCB12_AT,
} from "../svm/machine.ts";
import { FAIL, OK, type Step } from "../policy.ts";
import {
  CLEAN,
  DR6_ACTIVE_LOW,
  DR7_FIXED,
  EFER,
  EVTINJ,
  INT_CTL,
  REQ,
  RUN,
  V_IRQ_INJECTION,
} from "../kvm/constants.ts";
import { isSoftException } from "../kvm/queue.ts";
import { initNestedMmu, loadCr3 } from "../kvm/mmu.ts";
import { merge } from "../kvm/msrpm.ts";
import { switchVmcb } from "../kvm/nested_state.ts";
import {
  enterGuestMode,
  markDirty,
  nestedLbrs,
  nestedNpt,
  nestedVgif,
  nestedVnmi,
  recalcIntercepts,
  setGif,
  transitionFlush,
} from "../kvm/control.ts";
import { loadRflags, rflags, setCr0, setCr4, setEfer } from "../kvm/regs.ts";
import type { Vcpu } from "../kvm/vcpu.ts";
import { reportCheck } from "./vmcb12.ts";

/** Keeps L1's state where #VMEXIT will look for it. */
export const saveL1: Step = {
  name: "save L1 in vmcb01",
  doc: "Stores L1's EFER, CR0, CR4, RFLAGS, RIP (and CR3 without NPT) in vmcb01's save area",
  run(v) {
    const save = VMCB01_AT;
    v.copy64(save + S.efer, V.efer);
    v.copy64(save + S.cr0, V.cr0);
    v.copy64(save + S.cr4, V.cr4);
    v.set32(save + S.rflags, rflags(v));
    v.copy64(save + S.rip, V.rip);
    if (!v.caps.npt) v.copy64(save + S.cr3, V.cr3);
    return OK;
  },
};

/** Marks that L2 has to run before it can be left. */
export const setRunPending: Step = {
  name: "run pending",
  doc: "Notes that a nested run was started and L2 has not run yet",
  run(v) {
    v.set8(V.run_pending, RUN.pending);
    return OK;
  },
};

/** Notes which vmcb12 is in use. */
export const noteGpa: Step = {
  name: "note vmcb12 GPA",
  doc: "Remembers the address of vmcb12 for the #VMEXIT",
  run(v) {
    v.copy64(V.vmcb12_gpa, V.pending_vmcb12_gpa);
    v.assertThat(v.u32(V.active) !== 2, "svm->vmcb == svm->nested.vmcb02.ptr");
    return OK;
  },
};

/** Enters guest mode. */
export const enterGuest: Step = {
  name: "enter guest mode",
  doc: "From here on the vCPU counts as running L2",
  run(v) {
    enterGuestMode(v);
    return OK;
  },
};

/** Puts the MMU for L1's nested page table in place. */
export const initMmuContext: Step = {
  name: "nested MMU",
  doc: "With nested paging, switches to the MMU that shadows L1's nested page table",
  run(v) {
    if (nestedNpt(v)) initNestedMmu(v);
    return OK;
  },
};

/** Makes vmcb02 the active VMCB. */
export const switchToVmcb02: Step = {
  name: "switch to vmcb02",
  doc: "Copies what both VMCBs share and makes vmcb02 the active one",
  run(v) {
    v.copy64(VMCB02_AT + S.spec_ctrl, VMCB01_AT + S.spec_ctrl);
    switchVmcb(v, 2);
    return OK;
  },
};

/** Requests the flushes that every nested transition makes. */
export const flushTlb: Step = {
  name: "flush TLB",
  doc: "Requests an MMU sync and a TLB flush",
  run(v) {
    transitionFlush(v);
    return OK;
  },
};

const DEBUGCTL_LBR = 1;
/** Bits of DEBUGCTL that AMD's processors reserve, as KVM sees it. */
const DEBUGCTL_RESERVED = ~DEBUGCTL_LBR;

const EVENT_SOFT = EVTINJ.SOFT;

function isSoftEvent(event: number): boolean {
  if ((event & EVTINJ.VALID) === 0) return false;
  const type = event & EVTINJ.TYPE;
  return type === EVENT_SOFT || type === EVTINJ.EXEPT && isSoftException(event & 0xff);
}

/** Where the RIP is that a soft event of L1's returns to: vmcb12's next RIP, or L2's own RIP. */
function nextRipFor(v: Vcpu, source: number): number {
  const given = canUse(v.caps, "nrip_save") || v.u8(V.run_pending) === 0;
  return given ? VMCB12_AT + C.next_rip : source + S.rip;
}

const NO_RIP = 0xffffffff;

/** RIP and CS base of L2 as its VMCB or vmcb12 has them. */
function prepareControlFrom(v: Vcpu, source: number): void {
  const l1 = VMCB01_AT, l2 = VMCB02_AT, l12 = VMCB12_AT;
  let from12: number = INT_CTL.V_TPR | V_IRQ_INJECTION;
  let from01: number = INT_CTL.V_INTR_MASKING;
  if (nestedVnmi(v)) {
    from12 |= INT_CTL.V_NMI_PENDING | INT_CTL.V_NMI_ENABLE | INT_CTL.V_NMI_BLOCKING;
  }
  if (nestedVgif(v)) from12 |= INT_CTL.V_GIF | INT_CTL.V_GIF_ENABLE;
  else from01 |= INT_CTL.V_GIF | INT_CTL.V_GIF_ENABLE;
  v.copy64(l2 + C.nested_ctl, l1 + C.nested_ctl);
  v.copy64(l2 + C.iopm_base_pa, l1 + C.iopm_base_pa);
  v.copy64(l2 + C.msrpm_base_pa, l1 + C.msrpm_base_pa);
  markDirty(v, l2, CLEAN.PERM_MAP);
  v.set8(l2 + C.tlb_ctl, 0);
  v.copy64(l2 + C.tsc_offset, l12 + C.tsc_offset);
  v.set32(l2 + C.int_ctl, v.u32(l12 + C.int_ctl) & from12 | v.u32(l1 + C.int_ctl) & from01);
  v.set32(l2 + C.int_vector, v.u32(l12 + C.int_vector));
  v.set32(l2 + C.int_state, v.u32(l12 + C.int_state));
  v.copy64(l2 + C.event_inj, l12 + C.event_inj);
  const event = v.u32(l12 + C.event_inj);
  const nmi = (event & (EVTINJ.VALID | EVTINJ.TYPE)) === (EVTINJ.VALID | EVTINJ.NMI);
  v.set8(V.nmi_l1_to_l2, nmi ? 1 : 0);
  if (isSoftEvent(event)) {
    v.set8(V.soft_int_injected, 1);
    v.copy64(V.soft_int_csbase, source + S.cs_base);
    v.copy64(V.soft_int_old_rip, source + S.rip);
    v.copy64(V.soft_int_next_rip, nextRipFor(v, source));
  }
  const stopped = v.traits.takesNextRipOfStoppedL2 && v.u8(V.run_pending) === 0;
  if (stopped || hostCpuid(v.caps).has("nrip_save")) {
    v.copy64(l2 + C.next_rip, nextRipFor(v, source));
  }
  if (v.traits.tracksBusLocks) {
    // No L2 has taken a bus lock here: KVM remembers all ones for the RIP of one, and compares it with
    // the RIP that vmcb02 was left with.
    const there = v.u32(l2 + S.rip) === NO_RIP && v.u32(l2 + S.rip + 4) === NO_RIP;
    v.set16(l2 + C.bus_lock_counter, there ? 1 : 0);
  }
  v.set32(l2 + C.pause_filter_thresh, 0);
  recalcIntercepts(v);
}

/** Fills vmcb02's control area from vmcb01 and vmcb12. */
export const prepareControl: Step = {
  name: "prepare control",
  doc: "Makes vmcb02's control area from vmcb01's and vmcb12's: intercepts, int_ctl, EVENTINJ",
  run(v) {
    prepareControlFrom(v, v.fromVmrun || v.smram !== undefined ? MAPPED_AT : v.vmcb);
    return OK;
  },
};

/** Loads L2's registers. */
export const prepareSave: Step = {
  name: "prepare save",
  doc: "Loads L2's segments, EFER, CR0, CR4, flags and registers from vmcb12, by its clean bits",
  run(v) {
    loadL2(v, MAPPED_AT);
    return OK;
  },
};

/**
 * Loads L2's registers (nested_vmcb02_prepare_save).
 *
 * @param v The vCPU.
 * @param l12 Byte offset of what holds them: vmcb12 itself, or the cache where all of it was cached.
 */
export function loadL2(v: Vcpu, l12: number): void {
  const l2 = VMCB02_AT, cache = VMCB12_AT;
  if (v.caps.npt || !v.traits.copiesPatForNptOnly) {
    v.copy64(l2 + S.g_pat, VMCB01_AT + S.g_pat);
    markDirty(v, l2, CLEAN.NPT);
  }
  let all = false;
  if (v.u64(V.vmcb12_gpa) !== v.u64(V.last_vmcb12_gpa)) {
    all = true;
    v.copy64(V.last_vmcb12_gpa, V.vmcb12_gpa);
    v.set8(V.msrpm_recalc, 1);
  }
  const clean = all ? 0 : v.u32(l12 + C.clean);
  if ((clean & 1 << CLEAN.SEG) === 0) {
    v.copy(l2 + S.es_selector, l12 + S.es_selector, 64);
    v.set8(l2 + S.cpl, v.u8(l12 + S.cpl));
    markDirty(v, l2, CLEAN.SEG);
  }
  if ((clean & 1 << CLEAN.DT) === 0) {
    v.copy(l2 + S.gdtr_selector, l12 + S.gdtr_selector, 16);
    v.copy(l2 + S.idtr_selector, l12 + S.idtr_selector, 16);
    markDirty(v, l2, CLEAN.DT);
  }
  loadRflags(v, l12 + S.rflags);
  if (v.traits.ignoresLmaWithoutLme && (v.u32(cache + S.efer) & EFER.LME) === 0) {
    v.clear32(cache + S.efer, EFER.LMA);
  }
  setEfer(v, v.u32(cache + S.efer), v.u32(cache + S.efer + 4));
  setCr0(v, v.u32(cache + S.cr0), v.u32(cache + S.cr0 + 4));
  setCr4(v, v.u32(cache + S.cr4), v.u32(cache + S.cr4 + 4));
  v.copy64(V.cr2, l12 + S.cr2);
  v.copy64(V.rax, l12 + S.rax);
  v.copy64(V.rsp, l12 + S.rsp);
  v.copy64(V.rip, l12 + S.rip);
  v.copy64(l2 + S.rax, l12 + S.rax);
  v.copy64(l2 + S.rsp, l12 + S.rsp);
  v.copy64(l2 + S.rip, l12 + S.rip);
  if ((clean & 1 << CLEAN.DR) === 0) {
    v.copy64(l2 + S.dr7, cache + S.dr7);
    v.or32(l2 + S.dr7, DR7_FIXED);
    v.copy64(V.dr6, cache + S.dr6);
    v.or32(V.dr6, DR6_ACTIVE_LOW);
    markDirty(v, l2, CLEAN.DR);
  }
  if (nestedLbrs(v)) {
    copyLbrFields(v, l2, l12);
    v.clear32(l2 + S.dbgctl, DEBUGCTL_RESERVED);
    v.set32(l2 + S.dbgctl + 4, 0);
  } else copyLbrs(v, l2, VMCB01_AT);
  updateLbrs(v);
}

/** Copies the last-branch records, where the kernel does so although nobody records branches. */
export function copyLbrs(v: Vcpu, to: number, from: number): void {
  if (
    !v.traits.copiesLbrsAlways && (v.u32(VMCB01_AT + C.virt_ext) & VIRT_EXT.LBR_CTL_ENABLE) === 0
  ) return;
  copyLbrFields(v, to, from);
}

/** Copies the last-branch records from one save area to another (svm_copy_lbrs). */
export function copyLbrFields(v: Vcpu, to: number, from: number): void {
  v.copy(to + S.dbgctl, from + S.dbgctl, 40);
  markDirty(v, to, CLEAN.LBR);
}

/** Turns LBR virtualization on in the active VMCB where branches are recorded (svm_update_lbrv). */
export function updateLbrs(v: Vcpu): void {
  const active = v.vmcb;
  const on = (v.u32(active + S.dbgctl) & DEBUGCTL_LBR) !== 0 || v.guestMode && nestedLbrs(v);
  if (on && hostCpuid(v.caps).has("lbrv")) v.or32(active + C.virt_ext, VIRT_EXT.LBR_CTL_ENABLE);
  else v.clear32(active + C.virt_ext, VIRT_EXT.LBR_CTL_ENABLE);
}

/** Loads L2's CR3. */
export const loadL2Cr3: Step = {
  name: "load CR3",
  doc: "Loads CR3; checks the PDPTEs if the vCPU uses PAE paging at this moment (VMRUN only)",
  run(v) {
    const failed = loadCr3(v, v.u64(VMCB12_AT + S.cr3), nestedNpt(v), v.fromVmrun);
    if (failed === "") return OK;
    reportCheck(v, failed);
    return FAIL;
  },
};

/** Asks for the rest of the work before L2 next runs. */
export const requestPages: Step = {
  name: "request state pages",
  doc: "Outside VMRUN, leaves PDPTEs and the MSR bitmap to be loaded before L2 next runs",
  run(v) {
    v.request(REQ.GET_NESTED_STATE_PAGES);
    return OK;
  },
};

/** L2 runs with GIF set. */
export const raiseGif: Step = {
  name: "set GIF",
  doc: "Sets the global interrupt flag",
  run(v) {
    setGif(v, true);
    return OK;
  },
};

/** Merges L1's MSR bitmap. */
export const mergeMsrpm: Step = {
  name: "merge MSRPM",
  doc: "Merges L1's MSR bitmap with the host's and points the active VMCB at the result",
  run: (v) => merge(v) ? OK : FAIL,
};
