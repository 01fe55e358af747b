/**
 * Live migration as userspace does it: all state of a vCPU is read, its virtual
 * machine torn down, and the state restored into a new one, by the ioctls and in
 * the order of QEMU's kvm_arch_get_registers and kvm_arch_put_registers.
 *
 * @module
 */
import { C, S, V, VMCB01_AT, VMCB12_AT } from "../svm/machine.ts";
import { SAVE_AREA, VMCB_SIZE } from "../svm/vmcb_fields.ts";
import { HF, REQ, RFLAGS } from "./constants.ts";
import { gif } from "./control.ts";
import {
  clearNestedState,
  getSregs2,
  recreateVcpu,
  setHsave,
  setNestedState,
  setSregs2,
  type Sregs2,
  touch,
} from "./ioctls.ts";
import { setPat } from "./msrs.ts";
import { leaveNested } from "./nested_state.ts";
import { payloadQuirk, processNmi, toldNmis } from "./queue.ts";
import { loadRflags, rflags, updateDr7 } from "./regs.ts";
import { setNmiMask, smmChanged } from "./smm.ts";
import type { Vcpu } from "./vcpu.ts";

/** KVM_STATE_NESTED_* flags. */
const NESTED = { guestMode: 1, runPending: 2, gif: 0x100 } as const;

/** Nested state as KVM_GET_NESTED_STATE gives it and KVM_SET_NESTED_STATE takes it. */
export interface NestedState {
  /** KVM_STATE_NESTED_* flags. */
  readonly flags: number;
  /** Address of vmcb12; 0 outside guest mode. */
  readonly vmcb_pa: bigint;
  /** In guest mode: the cached control area of vmcb12, and vmcb01's save area, laid out as a VMCB. */
  readonly state: Uint8Array | undefined;
}

/** Queued events as KVM_GET_VCPU_EVENTS gives them. */
export interface SavedEvents {
  /** The exception that waits or was injected, with its error code. */
  readonly exception: { injected: boolean; vector: number; hasError: number; error: bigint };
  /** The interrupt, and whether the next instruction is in its shadow. */
  readonly interrupt: { injected: boolean; vector: number; shadow: boolean };
  /** NMIs. */
  readonly nmi: { injected: number; pending: number; masked: boolean };
  /** SMIs, and whether the vCPU handles one. */
  readonly smi: { smm: boolean; pending: number; insideNmi: boolean };
}

/** Everything that userspace reads of a vCPU before it goes. */
export interface SavedVcpu {
  /** KVM_GET_NESTED_STATE. */
  readonly nested: NestedState;
  /** KVM_GET_REGS: general registers and RIP, 136 bytes as the vCPU area has them. */
  readonly registers: Uint8Array;
  /** RFLAGS. */
  readonly rflags: bigint;
  /** KVM_GET_SREGS2. */
  readonly sregs: Sregs2;
  /** KVM_GET_DEBUGREGS: DR0 to DR3, DR6, DR7, 48 bytes as the vCPU area has them. */
  readonly debugRegisters: Uint8Array;
  /** KVM_GET_VCPU_EVENTS. */
  readonly events: SavedEvents;
  /** VM_HSAVE_PA. */
  readonly hsave: bigint;
  /** The page attribute table. */
  readonly pat: bigint;
}

/** errno of each ioctl of a restore; 0 when KVM took it. */
export interface RestoreErrnos {
  /** KVM_SET_SREGS2. */
  readonly sregs_errno: number;
  /** KVM_SET_NESTED_STATE. */
  readonly errno: number;
  /** KVM_SET_REGS. */
  readonly regs_errno: number;
  /** KVM_SET_VCPU_EVENTS. */
  readonly events_errno: number;
  /** KVM_SET_DEBUGREGS. */
  readonly debugregs_errno: number;
}

/** EINVAL. */
const EINVAL = 22;

/**
 * Reads nested state (KVM_GET_NESTED_STATE).
 *
 * @param v The vCPU.
 * @returns It.
 */
export function getNestedState(v: Vcpu): NestedState {
  touch(v);
  const set = gif(v) ? NESTED.gif : 0;
  if (!v.guestMode) return { flags: set, vmcb_pa: 0n, state: undefined };
  const pending = v.u8(V.run_pending) !== 0 ? NESTED.runPending : 0;
  const state = new Uint8Array(VMCB_SIZE);
  state.set(v.bytes.subarray(VMCB12_AT, VMCB12_AT + SAVE_AREA));
  // What L1 keeps there for itself is not in KVM's copy.
  state.fill(0, C.clean, C.clean + 4);
  state.set(v.bytes.subarray(VMCB01_AT + SAVE_AREA, VMCB01_AT + VMCB_SIZE), SAVE_AREA);
  return { flags: NESTED.guestMode | pending | set, vmcb_pa: v.u64(V.vmcb12_gpa), state };
}

