/**
 * Numbers the hypervisor model shares: register bits, KVM's request bits,
 * intercept numbers and the symbolic host addresses.
 *
 * @module
 */

import { CR0, CR4, DR6, DR7, EFER, RFLAGS } from "../svm/bits.ts";
import { bitNumbers } from "../svm/bits.ts";
import { CLEAN_BITS, EVENT_INJ, INT_CTL as INT_CTL_MASKS } from "../svm/control_bits.ts";
import { EXITS as EXIT } from "../svm/exit_codes.ts";
import { EXCEPTION_INTERCEPTS, INTERCEPTS, VECTORS as VECTOR } from "../svm/intercepts.ts";

export { CR0, CR4, EFER, EXIT, RFLAGS, VECTOR };

/** DR6 as it is at reset: fixed and active-low bits. */
export const DR6_ACTIVE_LOW: number = DR6.ONES_HIGH + DR6.ONES_LOW + DR6.BUS_LOCK;
/** DR6's always-set bits. */
export const DR6_FIXED = DR6_ACTIVE_LOW & ~0x0001e80f;
/** DR7's always-set bit. */
export const DR7_FIXED: number = DR7.ONE;

/** Masks of int_ctl. Of V_TPR KVM takes the four bits that CR8 has (V_TPR_MASK). */
export const INT_CTL = { ...INT_CTL_MASKS, V_TPR: 0xf } as const;

/** int_ctl bits that request a virtual interrupt. */
export const V_IRQ_INJECTION = INT_CTL.V_IRQ | INT_CTL.V_INTR_PRIO | INT_CTL.V_IGN_TPR;

/** event_inj and exit_int_info (APM vol. 2, 15.20): masks under KVM's names, and the types in place. */
export const EVTINJ = {
  VALID: EVENT_INJ.V,
  VALID_ERR: EVENT_INJ.EV,
  TYPE: EVENT_INJ.type,
  INTR: 0 << 8,
  NMI: 2 << 8,
  EXEPT: 3 << 8,
  SOFT: 4 << 8,
} as const;

/** Numbers of the clean bits of a VMCB (APM vol. 2, 15.15.3). */
export const CLEAN = bitNumbers(CLEAN_BITS);

/** All clean bits KVM knows, less the two it always rewrites (TPR and CR2). */
export const ALL_CLEAN = (0x80000fff & ~(1 << CLEAN.INTR | 1 << CLEAN.CR2)) >>> 0;

/** Numbers of intercepts, counted over the six words of the control area. */
export const INTERCEPT = { ...INTERCEPTS, EXCEPTION: EXCEPTION_INTERCEPTS } as const;

/** Bit numbers of KVM's vCPU requests (KVM_REQ_*). */
export const REQ = {
  TLB_FLUSH: 0,
  VM_DEAD: 1,
  MIGRATE_TIMER: 8,
  TRIPLE_FAULT: 10,
  MMU_SYNC: 11,
  CLOCK_UPDATE: 12,
  LOAD_MMU_PGD: 13,
  EVENT: 14,
  STEAL_UPDATE: 16,
  NMI: 17,
  SMI: 20,
  MASTERCLOCK_UPDATE: 21,
  GLOBAL_CLOCK_UPDATE: 24,
  GET_NESTED_STATE_PAGES: 32,
  RECALC_INTERCEPTS: 37,
  TLB_FLUSH_CURRENT: 34,
  TLB_FLUSH_GUEST: 35,
  MMU_FREE_OBSOLETE_ROOTS: 39,
} as const;

/** vCPU flags (hflags). */
export const HF = { GUEST: 1, SMM: 2, SMM_INSIDE_NMI: 4 } as const;

/** KVM_EXIT_* reasons that the model produces. */
export const KVM_EXIT = {
  UNKNOWN: 0,
  IO: 2,
  HLT: 5,
  MMIO: 6,
  SHUTDOWN: 8,
  FAIL_ENTRY: 9,
  INTR: 10,
  INTERNAL_ERROR: 17,
} as const;

/**
 * High half of the host addresses in the model. Real ones differ from run to
 * run; here a pointer says what it points at.
 */
export const HOST_HIGH = 0xf0;
/** Low halves of the symbolic host addresses. */
export const HOST = { IOPM: 0x1000, MSRPM: 0x4000, MERGED_MSRPM: 0x8000, ROOT: 0x10000 } as const;

/** Whether a nested run was started and L2 has not run yet; `untrusted`: userspace says so. */
export const RUN = { none: 0, pending: 1, untrusted: 2 } as const;
