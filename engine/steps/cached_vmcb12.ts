/**
 * Steps of kernels that cache vmcb12 whole before they look at it, cut to what L1's processor has,
 * and load L2 from the cache.
 *
 * @module
 */
import { EVENT_INJ, NESTED_CTL } from "../svm/control_bits.ts";
import type { Feature } from "../svm/cpuid.ts";
import { C, canUse, MAPPED_AT, S, V, VMCB12_AT } from "../svm/machine.ts";
import { END, OK, type Step } from "../policy.ts";
import { INTERCEPT, KVM_EXIT, REQ } from "../kvm/constants.ts";
import { clearBit } from "../kvm/control.ts";
import { skipOnly } from "../kvm/skip.ts";
import { injectGp } from "../kvm/queue.ts";
import type { Vcpu } from "../kvm/vcpu.ts";
import { legalGpa } from "../paging/pdptrs.ts";
import { loadL2 } from "./enter.ts";
import { address, cacheVmcb12, mapPage, UNMAPPED } from "./vmcb12.ts";

/** RAX has to name a page that L1 can have. */
export const requireVmcb12Address: Step = {
  name: "require vmcb12 address",
  doc:
    "Queues #GP when RAX, or EAX outside 64-bit code, is not page aligned or beyond L1's physical address width",
  run(v) {
    v.copy64(V.pending_vmcb12_gpa, v.vmcb + S.rax);
    if (!v.code64) v.set32(V.pending_vmcb12_gpa + 4, 0);
    const gpa = v.u64(V.pending_vmcb12_gpa);
    if ((gpa & 0xfffn) === 0n && legalGpa(v, gpa)) return OK;
    injectGp(v);
    return END;
  },
};

/** Maps the page that RAX names, which a guest without memory there cannot get over. */
export const mapVmcb12OrStop: Step = {
  name: "map vmcb12 or stop",
  doc: "Maps the page at RAX; with no memory there KVM_RUN ends with an emulation error",
  maps: true,
  run(v) {
    if (mapPage(v, address(v, V.pending_vmcb12_gpa))) return OK;
    v.result.exit = KVM_EXIT.INTERNAL_ERROR;
    v.skipFailed = true;
    return END;
  },
};

/** Intercepts of instructions that a processor may lack. */
const INTERCEPTS: readonly (readonly [Feature, number])[] = [
  ["xsave", INTERCEPT.XSETBV],
  ["invpcid", INTERCEPT.INVPCID],
  ["rdtscp", INTERCEPT.RDTSCP],
  ["skinit", INTERCEPT.SKINIT],
  ["rdpru", INTERCEPT.RDPRU],
];

/** Bits 30:12 of EVENTINJ. */
const EVENT_INJ_RESERVED = ~(EVENT_INJ.vec | EVENT_INJ.type | EVENT_INJ.EV | EVENT_INJ.V);

/** Copies all that is used of vmcb12, and drops what L1's processor does not have. */
export const cacheWholeVmcb12: Step = {
  name: "cache whole vmcb12",
  doc: "Copies control and save area, without the bits that L1's processor does not have",
  run(v) {
    cacheVmcb12.run(v);
    cutControl(v, VMCB12_AT);
    return OK;
  },
};

/** Drops from the control area of a VMCB what L1's processor does not have. */
function cutControl(v: Vcpu, at: number): void {
  for (const [feature, bit] of INTERCEPTS) {
    if (!canUse(v.caps, feature)) clearBit(v, at, bit);
  }
  if (!canUse(v.caps, "npt")) v.clear32(at + C.nested_ctl, NESTED_CTL.NP_ENABLE);
  if (!canUse(v.caps, "gmet")) v.clear32(at + C.nested_ctl, NESTED_CTL.GMET_ENABLE);
  v.set8(at + C.tlb_ctl, v.u8(at + C.tlb_ctl) & 7);
  v.set32(at + C.int_vector, v.u32(at + C.int_vector) & 0xff);
  v.set32(at + C.int_state, v.u32(at + C.int_state) & 1);
  v.clear32(at + C.event_inj, EVENT_INJ_RESERVED);
}

/** Moves RIP past the VMRUN, and nothing else. */
export const advanceRip: Step = {
  name: "advance RIP",
  doc: "Moves L1's RIP past the VMRUN, or stops; RFLAGS.TF traps only when L1 goes on",
  run(v) {
    if (skipOnly(v)) return OK;
    v.skipFailed = true;
    return END;
  },
};

/** Loads L2's registers from the cache. */
export const prepareSaveFromCache: Step = {
  name: "prepare save from cache",
  doc: "Loads L2's segments, EFER, CR0, CR4, flags and registers from the cache, by its clean bits",
  run(v) {
    loadL2(v, VMCB12_AT);
    return OK;
  },
};

/** Drops from the control area handed in what L1's processor does not have. */
export const cutRestored: Step = {
  name: "cut restored controls",
  doc: "Drops from the control area handed in what L1's processor does not have",
  run(v) {
    cutControl(v, MAPPED_AT);
    return OK;
  },
};

/** Maps vmcb12 again, to be written; without it the vCPU is to shut down, but L2 is left all the same. */
export const mapForExitOrShutDown: Step = {
  name: "map vmcb12 for #VMEXIT or shut down",
  doc: "Maps the vmcb12 in use; with no memory there any more a triple fault is requested",
  maps: true,
  run(v) {
    if (mapPage(v, address(v, V.vmcb12_gpa))) return OK;
    v.request(REQ.TRIPLE_FAULT);
    v.vmcb12 = UNMAPPED;
    return OK;
  },
};