function getEvents(v: Vcpu): SavedEvents {
  touch(v);
  const forExit = v.u8(V.vmexit_pending) !== 0 && v.u8(V.exception_pending) === 0 &&
    v.u8(V.exception_injected) === 0;
  processNmi(v);
  if (v.take(REQ.SMI)) {
    v.set8(V.smi_pending, 1);
    v.requestEvent();
  }
  payloadQuirk(v);
  const at = forExit ? V.vmexit_pending : V.exception_pending;
  const vector = v.u32(forExit ? V.vmexit_vector : V.exception_vector);
  // Those whose instruction KVM would run again are not told of. What waits is told as injected.
  const told = vector !== 3 && vector !== 4;
  const waits = v.u8(at) !== 0 || !forExit && v.u8(V.exception_injected) !== 0;
  return {
    exception: {
      injected: told && waits,
      vector,
      hasError: v.u8(forExit ? V.vmexit_has_error : V.exception_has_error),
      error: v.u64(forExit ? V.vmexit_error : V.exception_error),
    },
    interrupt: {
      injected: v.u8(V.interrupt_injected) !== 0 && v.u8(V.interrupt_soft) === 0,
      vector: v.u8(V.interrupt_vector),
      shadow: (v.u32(v.vmcb + C.int_state) & 1) !== 0,
    },
    nmi: {
      injected: v.u8(V.nmi_injected),
      pending: toldNmis(v),
      masked: v.u8(V.nmi_masked) !== 0,
    },
    smi: {
      smm: v.smm,
      pending: v.u8(V.smi_pending),
      insideNmi: (v.u32(V.hflags) & HF.SMM_INSIDE_NMI) !== 0,
    },
  };
}

function setEvents(v: Vcpu, { exception, interrupt, nmi, smi }: SavedEvents): number {
  touch(v);
  if (exception.injected && (exception.vector > 31 || exception.vector === 2)) return EINVAL;
  processNmi(v);
  v.set8(V.vmexit_pending, 0);
  v.set8(V.exception_injected, exception.injected ? 1 : 0);
  v.set8(V.exception_pending, 0);
  v.set32(V.exception_vector, exception.vector);
  v.set8(V.exception_has_error, exception.hasError);
  v.set64(V.exception_error, exception.error);
  v.set8(V.exception_has_payload, 0);
  v.set64(V.exception_payload, 0n);
  v.set8(V.interrupt_injected, interrupt.injected ? 1 : 0);
  v.set8(V.interrupt_vector, interrupt.vector);
  v.set8(V.interrupt_soft, 0);
  if (interrupt.shadow) v.or32(v.vmcb + C.int_state, 1);
  else v.clear32(v.vmcb + C.int_state, 1);
  v.set8(V.nmi_injected, nmi.injected);
  v.set32(V.nmi_pending, 0);
  v.set32(V.nmi_queued, nmi.pending);
  if (nmi.pending !== 0) v.request(REQ.NMI);
  setNmiMask(v, nmi.masked);
  if (v.smm !== smi.smm) {
    leaveNested(v);
    smmChanged(v, smi.smm);
  }
  v.set8(V.smi_pending, smi.pending);
  if (smi.smm) {
    if (smi.insideNmi) v.or32(V.hflags, HF.SMM_INSIDE_NMI);
    else v.clear32(V.hflags, HF.SMM_INSIDE_NMI);
  }
  v.requestEvent();
  return 0;
}

/** Bytes of the general registers and RIP in the vCPU area. */
const REGISTERS = 136;
/** Bytes of DR0 to DR3, DR6 and DR7. */
const DEBUG_REGISTERS = V.dr7 + 8 - V.dr0;

/**
 * Reads everything of a vCPU.
 *
 * @param v The vCPU.
 * @returns Its state.
 */
export function saveVcpu(v: Vcpu): SavedVcpu {
  touch(v);
  const registers = v.bytes.slice(V.rax, V.rax + REGISTERS);
  const flags = BigInt(v.u32(v.vmcb + S.rflags + 4)) << 32n | BigInt(rflags(v) >>> 0);
  const sregs = getSregs2(v);
  if (v.traits.showsPayloads) payloadQuirk(v);
  const debugRegisters = v.bytes.slice(V.dr0, V.dr0 + DEBUG_REGISTERS);
  const events = getEvents(v);
  const nested = getNestedState(v);
  return {
    nested,
    registers,
    rflags: flags,
    sregs,
    debugRegisters,
    events,
    hsave: v.u64(V.hsave_msr),
    pat: PAT,
  };
}

/** The page attribute table as it is after a reset, which no guest here changes. */
const PAT = 0x0007_0406_0007_0406n;

/**
 * Ends the vCPU and restores its state into a new one with the same guest memory, all of which was
 * written on the way.
 *
 * @param v The vCPU; it becomes the new one.
 * @param saved What was read of it.
 * @param nested The nested state to hand in, where it was changed on the way.
 * @returns What each ioctl returned.
 */
export function restoreVcpu(
  v: Vcpu,
  saved: SavedVcpu,
  nested: NestedState = saved.nested,
): RestoreErrnos {
  recreateVcpu(v);
  const sregs_errno = setSregs2(v, saved.sregs);
  const errno = setNested(v, nested);
  touch(v);
  v.bytes.set(saved.registers, V.rax);
  v.set64(V.pending_vmcb12_gpa, saved.rflags | BigInt(RFLAGS.FIXED));
  loadRflags(v, V.pending_vmcb12_gpa);
  v.set8(V.exception_pending, 0);
  v.set8(V.vmexit_pending, 0);
  v.requestEvent();
  setHsave(v, saved.hsave);
  restorePat(v, saved.pat);
  const events_errno = setEvents(v, saved.events);
  v.requestEvent();
  touch(v);
  v.bytes.set(saved.debugRegisters, V.dr0);
  updateDr7(v);
  return { sregs_errno, errno, regs_errno: 0, events_errno, debugregs_errno: 0 };
}

function setNested(v: Vcpu, { flags, vmcb_pa, state }: NestedState): number {
  if (state !== undefined) return setNestedState(v, flags, vmcb_pa, state);
  if ((flags & NESTED.runPending) === 0) return clearNestedState(v, (flags & NESTED.gif) !== 0);
  // Only an L2 can have a run that is pending.
  touch(v);
  return EINVAL;
}

/** Sets the page attribute table. */
function restorePat(v: Vcpu, pat: bigint): void {
  touch(v);
  setPat(v, pat);
}
