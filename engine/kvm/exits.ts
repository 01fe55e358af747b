/**
 * What KVM does with a #VMEXIT that L1 does not get: one handler per exit code.
 *
 * @module
 */
import { C, S, V, VMCB01_AT } from "../svm/machine.ts";
import {
  CR0,
  CR4,
  DR6_ACTIVE_LOW,
  EFER,
  EVTINJ,
  EXIT,
  INTERCEPT,
  KVM_EXIT,
  VECTOR,
} from "./constants.ts";
import { emulateInstruction, emulateRsm } from "./emulate.ts";
import { waitingIo } from "./emulate_ports.ts";
import { emulateUndefined } from "./emulate_undefined.ts";
import { skipInstruction } from "./skip.ts";
import { injectGp, NO_ERROR, queueException } from "./queue.ts";
import { base, forL1 } from "./exit_owner.ts";
import { cpuidFaults, emulateCpuid } from "./cpuid.ts";
import { readMsr, writeMsr } from "./msrs.ts";
import { PF } from "../paging/walk.ts";
import { legalGpa } from "../paging/pdptrs.ts";
import { isDeviceAt } from "../paging/shadow_walk.ts";
import { clearIntercept, clearVintr, isIntercept, setDrIntercepts, setGif } from "./control.ts";
import { resetVcpu } from "./reset.ts";
import type { Vcpu } from "./vcpu.ts";
import { nestedVmexit } from "./vmexit.ts";
import { accessOf, FAILED, fixDirect, FIXED, fixShadow } from "./faults.ts";
import {
  guestMode,
  lastWalk,
  nptGuestMode,
  walkError,
  walkNptFault,
  walkShadowFault,
} from "../paging/vcpu_walk.ts";
import { END, runWay } from "../policy.ts";

/** The guest goes on. */
export const RESUME = 1;
/** KVM_RUN returns to userspace. */
export const USERSPACE = 0;

/**
 * Handles the #VMEXIT in the active VMCB (svm_handle_exit).
 *
 * @returns {@linkcode RESUME} or {@linkcode USERSPACE}.
 */
export function handleExit(v: Vcpu): number {
  const vmcb = v.vmcb;
  if (!isIntercept(v, vmcb, INTERCEPT.CR0_WRITE)) v.copy64(V.cr0, vmcb + S.cr0);
  if (v.caps.npt) v.copy64(V.cr3, vmcb + S.cr3);
  const code = v.u32(vmcb + C.exit_code);
  if (v.guestMode && forL1(v, code)) {
    nestedVmexit(v);
    return RESUME;
  }
  if (code === 0xffffffff) {
    v.result.exit = KVM_EXIT.FAIL_ENTRY;
    return USERSPACE;
  }
  const handler = code < EXIT.EXCP
    ? code < 0x20 ? emulate : debugRegister
    : code < EXIT.INTR
    ? exception
    : HANDLERS.get(code);
  if (handler === undefined) {
    v.result.exit = KVM_EXIT.INTERNAL_ERROR;
    return USERSPACE;
  }
  return handler(v, code);
}

function result(goesOn: boolean): number {
  return goesOn ? RESUME : USERSPACE;
}

function skip(v: Vcpu): number {
  return result(skipInstruction(v));
}

function emulate(v: Vcpu): number {
  return result(emulateInstruction(v));
}

/**
 * Whether KVM takes a fault for one of an event's delivery, which it does not emulate: it looks at
 * the event's type alone, so that it never takes an interrupt's for one.
 */
function delivering(v: Vcpu): boolean {
  return v.traits.emulatesNoDeliveries &&
    (v.u32(v.vmcb + C.exit_int_info) & EVTINJ.TYPE) !== 0;
}

/**
 * Emulates an instruction because of a fault.
 *
 * @param device Whether it reached what is no memory; else the guest may try again, but for L2.
 */
function emulateFault(v: Vcpu, device: boolean): number {
  if (!delivering(v)) return emulate(v);
  if (!device && !v.guestMode) return RESUME;
  v.result.exit = KVM_EXIT.INTERNAL_ERROR;
  return USERSPACE;
}

function undefinedInstruction(v: Vcpu): number {
  queueException(v, VECTOR.UD);
  return RESUME;
}

/** The first access to a debug register only stops them from being intercepted; the guest repeats it. */
function debugRegister(v: Vcpu): number {
  setDrIntercepts(v, false);
  v.set8(V.dr_wont_exit, 1);
  return RESUME;
}

