/**
 * Queued exceptions, interrupts and NMIs: how KVM merges them, turns them into
 * a #VMEXIT for L1, and injects them.
 *
 * @module
 */
import { C, S, V, VMCB01_AT, VMCB12_AT } from "../svm/machine.ts";
import { nestedVmexit, simpleVmexit } from "./vmexit.ts";
import {
  CR0,
  DR6_ACTIVE_LOW,
  DR6_FIXED,
  EVTINJ,
  EXIT,
  INT_CTL,
  INTERCEPT,
  REQ,
  RFLAGS,
  VECTOR,
} from "./constants.ts";
import {
  clearIntercept,
  gif,
  isIntercept,
  l1Intercepts,
  markDirty,
  rflags,
  setIntercept,
  setRflagsLow,
  updateDr7,
} from "./regs.ts";
import { skipSoftInterrupt } from "./emulate.ts";
import { enterSmm } from "./smm.ts";
import type { Vcpu } from "./vcpu.ts";

const BENIGN = 0, CONTRIBUTORY = 1, PAGE_FAULT = 2;

function exceptionClass(vector: number): number {
  switch (vector) {
    case VECTOR.PF:
      return PAGE_FAULT;
    case VECTOR.DE:
    case VECTOR.TS:
    case VECTOR.NP:
    case VECTOR.SS:
    case VECTOR.GP:
      return CONTRIBUTORY;
    default:
      return BENIGN;
  }
}

/** Whether an exception is a fault in KVM's sense (exception_type == EXCPT_FAULT). */
function isFault(vector: number): boolean {
  if (vector > 31 || vector === VECTOR.NMI) return false;
  return vector !== VECTOR.DB && vector !== VECTOR.BP && vector !== VECTOR.OF &&
    vector !== VECTOR.DF && vector !== VECTOR.MC;
}

/** Whether an exception comes from an instruction that advances RIP (#BP, #OF). */
export function isSoftException(vector: number): boolean {
  return vector === VECTOR.BP || vector === VECTOR.OF;
}

/** Forgets a queued exception, including one that is to become a #VMEXIT. */
export function clearExceptions(v: Vcpu): void {
  v.set8(V.exception_pending, 0);
  v.set8(V.exception_injected, 0);
  v.set8(V.vmexit_pending, 0);
}

/** Forgets a queued interrupt. */
export function clearInterrupt(v: Vcpu): void {
  v.set8(V.interrupt_injected, 0);
}

/** Whether an exception waits, of either kind. */
export function exceptionPending(v: Vcpu): boolean {
  return v.u8(V.exception_pending) !== 0 || v.u8(V.vmexit_pending) !== 0;
}

/** Whether an event's delivery was interrupted and must be repeated. */
function needsReinjection(v: Vcpu): boolean {
  return v.u8(V.exception_injected) !== 0 || v.u8(V.interrupt_injected) !== 0 ||
    v.u8(V.nmi_injected) !== 0;
}

/** No error code with an exception. */
export const NO_ERROR = -1;
/** No payload with an exception. */
export const NO_PAYLOAD = -1n;

/**
 * Queues an exception (kvm_multiple_exception): for L2 it becomes a #VMEXIT if
 * L1 intercepts it; on top of another one it becomes #DF or shutdown.
 *
 * @param v The vCPU.
 * @param vector Its vector.
 * @param error Its error code, or {@linkcode NO_ERROR}.
 * @param payload Its payload (CR2, DR6 bits), or {@linkcode NO_PAYLOAD}.
 * @param again Whether its delivery had begun before.
 */
export function queueException(
  v: Vcpu,
  vector: number,
  error = NO_ERROR,
  payload = NO_PAYLOAD,
  again = false,
): void {
  v.requestEvent();
  if (!again && v.guestMode && (v.u32(VMCB12_AT + C.intercept_exceptions) >>> (vector & 31) & 1)) {
    fill(v, V.vmexit_pending, V.vmexit_has_error, V.vmexit_vector, vector, error, payload);
    v.set8(V.vmexit_pending, 1);
    return;
  }
  const pending = v.u8(V.exception_pending) !== 0;
  if (pending || v.u8(V.exception_injected) !== 0) {
    const before = v.u32(V.exception_vector);
    if (before === VECTOR.DF) {
      v.request(REQ.TRIPLE_FAULT);
      return;
    }
    const first = exceptionClass(before);
    const second = exceptionClass(vector);
    if (
      first === CONTRIBUTORY && second === CONTRIBUTORY ||
      first === PAGE_FAULT && second !== BENIGN
    ) {
      v.set8(V.exception_injected, 0);
      v.set8(V.exception_pending, 0);
      queueException(v, VECTOR.DF, 0);
      return;
    }
  }
  v.set8(V.exception_pending, again ? 0 : 1);
  v.set8(V.exception_injected, again ? 1 : 0);
  fill(v, V.exception_pending, V.exception_has_error, V.exception_vector, vector, error, payload);
}

