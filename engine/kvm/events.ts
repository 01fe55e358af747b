/**
 * What becomes of queued events before the guest is entered: a #VMEXIT for L1
 * or an injection; and what an exit says about them.
 *
 * @module
 */
import { C, S, V, VMCB01_AT, VMCB12_AT } from "../svm/machine.ts";
import { nestedVmexit, simpleVmexit } from "./vmexit.ts";
import { CR0, EVTINJ, EXIT, INT_CTL, INTERCEPT, REQ, RFLAGS, VECTOR } from "./constants.ts";
import { gif, l1Intercepts, setIntercept } from "./control.ts";
import { rflags, setRflagsLow, updateDr7 } from "./regs.ts";
import { skipSoftInterrupt } from "./skip.ts";
import { enterSmm } from "./smm.ts";
import {
  clearExceptions,
  clearInterrupt,
  deliverPayload,
  exceptionPending,
  isFault,
  isSoftException,
  linearRip,
  needsReinjection,
  NO_ERROR,
  NO_PAYLOAD,
  queueException,
  queueInterrupt,
} from "./queue.ts";
import type { Vcpu } from "./vcpu.ts";

function injectException(v: Vcpu): void {
  if ((v.u32(V.cr0) & CR0.PE) === 0) v.set8(V.exception_has_error, 0);
  const vector = v.u32(V.exception_vector);
  deliverPayload(v, V.exception_has_payload, vector, V.exception_payload);
  if (isSoftException(vector) && !skipSoftInterrupt(v, vector)) return;
  const hasError = v.u8(V.exception_has_error) !== 0;
  const vmcb = v.vmcb;
  v.set32(
    vmcb + C.event_inj,
    vector | EVTINJ.VALID | EVTINJ.EXEPT | (hasError ? EVTINJ.VALID_ERR : 0),
  );
  v.set32(vmcb + C.event_inj_err, v.u32(V.exception_error));
}

function injectNmi(v: Vcpu): void {
  v.set32(v.vmcb + C.event_inj, EVTINJ.VALID | EVTINJ.NMI);
  if (v.u8(V.nmi_l1_to_l2) !== 0) return;
  v.set8(V.nmi_masked, 1);
  setIntercept(v, INTERCEPT.IRET);
}

function injectInterrupt(v: Vcpu): void {
  const vector = v.u8(V.interrupt_vector);
  let type: number = EVTINJ.INTR;
  if (v.u8(V.interrupt_soft) !== 0) {
    if (!skipSoftInterrupt(v, vector)) return;
    type = EVTINJ.SOFT;
  }
  v.set32(v.vmcb + C.event_inj, vector | EVTINJ.VALID | type);
}

/** Whether NMIs cannot be taken now (svm_nmi_blocked). */
function nmiBlocked(v: Vcpu): boolean {
  if (!gif(v)) return true;
  if (v.guestMode && l1Intercepts(v, INTERCEPT.NMI)) return false;
  if (v.u8(V.nmi_masked) !== 0) return true;
  return (v.u32(v.vmcb + C.int_state) & 1) !== 0;
}

/** Whether interrupts cannot be taken now (svm_interrupt_blocked). */
export function interruptBlocked(v: Vcpu): boolean {
  if (!gif(v)) return true;
  if (v.guestMode) {
    const masking = (v.u32(VMCB12_AT + C.int_ctl) & INT_CTL.V_INTR_MASKING) !== 0;
    const flags = masking ? v.u32(VMCB01_AT + S.rflags) : rflags(v);
    if ((flags & RFLAGS.IF) === 0) return true;
    if (l1Intercepts(v, INTERCEPT.INTR)) return false;
  } else if ((rflags(v) & RFLAGS.IF) === 0) {
    return true;
  }
  return (v.u32(v.vmcb + C.int_state) & 1) !== 0;
}

const YES = 1, NO = 0, BUSY = -1;

function smiAllowed(v: Vcpu): number {
  if (v.u8(V.run_pending) !== 0) return BUSY;
  if (!gif(v) || v.smm) return NO;
  if (v.guestMode && l1Intercepts(v, INTERCEPT.SMI)) return BUSY;
  return YES;
}

function nmiAllowed(v: Vcpu): number {
  if (v.u8(V.run_pending) !== 0) return BUSY;
  if (nmiBlocked(v)) return NO;
  if (v.guestMode && l1Intercepts(v, INTERCEPT.NMI)) return BUSY;
  return YES;
}