function exception(v: Vcpu, code: number): number {
  switch (code - EXIT.EXCP) {
    case VECTOR.DB: {
      const bits = v.u32(v.vmcb + S.dr6) ^ DR6_ACTIVE_LOW;
      queueException(v, VECTOR.DB, NO_ERROR, BigInt(bits >>> 0));
      return RESUME;
    }
    case VECTOR.UD:
      v.set8(V.exception_pending, 0);
      v.set8(V.exception_injected, 0);
      v.set8(V.vmexit_pending, 0);
      return result(emulateUndefined(v));
    case VECTOR.PF:
      return shadowFault(v);
    case VECTOR.AC:
      queueException(v, VECTOR.AC, 0);
      return RESUME;
    case VECTOR.MC:
      return RESUME;
    default:
      v.result.exit = KVM_EXIT.INTERNAL_ERROR;
      return USERSPACE;
  }
}

/** A fault under repair, filled in anew for each. */
const fault = { lo: 0, hi: 0, error: 0, levels: 0, writeProtect: false, smep: false };

function fixed(v: Vcpu, levels: number, writeProtect: boolean, smep: boolean): number {
  const vmcb = v.vmcb;
  fault.lo = v.u32(vmcb + C.exit_info_2);
  fault.hi = v.u32(vmcb + C.exit_info_2 + 4);
  fault.error = v.u32(vmcb + C.exit_info_1);
  fault.levels = levels;
  fault.writeProtect = writeProtect;
  fault.smep = smep;
  const walk = lastWalk(v);
  const outcome = fixShadow(v, fault, walk);
  if (outcome === FAILED) return USERSPACE;
  return outcome === FIXED ? RESUME : emulateFault(v, !v.memory.backed(walk.gpa));
}

/** #PF under shadow paging: the guest's own fault, memory to be mapped, or MMIO (kvm_handle_page_fault). */
function shadowFault(v: Vcpu): number {
  const vmcb = v.vmcb;
  const error = v.u32(vmcb + C.exit_info_1);
  const lo = v.u32(vmcb + C.exit_info_2), hi = v.u32(vmcb + C.exit_info_2 + 4);
  if ((error & PF.reserved) !== 0 && isDeviceAt(v, lo, hi)) return emulateFault(v, true);
  if (v.u8(V.mmu) === 1) return nestedWithoutNpt(v, lo, hi, error);
  if (!walkShadowFault(v, lo, hi, accessOf(error), (error & 4) !== 0)) {
    queueException(v, VECTOR.PF, walkError(v), v.u64(vmcb + C.exit_info_2));
    return RESUME;
  }
  const mode = guestMode(v);
  return fixed(v, mode.levels, mode.writeProtect, mode.smep);
}

/**
 * L2 has nested paging although the hypervisor has none, which only ways into
 * L2 without checks allow: KVM takes the linear address for an L2 physical one,
 * and a fault in L1's table becomes a #NPF (nested_svm_inject_npf_exit).
 */
function nestedWithoutNpt(v: Vcpu, lo: number, hi: number, error: number): number {
  const vmcb = v.vmcb;
  if (!walkNptFault(v, lo, hi, accessOf(error), (error & PF.user) !== 0)) {
    v.set64(vmcb + C.exit_code, BigInt(EXIT.NPF));
    v.set32(vmcb + C.exit_info_1, walkError(v));
    v.set32(vmcb + C.exit_info_1 + 4, 1);
    nestedVmexit(v);
    return RESUME;
  }
  const mode = nptGuestMode(v);
  return fixed(v, mode.levels, mode.writeProtect, mode.smep);
}

/** #NPF: KVM's own tables, or L1's, whose fault it may be (kvm_mmu_page_fault). */
function nestedPageFault(v: Vcpu): number {
  const vmcb = v.vmcb;
  const error = v.u32(vmcb + C.exit_info_1);
  const lo = v.u32(vmcb + C.exit_info_2), hi = v.u32(vmcb + C.exit_info_2 + 4);
  // A page that is known as a device's might be written without emulation; what cannot be emulated
  // faults again, for ever.
  if ((error & PF.reserved) !== 0 && !v.guestMode && delivering(v)) return RESUME;
  if (v.u8(V.mmu) === 0) {
    const high = v.u32(vmcb + C.exit_info_1 + 4);
    const gpa = hi * 0x1_0000_0000 + lo;
    const outcome = fixDirect(v, gpa, error, high);
    if (outcome === FIXED) return RESUME;
    v.faultGpa = gpa;
    const goesOn = emulateFault(v, !v.memory.backed(gpa));
    v.faultGpa = -1;
    return goesOn;
  }
  if ((error & PF.reserved) !== 0 && isDeviceAt(v, lo, hi)) return emulateFault(v, true);
  if (!walkNptFault(v, lo, hi, accessOf(error))) {
    v.set32(vmcb + C.exit_info_1, walkError(v));
    nestedVmexit(v);
    return RESUME;
  }
  const mode = nptGuestMode(v);
  return fixed(v, mode.levels, mode.writeProtect, mode.smep);
}

