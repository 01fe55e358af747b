/**
 * Steps that reach vmcb12: mapping it, caching it, checking it.
 *
 * @module
 */
import { C, S, V, VMCB12_AT } from "../svm/machine.ts";
import { MAPPED_AT } from "../svm/machine.ts";
import type { CheckGroup } from "../checks/check.ts";
import { checksOf } from "../checks/check_set.ts";
import { cachePlan, type CacheRange } from "../kernels/kernel.ts";
import { END, FAIL, OK, type Outcome, type Step } from "../policy.ts";
import { injectGp, queueException } from "../kvm/queue.ts";
import { VECTOR } from "../kvm/constants.ts";
import { skipInstruction } from "../kvm/skip.ts";
import type { Vcpu } from "../kvm/vcpu.ts";

/** Copies the guest page at `gpa` into the work area; false when nothing backs it. */
export function mapPage(v: Vcpu, gpa: number): boolean {
  const page = gpa - gpa % 4096;
  if (!v.memory.backed(page, 4096)) return false;
  v.copyFromMemory(MAPPED_AT, page, 4096);
  v.vmcb12 = page;
  return true;
}

/** Stands for a page that could not be mapped: what is written to the work area reaches nobody. */
export const UNMAPPED = -1;

/** Writes the work area back to the guest page it was mapped from. */
export function unmapPage(v: Vcpu): void {
  if (v.vmcb12 === UNMAPPED) return;
  v.copyToMemory(v.vmcb12, MAPPED_AT, 4096);
}

/** A 64-bit value as a number, exact below 2^53. */
export function address(v: Vcpu, at: number): number {
  return v.u32(at) + v.u32(at + 4) * 0x1_0000_0000;
}

/** VMRUN needs a host save area. */
export const requireHsave: Step = {
  name: "require VM_HSAVE_PA",
  doc: "Queues #GP when L1 has set no host save area",
  run(v) {
    if (address(v, V.hsave_msr) !== 0) return OK;
    injectGp(v);
    return END;
  },
};

/** VMRUN is not available in SMM. */
export const refuseInSmm: Step = {
  name: "refuse in SMM",
  doc: "Queues #UD when the vCPU is in system management mode",
  run(v) {
    if (!v.smm) return OK;
    queueException(v, VECTOR.UD);
    return END;
  },
};

/** Maps the page that RAX names. */
export const mapVmcb12: Step = {
  name: "map vmcb12",
  doc: "Maps the page at RAX; queues #GP when no memory is there",
  maps: true,
  run(v) {
    v.copy64(V.pending_vmcb12_gpa, v.vmcb + S.rax);
    if (mapPage(v, address(v, V.pending_vmcb12_gpa))) return OK;
    injectGp(v);
    return END;
  },
};

/** Moves RIP past the VMRUN. */
export const skipVmrun: Step = {
  name: "skip VMRUN",
  doc: "Moves L1's RIP past the VMRUN; under RFLAGS.TF a #DB is queued",
  run(v) {
    // When the instruction cannot be read KVM_RUN ends, after the whole transition.
    v.skipFailed = !skipInstruction(v);
    return OK;
  },
};

/** Copies what is checked and used of vmcb12, so that L1 cannot change it meanwhile. */
export const cacheVmcb12: Step = {
  name: "cache vmcb12",
  doc: "Copies the control area and the checked part of the save area",
  run(v) {
    cacheControl(v);
    copyRanges(v, cachePlan(v.policy.kernel).save);
    return OK;
  },
};

function copyRanges(v: Vcpu, ranges: readonly CacheRange[]): void {
  for (const { at, size } of ranges) v.copy(VMCB12_AT + at, MAPPED_AT + at, size);
}

/** Copies the control area from the work area into the cache. */
export function cacheControl(v: Vcpu): void {
  const { control, gaps } = cachePlan(v.policy.kernel);
  copyRanges(v, control);
  for (const { at, mask } of gaps) v.clear32(VMCB12_AT + at, mask);
  v.clear32(VMCB12_AT + C.msrpm_base_pa, 0xfff);
  v.clear32(VMCB12_AT + C.iopm_base_pa, 0xfff);
}

/**
 * Evaluates one group of the policy's check set against a VMCB image.
 *
 * @param v The vCPU.
 * @param group Which checks.
 * @param at Byte offset of the image.
 * @returns Whether all passed; the first that fails is reported.
 */
export function checkGroup(v: Vcpu, group: CheckGroup, at: number): boolean {
  for (const row of checksOf(v.policy.kernel.checks, group)) {
    if (row.fails(v, at)) {
      v.observer?.check(row.id, row.texts[0] as string);
      return false;
    }
  }
  return true;
}

/** Reports a check of the group `cr3` by its id. */
export function reportCheck(v: Vcpu, id: string): void {
  const row = checksOf(v.policy.kernel.checks, "cr3").find((c) => c.id === id);
  v.observer?.check(id, row?.texts[0] ?? id);
}

function checkStep(name: string, group: CheckGroup, doc: string): Step {
  return { name, doc, run: (v): Outcome => checkGroup(v, group, VMCB12_AT) ? OK : FAIL };
}

/** Checks the cached save area. */
export const checkSave: Step = checkStep(
  "check save",
  "save",
  "Consistency checks of the save area",
);

/** Checks the cached control area. */
export const checkControls: Step = checkStep(
  "check controls",
  "control",
  "Consistency checks of the control area",
);
