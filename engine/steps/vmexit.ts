/**
 * Steps out of L2: the full #VMEXIT from vmcb02, and the smaller one that the
 * unified policy uses before vmcb02 was ever in use.
 *
 * @module
 */
import { C, canUse, MAPPED_AT, S, V, VMCB01_AT, VMCB02_AT, VMCB12_AT } from "../svm/machine.ts";
import { FAIL, OK, type Step } from "../policy.ts";
import { CR0, DR7_FIXED, EVTINJ, INTERCEPT, REQ, RFLAGS, RUN, VECTOR } from "../kvm/constants.ts";
import { clearExceptions, clearInterrupt, injectGp, queueException } from "../kvm/queue.ts";
import { loadCr3 } from "../kvm/mmu.ts";
import { ROLE } from "../paging/roles.ts";
import { switchVmcb, uninitMmu } from "../kvm/nested_state.ts";
import { l1Intercepts, leaveGuestMode, nestedLbrs, setGif } from "../kvm/control.ts";
import { loadRflags, rflags, setCr0, setCr4, setEfer, updateDr7 } from "../kvm/regs.ts";
import type { Vcpu } from "../kvm/vcpu.ts";
import { nestedVmexit } from "../kvm/vmexit.ts";
import { copyLbrFields, copyLbrs, updateLbrs } from "./enter.ts";
import { address, mapPage, reportCheck, unmapPage } from "./vmcb12.ts";

/** Maps vmcb12 again, to be written. */
export const mapForExit: Step = {
  name: "map vmcb12 for #VMEXIT",
  doc: "Maps the vmcb12 in use; queues #GP when no memory is there any more",
  maps: true,
  run(v) {
    if (mapPage(v, address(v, V.vmcb12_gpa))) return OK;
    injectGp(v);
    return FAIL;
  },
};

/** Leaves guest mode. */
export const leaveGuest: Step = {
  name: "leave guest mode",
  doc: "From here on the vCPU counts as running L1",
  run(v) {
    leaveGuestMode(v);
    v.set64(V.vmcb12_gpa, 0n);
    v.assertThat(v.u8(V.run_pending) !== RUN.pending, "svm->nested.nested_run_pending");
    v.unrequest(REQ.GET_NESTED_STATE_PAGES);
    v.set32(V.mp_state, 0);
    return OK;
  },
};

/** Gives L2's registers to L1. */
export const writeSave: Step = {
  name: "write vmcb12 save",
  doc: "Stores L2's segments, control registers, flags and registers in vmcb12",
  run(v) {
    const to = MAPPED_AT, l2 = VMCB02_AT;
    v.copy(to + S.es_selector, l2 + S.es_selector, 64);
    v.copy(to + S.gdtr_selector, l2 + S.gdtr_selector, 16);
    v.copy(to + S.idtr_selector, l2 + S.idtr_selector, 16);
    v.copy64(to + S.efer, V.efer);
    v.copy64(to + S.cr0, V.cr0);
    v.copy64(to + S.cr3, V.cr3);
    v.copy64(to + S.cr2, V.cr2);
    v.copy64(to + S.cr4, V.cr4);
    v.set32(to + S.rflags, rflags(v));
    v.set32(to + S.rflags + 4, v.u32(v.vmcb + S.rflags + 4));
    v.copy64(to + S.rip, V.rip);
    v.copy64(to + S.rsp, V.rsp);
    v.copy64(to + S.rax, V.rax);
    v.copy64(to + S.dr7, l2 + S.dr7);
    v.copy64(to + S.dr6, V.dr6);
    v.set8(to + S.cpl, v.u8(l2 + S.cpl));
    return OK;
  },
};

function saveInterruptedEvent(v: Vcpu): void {
  let info = 0;
  if (v.u8(V.exception_injected) !== 0) {
    info = v.u32(V.exception_vector) | EVTINJ.VALID | EVTINJ.EXEPT;
    if (v.u8(V.exception_has_error) !== 0) {
      info |= EVTINJ.VALID_ERR;
      v.set32(MAPPED_AT + C.exit_int_info_err, v.u32(V.exception_error));
    }
  } else if (v.u8(V.nmi_injected) !== 0) {
    info = EVTINJ.VALID | EVTINJ.NMI;
  } else if (v.u8(V.interrupt_injected) !== 0) {
    const type = v.u8(V.interrupt_soft) !== 0 ? EVTINJ.SOFT : EVTINJ.INTR;
    info = v.u8(V.interrupt_vector) | EVTINJ.VALID | type;
  }
  v.set32(MAPPED_AT + C.exit_int_info, info);
}