/** VMRUN and its relatives need SVM, paging and CPL 0 (nested_svm_check_permissions). */
function permitted(v: Vcpu): boolean {
  if ((v.u32(V.efer) & EFER.SVME) === 0 || !v.paging) {
    queueException(v, VECTOR.UD);
    return false;
  }
  if (v.u8(v.vmcb + S.cpl) !== 0) {
    injectGp(v);
    return false;
  }
  return true;
}

function vmrun(v: Vcpu): number {
  if (!permitted(v)) return RESUME;
  v.fromVmrun = true;
  v.skipFailed = false;
  const outcome = runWay(v, "vmrun");
  v.fromVmrun = false;
  const ret = v.skipFailed ? USERSPACE : RESUME;
  if (outcome !== END) v.observer?.inner("vmrun", ret, v);
  return ret;
}

/** Fields that VMLOAD and VMSAVE move: FS, GS, LDTR, TR and the SYSCALL and SYSENTER MSRs. */
const LOADSAVE = [
  [S.fs_selector, 32],
  [S.ldtr_selector, 16],
  [S.tr_selector, 16],
  [S.star, 64],
] as const;

function vmloadVmsave(v: Vcpu, code: number): number {
  if (!permitted(v)) return RESUME;
  const { stopsWithoutVmcbPage } = v.traits;
  const gpa = stopsWithoutVmcbPage && !v.code64 ? v.u32(v.vmcb + S.rax) : base(v, v.vmcb + S.rax);
  const page = gpa - gpa % 4096;
  if (!v.memory.backed(page, 4096)) {
    if (stopsWithoutVmcbPage && gpa === page && legalGpa(v, BigInt(gpa))) {
      v.result.exit = KVM_EXIT.INTERNAL_ERROR;
      return USERSPACE;
    }
    injectGp(v);
    return RESUME;
  }
  const goesOn = skipInstruction(v);
  for (const [at, length] of LOADSAVE) {
    if (code === EXIT.VMLOAD) v.copyFromMemory(VMCB01_AT + at, page + at, length);
    else v.copyToMemory(page + at, VMCB01_AT + at, length);
  }
  return result(goesOn);
}

function stgiClgi(v: Vcpu, code: number): number {
  if (!permitted(v)) return RESUME;
  const goesOn = skipInstruction(v);
  setGif(v, code === EXIT.STGI);
  return result(goesOn);
}

function invlpga(v: Vcpu): number {
  return permitted(v) ? skip(v) : RESUME;
}

function io(v: Vcpu): number {
  const info = v.u32(v.vmcb + C.exit_info_1);
  if ((info & 4) !== 0) return emulate(v);
  v.copy64(V.next_rip, v.vmcb + C.exit_info_2);
  v.pendingIo = waitingIo(v, (info & 1) === 0 ? 0 : info >>> 4 & 7);
  v.result.exit = KVM_EXIT.IO;
  v.result.port = info >>> 16;
  return USERSPACE;
}

function halt(v: Vcpu): number {
  const goesOn = skipInstruction(v);
  v.result.exit = goesOn ? KVM_EXIT.HLT : v.result.exit;
  return USERSPACE;
}

/** KVM's return value for a hypercall it does not know, and for one from CPL 3. */
const ENOSYS = -1000n, EPERM = -1n;

function hypercall(v: Vcpu): number {
  if (v.guestMode) return undefinedInstruction(v);
  const wide = v.code64;
  const value = v.u8(v.vmcb + S.cpl) !== 0 ? EPERM : v.u32(V.rax) === 1 ? 0n : ENOSYS;
  v.set64(V.rax, wide ? value : value & 0xffffffffn);
  return skip(v);
}

function shutdown(v: Vcpu): number {
  resetVcpu(v);
  v.result.exit = KVM_EXIT.SHUTDOWN;
  return USERSPACE;
}