function fill(
  v: Vcpu,
  _pending: number,
  hasError: number,
  at: number,
  vector: number,
  error: number,
  payload: bigint,
): void {
  v.set8(hasError, error === NO_ERROR ? 0 : 1);
  v.set8(hasError + 1, payload === NO_PAYLOAD ? 0 : 1);
  v.set32(at, vector);
  v.set32(at + 4, error === NO_ERROR ? 0 : error);
  v.set32(at + 8, 0);
  v.set64(at + 12, payload === NO_PAYLOAD ? 0n : payload);
}

/** Queues a #GP with error code 0. */
export function injectGp(v: Vcpu): void {
  queueException(v, VECTOR.GP, 0);
}

/** Takes an exception's payload into CR2 or DR6 (kvm_deliver_exception_payload). */
function deliverPayload(v: Vcpu, hasPayload: number, vector: number, at: number): void {
  if (v.u8(hasPayload) === 0) return;
  const payload = v.u64(at);
  if (vector === VECTOR.DB) {
    let dr6 = v.u32(V.dr6) & ~0xf | 1 << 16;
    const bits = Number(payload & 0xffffffffn);
    dr6 &= ~(bits & DR6_ACTIVE_LOW);
    dr6 |= bits & ~DR6_ACTIVE_LOW;
    dr6 = dr6 & ~(1 << 12) | DR6_FIXED;
    v.set32(V.dr6, dr6);
  } else if (vector === VECTOR.PF) {
    v.set64(V.cr2, payload);
  }
  v.set8(hasPayload, 0);
  v.set64(at, 0n);
}

/** Takes a queued exception's payload early, as the ioctls that show registers do. */
export function payloadQuirk(v: Vcpu): void {
  if (
    v.u8(V.vmexit_pending) !== 0 && v.u8(V.exception_pending) === 0 &&
    v.u8(V.exception_injected) === 0
  ) {
    if (v.u8(V.vmexit_has_payload) !== 0) {
      deliverPayload(v, V.vmexit_has_payload, v.u32(V.vmexit_vector), V.vmexit_payload);
    }
    return;
  }
  if (v.u8(V.exception_pending) !== 0 && v.u8(V.exception_has_payload) !== 0) {
    deliverPayload(v, V.exception_has_payload, v.u32(V.exception_vector), V.exception_payload);
  }
}

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

/** Counts NMIs from outside as waiting, two at most, one while masked (process_nmi). */
export function processNmi(v: Vcpu): void {
  const limit = v.u8(V.nmi_masked) !== 0 || v.u8(V.nmi_injected) !== 0 ? 1 : 2;
  const waiting = Math.min(v.u32(V.nmi_pending) + v.u32(V.nmi_queued), limit);
  v.set32(V.nmi_queued, 0);
  v.set32(V.nmi_pending, waiting);
  if (waiting !== 0) v.requestEvent();
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

/** Queues an interrupt for delivery (kvm_queue_interrupt). */
export function queueInterrupt(v: Vcpu, vector: number, soft: boolean): void {
  v.set8(V.interrupt_injected, 1);
  v.set8(V.interrupt_soft, soft ? 1 : 0);
  v.set8(V.interrupt_vector, vector);
}

/** Without NextRIP, KVM had moved RIP past the instruction; an interrupted delivery takes it back. */
function rewindSoftInterrupt(v: Vcpu): void {
  const linear = linearRip(v);
  const next = BigInt.asUintN(64, v.u64(V.soft_int_next_rip) + v.u64(V.soft_int_csbase));
  if (linear === next) v.copy64(V.rip, V.soft_int_old_rip);
}

/** RIP as a linear address: without CS base in 64-bit code, else 32 bits wide (kvm_get_linear_rip). */
export function linearRip(v: Vcpu): bigint {
  if (v.longMode && (v.u16(v.vmcb + S.cs_attrib) & 0x200) !== 0) return v.u64(V.rip);
  return v.u64(v.vmcb + S.cs_base) + v.u64(V.rip) & 0xffffffffn;
}

/** Ends borrowing TF to find the NMI window (disable_nmi_singlestep). */
export function disableNmiSinglestep(v: Vcpu): void {
  v.set8(V.nmi_singlestep, 0);
  const own = v.u32(V.nmi_singlestep_rflags);
  if ((own & RFLAGS.TF) === 0) v.clear32(v.vmcb + S.rflags, RFLAGS.TF);
  if ((own & RFLAGS.RF) === 0) v.clear32(v.vmcb + S.rflags, RFLAGS.RF);
}