/** Gives the reason of the exit to L1. */
export const writeControl: Step = {
  name: "write vmcb12 control",
  doc: "Stores exit code, exit info, the interrupted event and int_ctl in vmcb12",
  run(v) {
    const to = MAPPED_AT, l2 = VMCB02_AT;
    v.set32(to + C.int_state, v.u32(l2 + C.int_state));
    v.copy64(to + C.exit_code, l2 + C.exit_code);
    v.copy64(to + C.exit_info_1, l2 + C.exit_info_1);
    v.copy64(to + C.exit_info_2, l2 + C.exit_info_2);
    if (v.u32(to + C.exit_code) !== 0xffffffff) saveInterruptedEvent(v);
    if (canUse(v.caps, "nrip_save")) v.copy64(to + C.next_rip, l2 + C.next_rip);
    v.set32(to + C.int_ctl, v.u32(VMCB12_AT + C.int_ctl));
    return OK;
  },
};

/** Leaves EVENTINJ in vmcb12 as L2 left it. */
export const writeEventInj: Step = {
  name: "write back EVENTINJ",
  doc: "Stores the cached EVENTINJ in vmcb12; L2's run has cleared it unless L2 never ran",
  run(v) {
    v.copy64(MAPPED_AT + C.event_inj, VMCB12_AT + C.event_inj);
    return OK;
  },
};

/** Leaves EVENTINJ in vmcb12 as L2 left it, and TLB_CONTROL as L1 set it at VMRUN. */
export const writeEventInjAndTlb: Step = {
  name: "write back EVENTINJ and TLB control",
  doc: "Stores the cached EVENTINJ and TLB_CONTROL in vmcb12",
  run(v) {
    v.set8(MAPPED_AT + C.tlb_ctl, v.u8(VMCB12_AT + C.tlb_ctl));
    return writeEventInj.run(v);
  },
};

/** Clears EVENTINJ in vmcb12. */
export const clearEventInj: Step = {
  name: "clear EVENTINJ",
  doc: "Clears EVENTINJ and its error code in vmcb12",
  run(v) {
    v.set64(MAPPED_AT + C.event_inj, 0n);
    return OK;
  },
};

/** Makes vmcb01 the active VMCB. */
export const switchToVmcb01: Step = {
  name: "switch to vmcb01",
  doc: "Copies what both VMCBs share and makes vmcb01 the active one",
  run(v) {
    v.copy64(VMCB01_AT + S.spec_ctrl, VMCB02_AT + S.spec_ctrl);
    switchVmcb(v, 1);
    if (v.traits.requestsEventsOnVmexit && !l1Intercepts(v, INTERCEPT.INTR)) v.requestEvent();
    if (nestedLbrs(v)) copyLbrFields(v, MAPPED_AT, VMCB02_AT);
    else copyLbrs(v, VMCB01_AT, VMCB02_AT);
    updateLbrs(v);
    return OK;
  },
};

/** Asserts what the unified policy promises: a full #VMEXIT starts from vmcb02. */
export const assertVmcb02: Step = {
  name: "assert vmcb02",
  doc: "Reports when a full #VMEXIT does not start from vmcb02",
  run(v) {
    v.assertThat(v.u32(V.active) === 2, "svm->vmcb != svm->nested.vmcb02.ptr");
    return OK;
  },
};

/** No event reaches L1 until it sets GIF again. */
export const dropGif: Step = {
  name: "clear GIF",
  doc: "Clears the global interrupt flag",
  run(v) {
    setGif(v, false);
    return OK;
  },
};

/** A #VMEXIT disables the host's breakpoints. */
export const disableBreakpoints: Step = {
  name: "disable breakpoints",
  doc: "Gives L1's DR7 its reset value",
  run(v) {
    v.set64(V.dr7, BigInt(DR7_FIXED));
    updateDr7(v);
    return OK;
  },
};

/** L1 was not interrupted while an event was delivered. */
export const clearExitIntInfo: Step = {
  name: "clear vmcb01 EXITINTINFO",
  doc: "Clears EXITINTINFO of vmcb01",
  run(v) {
    v.set32(VMCB01_AT + C.exit_int_info, 0);
    return OK;
  },
};

/** Forgets L1's nested page table. */
export const forgetNcr3: Step = {
  name: "forget nCR3",
  doc: "Clears the cached nCR3",
  run(v) {
    v.set64(VMCB12_AT + C.nested_cr3, 0n);
    return OK;
  },
};

/** Forgets which vmcb12 was in use. */
export const forgetGpa: Step = {
  name: "forget vmcb12 GPA",
  doc: "Clears the address of the vmcb12 in use",
  run(v) {
    v.set64(V.vmcb12_gpa, 0n);
    return OK;
  },
};