function cpuid(v: Vcpu): number {
  if (cpuidFaults(v)) return gpZero(v);
  emulateCpuid(v);
  return skip(v);
}

function msr(v: Vcpu): number {
  const index = v.u32(V.rcx);
  if ((v.u32(v.vmcb + C.exit_info_1) & 1) === 0) {
    const value = readMsr(v, index);
    if (value === undefined) {
      injectGp(v);
      return RESUME;
    }
    v.set64(V.rax, value & 0xffffffffn);
    v.set64(V.rdx, value >> 32n);
    return skip(v);
  }
  const value = BigInt(v.u32(V.rax)) | BigInt(v.u32(V.rdx)) << 32n;
  if (!writeMsr(v, index, value)) {
    injectGp(v);
    return RESUME;
  }
  return skip(v);
}

function interruptWindow(v: Vcpu): number {
  v.requestEvent();
  clearVintr(v);
  return RESUME;
}

function iret(v: Vcpu): number {
  v.set8(V.awaiting_iret, 1);
  clearIntercept(v, INTERCEPT.IRET);
  v.copy64(V.nmi_iret_rip, V.rip);
  v.requestEvent();
  return RESUME;
}

function gpZero(v: Vcpu): number {
  injectGp(v);
  return RESUME;
}

function xsetbv(v: Vcpu): number {
  const bad = v.u8(v.vmcb + S.cpl) !== 0 || v.u32(V.rcx) !== 0 || (v.u32(V.rax) & 1) === 0 ||
    v.u32(V.rdx) !== 0 || (v.u32(V.rax) & ~XCR0_BITS) !== 0 || (v.u32(V.rax) & 6) === 4;
  if (bad) return gpZero(v);
  v.set32(V.xcr0, v.u32(V.rax) ^ 1);
  return skip(v);
}

/** Bits of XCR0 that KVM offers: x87, SSE, AVX and protection keys. */
const XCR0_BITS = 0x207;

/** RDPMC: counters that stand still where the kernel has any for a guest that was given none. */
function rdpmc(v: Vcpu): number {
  const counter = v.u32(V.rcx) & 0x3fffffff;
  const allowed = (v.u32(V.cr4) & CR4.PCE) !== 0 || v.u8(v.vmcb + S.cpl) === 0 ||
    (v.u32(V.cr0) & CR0.PE) === 0;
  if (!allowed || counter >= v.traits.guest.counters) return gpZero(v);
  v.set64(V.rax, 0n);
  v.set64(V.rdx, 0n);
  return skip(v);
}

/** ICEBP traps past the instruction, like any #DB that L1 may intercept. */
function icebp(v: Vcpu): number {
  const status = skip(v);
  if (status === RESUME) queueException(v, VECTOR.DB, NO_ERROR, 0n);
  return status;
}

const resume = () => RESUME;

const HANDLERS: ReadonlyMap<number, (v: Vcpu, code: number) => number> = new Map([
  [EXIT.INTR, resume],
  [EXIT.NMI, resume],
  [EXIT.SMI, resume],
  [EXIT.VINTR, interruptWindow],
  [EXIT.CR0_SEL_WRITE, emulate],
  [EXIT.RDPMC, rdpmc],
  [EXIT.CPUID, cpuid],
  [EXIT.IRET, iret],
  [EXIT.INVD, skip],
  [EXIT.PAUSE, skip],
  [EXIT.HLT, halt],
  [EXIT.INVLPG, emulate],
  [EXIT.INVLPGA, invlpga],
  [EXIT.IOIO, io],
  [EXIT.MSR, msr],
  [EXIT.SHUTDOWN, shutdown],
  [EXIT.VMRUN, vmrun],
  [EXIT.VMMCALL, hypercall],
  [EXIT.VMLOAD, vmloadVmsave],
  [EXIT.VMSAVE, vmloadVmsave],
  [EXIT.STGI, stgiClgi],
  [EXIT.CLGI, stgiClgi],
  [EXIT.SKINIT, undefinedInstruction],
  [EXIT.RDTSCP, undefinedInstruction],
  [EXIT.ICEBP, icebp],
  [EXIT.WBINVD, skip],
  [EXIT.MONITOR, skip],
  [EXIT.MWAIT, skip],
  [EXIT.XSETBV, xsetbv],
  [EXIT.RDPRU, undefinedInstruction],
  [EXIT.RSM, (v) => result(emulateRsm(v))],
  [EXIT.NPF, nestedPageFault],
]);