/** Turns what waits for L2 into a #VMEXIT where L1 wants one (kvm_check_nested_events); false when blocked. */
export function checkNestedEvents(v: Vcpu): boolean {
  if (v.requested(REQ.TRIPLE_FAULT)) {
    nestedTripleFault(v);
    return true;
  }
  const blockExceptions = v.u8(V.run_pending) !== 0;
  const blockEvents = blockExceptions || needsReinjection(v);
  if (v.u8(V.vmexit_pending) !== 0) {
    if (blockExceptions) return false;
    exceptionVmexit(v);
    return true;
  }
  if (v.u8(V.exception_pending) !== 0) return !blockExceptions;
  if (v.u8(V.smi_pending) !== 0 && gif(v) && !v.smm) {
    if (blockEvents) return false;
    if (l1Intercepts(v, INTERCEPT.SMI)) simpleVmexit(v, EXIT.SMI);
    return true;
  }
  if (v.u32(V.nmi_pending) !== 0 && !nmiBlocked(v)) {
    if (blockEvents) return false;
    if (l1Intercepts(v, INTERCEPT.NMI)) simpleVmexit(v, EXIT.NMI);
    return true;
  }
  if (v.u8(V.interrupt_injected) !== 0 && !interruptBlocked(v)) {
    if (blockEvents) return false;
    if (l1Intercepts(v, INTERCEPT.INTR)) simpleVmexit(v, EXIT.INTR);
  }
  return true;
}

/** Turns a triple fault of L2 into a #VMEXIT if L1 intercepts shutdown (nested_svm_triple_fault). */
export function nestedTripleFault(v: Vcpu): void {
  if (!l1Intercepts(v, INTERCEPT.SHUTDOWN)) return;
  v.unrequest(REQ.TRIPLE_FAULT);
  simpleVmexit(v, EXIT.SHUTDOWN);
}

function exceptionVmexit(v: Vcpu): void {
  const vmcb = v.vmcb;
  const vector = v.u32(V.vmexit_vector);
  v.set32(vmcb + C.exit_code, EXIT.EXCP + vector);
  v.set32(vmcb + C.exit_code_hi, 0);
  if (v.u8(V.vmexit_has_error) !== 0) v.copy64(vmcb + C.exit_info_1, V.vmexit_error);
  if (vector === VECTOR.PF) {
    v.copy64(vmcb + C.exit_info_2, v.u8(V.vmexit_has_payload) !== 0 ? V.vmexit_payload : V.cr2);
  } else if (vector === VECTOR.DB) {
    deliverPayload(v, V.vmexit_has_payload, vector, V.vmexit_payload);
    if ((v.u32(V.dr7) & 1 << 13) !== 0) {
      v.clear32(V.dr7, 1 << 13);
      updateDr7(v);
    }
  } else {
    v.assertThat(v.u8(V.vmexit_has_payload) === 0, "ex->has_payload");
  }
  nestedVmexit(v);
}

/**
 * Injects what waits (kvm_check_and_inject_events).
 *
 * @returns Whether the guest must be left again at once to make progress.
 */
export function injectEvents(v: Vcpu): boolean {
  const free = v.guestMode ? checkNestedEvents(v) : true;
  if (v.u8(V.exception_injected) !== 0) injectException(v);
  else if (exceptionPending(v)) { /* it goes first, and is injected below */ }
  else if (v.u8(V.nmi_injected) !== 0) injectNmi(v);
  else if (v.u8(V.interrupt_injected) !== 0) injectInterrupt(v);
  v.assertThat(
    v.u8(V.exception_injected) === 0 || v.u8(V.exception_pending) === 0,
    "vcpu->arch.exception.injected && vcpu->arch.exception.pending",
  );
  if (!free) return true;
  let canInject = !needsReinjection(v);
  if (v.u8(V.exception_pending) !== 0) {
    const vector = v.u32(V.exception_vector);
    if (isFault(vector)) setRflagsLow(v, rflags(v) | RFLAGS.RF);
    if (vector === VECTOR.DB) {
      deliverPayload(v, V.exception_has_payload, vector, V.exception_payload);
      if ((v.u32(V.dr7) & 1 << 13) !== 0) {
        v.clear32(V.dr7, 1 << 13);
        updateDr7(v);
      }
    }
    injectException(v);
    v.set8(V.exception_pending, 0);
    v.set8(V.exception_injected, 1);
    canInject = false;
  }
  if (v.u8(V.smi_pending) !== 0) {
    const allowed = canInject ? smiAllowed(v) : BUSY;
    if (allowed === BUSY) return true;
    if (allowed === YES) {
      v.set8(V.smi_pending, 0);
      enterSmm(v);
      canInject = false;
    } else if (!gif(v)) {
      setIntercept(v, INTERCEPT.STGI);
    }
  }
  if (v.u32(V.nmi_pending) !== 0) {
    const allowed = canInject ? nmiAllowed(v) : BUSY;
    if (allowed === BUSY) return true;
    if (allowed === YES) {
      v.set32(V.nmi_pending, v.u32(V.nmi_pending) - 1);
      v.set8(V.nmi_injected, 1);
      injectNmi(v);
      canInject = false;
      v.assertThat(nmiAllowed(v) !== BUSY, "kvm_x86_call(nmi_allowed)(vcpu, true) < 0");
    }
    if (v.u32(V.nmi_pending) !== 0) enableNmiWindow(v);
  }
  // With its interrupt controller in userspace, an interrupt in flight counts as
  // one that still waits, so KVM comes back at once to see whether it was taken.
  return v.u8(V.interrupt_injected) !== 0;
}