/** Loads L1's registers. */
export const restoreL1: Step = {
  name: "restore L1",
  doc: "Loads L1's RFLAGS, EFER, CR0, CR4, RAX, RSP and RIP from vmcb01, and DR7's reset value",
  run(v) {
    const l1 = VMCB01_AT;
    loadRflags(v, l1 + S.rflags);
    setEfer(v, v.u32(l1 + S.efer), v.u32(l1 + S.efer + 4));
    setCr0(v, v.u32(l1 + S.cr0) | CR0.PE, v.u32(l1 + S.cr0 + 4));
    setCr4(v, v.u32(l1 + S.cr4), v.u32(l1 + S.cr4 + 4));
    v.copy64(V.rax, l1 + S.rax);
    v.copy64(V.rsp, l1 + S.rsp);
    v.copy64(V.rip, l1 + S.rip);
    v.set64(V.dr7, BigInt(DR7_FIXED));
    updateDr7(v);
    return OK;
  },
};

/** vmcb12 is complete: L1 can see it. */
export const unmapVmcb12: Step = {
  name: "unmap vmcb12",
  doc: "Writes vmcb12 back to guest memory",
  run(v) {
    unmapPage(v);
    return OK;
  },
};

/** Puts L1's MMU back. */
export const uninitMmuContext: Step = {
  name: "L1 MMU",
  doc: "Puts L1's own MMU context back in place",
  run(v) {
    uninitMmu(v);
    return OK;
  },
};

/** Loads L1's CR3. */
export const loadL1Cr3: Step = {
  name: "load L1 CR3",
  doc: "Loads L1's CR3 and checks its PDPTEs; a failure shuts the vCPU down",
  run(v) {
    const failed = loadCr3(v, v.u64(VMCB01_AT + S.cr3), false, true);
    if (failed !== "") {
      reportCheck(v, failed);
      v.request(REQ.TRIPLE_FAULT);
      // The MMU keeps L2's root, which vmcb01 does not point at.
      if ((v.u32(V.root_root_role) & ROLE.GUEST_MODE) !== 0) v.set8(V.stale_root, 1);
    }
    return OK;
  },
};

/** What was under way for L2 must not reach L1. */
export const dropEvents: Step = {
  name: "drop L2 events",
  doc: "Forgets NMI, exception and interrupt whose delivery to L2 was under way",
  run(v) {
    v.set8(V.nmi_injected, 0);
    clearExceptions(v);
    clearInterrupt(v);
    return OK;
  },
};

/** A VMRUN under single-step traps when it completes. */
export const trapOnCompletion: Step = {
  name: "trap on completion",
  doc: "Queues #DB when L1 executed VMRUN with RFLAGS.TF set",
  run(v) {
    if ((v.u32(VMCB01_AT + S.rflags) & RFLAGS.TF) !== 0) queueException(v, VECTOR.DB);
    return OK;
  },
};

/** Forgets that L1 injected what is no longer under way. */
export const dropTracking: Step = {
  name: "drop injection tracking",
  doc: "Forgets that L1 injected an NMI or a software interrupt into L2",
  run(v) {
    v.set8(V.nmi_l1_to_l2, 0);
    v.set8(V.soft_int_injected, 0);
    return OK;
  },
};

/** Writes VMEXIT_INVALID straight into vmcb12. */
export const writeInvalid: Step = {
  name: "write VMEXIT_INVALID",
  doc: "Stores exit code -1 and clears both exit infos in vmcb12",
  run(v) {
    fillInvalid(v, MAPPED_AT);
    return OK;
  },
};

/** Makes the active VMCB say VMEXIT_INVALID. */
export const raiseInvalid: Step = {
  name: "raise VMEXIT_INVALID",
  doc: "Makes the active VMCB hold exit code -1, and takes the pending run back",
  run(v) {
    v.set8(V.run_pending, 0);
    fillInvalid(v, v.vmcb);
    return OK;
  },
};

/** Takes the pending run back. */
export const cancelRun: Step = {
  name: "cancel run",
  doc: "The nested run that was pending will not happen",
  run(v) {
    v.set8(V.run_pending, 0);
    return OK;
  },
};

/** Leaves guest mode after a failed entry, nothing else. */
export const leaveGuestOnly: Step = {
  name: "leave guest mode (failed entry)",
  doc: "Counts the vCPU as running L1 again",
  run(v) {
    leaveGuestMode(v);
    return OK;
  },
};

function fillInvalid(v: Vcpu, at: number): void {
  v.set64(at + C.exit_code, 0xffffffffffffffffn);
  v.set64(at + C.exit_info_1, 0n);
  v.set64(at + C.exit_info_2, 0n);
}

/** Carries out the policy's full #VMEXIT as the last step of a failed entry. */
export const fullVmexit: Step = {
  name: "full #VMEXIT",
  doc: "Carries out the whole #VMEXIT",
  run(v) {
    nestedVmexit(v);
    return OK;
  },
};
