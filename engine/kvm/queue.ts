/**
 * The queue of exceptions, interrupts and NMIs: how KVM puts events into it and
 * merges them.
 *
 * @module
 */
import { C, S, V, VMCB12_AT } from "../svm/machine.ts";
import { DR6_ACTIVE_LOW, DR6_FIXED, REQ, VECTOR } from "./constants.ts";
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
export function isFault(vector: number): boolean {
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
export function needsReinjection(v: Vcpu): boolean {
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
export function deliverPayload(v: Vcpu, hasPayload: number, vector: number, at: number): void {
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

/** How many NMIs userspace is told of. */
export function toldNmis(v: Vcpu): number {
  const waiting = v.u32(V.nmi_pending);
  return v.traits.countsWaitingNmis || waiting === 0 ? waiting : 1;
}

/** Counts NMIs from outside as waiting, two at most, one while masked (process_nmi). */
export function processNmi(v: Vcpu): void {
  const limit = v.u8(V.nmi_masked) !== 0 || v.u8(V.nmi_injected) !== 0 ? 1 : 2;
  const waiting = Math.min(v.u32(V.nmi_pending) + v.u32(V.nmi_queued), limit);
  v.set32(V.nmi_queued, 0);
  v.set32(V.nmi_pending, waiting);
  if (waiting !== 0) v.requestEvent();
}

/** Queues an interrupt for delivery (kvm_queue_interrupt). */
export function queueInterrupt(v: Vcpu, vector: number, soft: boolean): void {
  v.set8(V.interrupt_injected, 1);
  v.set8(V.interrupt_soft, soft ? 1 : 0);
  v.set8(V.interrupt_vector, vector);
}

/** RIP as a linear address: without CS base in 64-bit code, else 32 bits wide (kvm_get_linear_rip). */
export function linearRip(v: Vcpu): bigint {
  if (v.code64) return v.u64(V.rip);
  return v.u64(v.vmcb + S.cs_base) + v.u64(V.rip) & 0xffffffffn;
}

/**
 * Queues a #PF that a walk of the guest's tables gave, for an instruction that
 * KVM emulates (inject_emulated_exception).
 */
export function injectEmulated(v: Vcpu, error: number, address: bigint): void {
  queueException(v, VECTOR.PF, error, address);
}