function enableNmiWindow(v: Vcpu): void {
  if (v.u8(V.nmi_masked) !== 0 && v.u8(V.awaiting_iret) === 0) return;
  if (!gif(v)) {
    setIntercept(v, INTERCEPT.STGI);
    return;
  }
  v.copy64(V.nmi_singlestep_rflags, v.vmcb + S.rflags);
  v.set8(V.nmi_singlestep, 1);
  v.or32(v.vmcb + S.rflags, RFLAGS.TF | RFLAGS.RF);
}

/** Takes over what the processor says about an interrupted delivery (svm_complete_interrupts). */
export function completeInterrupts(v: Vcpu): void {
  const vmcb = v.vmcb;
  const info = v.u32(vmcb + C.exit_int_info);
  const l1Nmi = v.u8(V.nmi_l1_to_l2);
  const softInt = v.u8(V.soft_int_injected) !== 0;
  v.set8(V.nmi_l1_to_l2, 0);
  v.set8(V.soft_int_injected, 0);
  if (v.u8(V.awaiting_iret) !== 0 && v.u64(V.rip) !== v.u64(V.nmi_iret_rip)) {
    v.set8(V.awaiting_iret, 0);
    v.set8(V.nmi_masked, 0);
    v.requestEvent();
  }
  v.set8(V.nmi_injected, 0);
  clearExceptions(v);
  clearInterrupt(v);
  if ((info & EVTINJ.VALID) === 0) return;
  v.requestEvent();
  const vector = info & 0xff;
  const type = info & EVTINJ.TYPE;
  if (softInt && (type === EVTINJ.SOFT || type === EVTINJ.EXEPT)) rewindSoftInterrupt(v);
  switch (type) {
    case EVTINJ.NMI:
      v.set8(V.nmi_injected, 1);
      v.set8(V.nmi_l1_to_l2, l1Nmi);
      break;
    case EVTINJ.EXEPT:
      if (vector === 29) break;
      if ((info & EVTINJ.VALID_ERR) !== 0) {
        queueException(v, vector, v.u32(vmcb + C.exit_int_info_err), NO_PAYLOAD, true);
      } else {
        queueException(v, vector, NO_ERROR, NO_PAYLOAD, true);
      }
      break;
    case EVTINJ.INTR:
      queueInterrupt(v, vector, false);
      break;
    case EVTINJ.SOFT:
      queueInterrupt(v, vector, true);
      break;
  }
}

/** Without NextRIP, KVM had moved RIP past the instruction; an interrupted delivery takes it back. */
function rewindSoftInterrupt(v: Vcpu): void {
  const linear = linearRip(v);
  const next = BigInt.asUintN(64, v.u64(V.soft_int_next_rip) + v.u64(V.soft_int_csbase));
  if (linear === next) v.copy64(V.rip, V.soft_int_old_rip);
}

/** Ends borrowing TF to find the NMI window (disable_nmi_singlestep). */
export function disableNmiSinglestep(v: Vcpu): void {
  v.set8(V.nmi_singlestep, 0);
  const own = v.u32(V.nmi_singlestep_rflags);
  if ((own & RFLAGS.TF) === 0) v.clear32(v.vmcb + S.rflags, RFLAGS.TF);
  if ((own & RFLAGS.RF) === 0) v.clear32(v.vmcb + S.rflags, RFLAGS.RF);
}
