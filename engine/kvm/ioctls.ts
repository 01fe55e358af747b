/**
 * What userspace does to a vCPU: creating it, setting its registers, queueing
 * events, restoring nested state, and looking at it.
 *
 * @module
 */
import { type Capabilities, MAPPED_AT, S, sameCapabilities, V } from "../svm/machine.ts";
import { OK, type Policy, runWay } from "../policy.ts";
import { EFER, REQ, RFLAGS } from "./constants.ts";
import { validCr0, validCr4, validEfer } from "./control_registers.ts";
import { payloadQuirk, processNmi, queueInterrupt } from "./queue.ts";
import { initMmu, resetContext } from "./mmu.ts";
import { legalGpa, loadPdptrs, readPdptrs } from "../paging/pdptrs.ts";
import { ROLE } from "../paging/roles.ts";
import { initMerged } from "./msrpm.ts";
import { leaveNested } from "./nested_state.ts";
import { setGif } from "./control.ts";
import { setCr0, setCr4, setEfer } from "./regs.ts";
import { initVcpu } from "./reset.ts";
import { reportedAttributes, segmentAt, SEGMENTS, setSegment } from "./segments.ts";
import { Vcpu } from "./vcpu.ts";
import { markDirty } from "./control.ts";
import { CLEAN } from "./constants.ts";

/** EINVAL. */
const EINVAL = 22;

/** Every ioctl loads the vCPU, which asks for the steal time to be updated. */
export function touch(v: Vcpu): void {
  if (v.traits.updatesStealTime) v.request(REQ.STEAL_UPDATE);
}

/**
 * Creates a vCPU and gives it its CPUID (KVM_CREATE_VCPU, KVM_SET_CPUID2).
 *
 * @param caps What the processor and the hypervisor can do.
 * @param policy The policy.
 * @param spare A vCPU that nobody needs any more: it becomes this one, if it has the same capabilities.
 * @returns The vCPU, in its reset state.
 */
export function createVcpu(caps: Capabilities, policy: Policy, spare?: Vcpu): Vcpu {
  const v = spare !== undefined && spare.policy === policy && sameCapabilities(spare.caps, caps)
    ? spare
    : new Vcpu(caps, policy);
  if (v === spare) v.reset();
  return powerOn(v);
}

/**
 * Ends a vCPU and creates another in its place, with the guest memory of the one that is gone.
 *
 * @param v The vCPU.
 * @returns The same object, in its reset state.
 */
export function recreateVcpu(v: Vcpu): Vcpu {
  v.restart();
  return powerOn(v);
}

function powerOn(v: Vcpu): Vcpu {
  v.set32(V.active, 1);
  initMerged(v);
  initVcpu(v, false);
  initMmu(v);
  for (
    const bit of [REQ.MIGRATE_TIMER, REQ.MASTERCLOCK_UPDATE, REQ.GLOBAL_CLOCK_UPDATE]
  ) v.request(bit);
  // Setting CPUID invalidates the roles of every MMU.
  v.set32(V.guest_root_role, v.traits.invalidatesRoles ? ROLE.INVALID : 0);
  resetContext(v);
  touch(v);
  return v;
}

/** Registers that KVM_SET_SREGS loads. */
export interface Sregs {
  /** CR0. */
  readonly cr0: bigint;
  /** CR3. */
  readonly cr3: bigint;
  /** CR4. */
  readonly cr4: bigint;
  /** EFER. */
  readonly efer: bigint;
  /** Segment registers to set; the others keep what KVM_GET_SREGS gave. */
  readonly segments: Readonly<
    Record<string, { selector: number; attrib: number; limit: number; base: bigint }>
  >;
}

// What KVM_GET_SREGS gave of each segment register. Filled in anew each time.
const shown = SEGMENTS.map((name) => ({ name, selector: 0, attrib: 0, limit: 0, base: 0n }));

function validSregs(v: Vcpu, s: Sregs): boolean {
  const lme = (s.efer & BigInt(EFER.LME)) !== 0n, lma = (s.efer & BigInt(EFER.LMA)) !== 0n;
  const paging = (s.cr0 & 0x80000000n) !== 0n;
  if (lme && paging) {
    if ((s.cr4 & 0x20n) === 0n || !lma || !legalGpa(v, s.cr3)) return false;
  } else {
    const cs = s.segments["cs"]?.attrib ?? reportedAttributes(v, "cs");
    if (lma || (cs & 0x200) !== 0) return false;
  }
  return validCr4(v, s.cr4) && validCr0(s.cr0) &&
    (!v.traits.checksEferOfSregs || validEfer(v, s.efer));
}

/**
 * Loads control registers and segments (KVM_GET_SREGS, changed, KVM_SET_SREGS).
 *
 * @param v The vCPU.
 * @param s What to load; undefined for what is only known to have been refused.
 * @returns 0, or EINVAL when they do not go together.
 */
export function setSregs(v: Vcpu, s: Sregs | undefined): number {
  touch(v);
  if (v.traits.showsPayloads) payloadQuirk(v);
  if (s === undefined || !validSregs(v, s)) return EINVAL;
  const vector = v.u8(V.interrupt_injected) !== 0 && v.u8(V.interrupt_soft) === 0
    ? v.u8(V.interrupt_vector)
    : -1;
  for (const row of shown) {
    const { name } = row;
    if (s.segments[name] !== undefined) continue;
    const at = segmentAt(v, name);
    row.attrib = reportedAttributes(v, name);
    row.selector = v.u16(at);
    row.limit = v.u32(at + 4);
    row.base = v.u64(at + 8);
  }
  if (loadSregs(v, s, true)) resetAfterSregs(v);
  if (vector >= 0) {
    queueInterrupt(v, vector, false);
    v.requestEvent();
  }
  return 0;
}

function resetAfterSregs(v: Vcpu): void {
  resetContext(v);
  if (v.traits.flushesOnSregs) v.request(REQ.TLB_FLUSH_GUEST);
}

/** Loads what KVM_SET_SREGS and KVM_SET_SREGS2 have in common; whether the MMU must be set up anew. */
function loadSregs(v: Vcpu, s: Sregs, pdptrs: boolean): boolean {
  const vmcb = v.vmcb;
  v.set32(vmcb + S.idtr_limit, v.u32(vmcb + S.idtr_limit) & 0xffff);
  v.set32(vmcb + S.gdtr_limit, v.u32(vmcb + S.gdtr_limit) & 0xffff);
  markDirty(v, vmcb, CLEAN.DT);
  let reset = v.u64(V.cr3) !== s.cr3;
  v.set64(V.cr3, s.cr3);
  reset ||= v.u64(V.efer) !== s.efer;
  setEfer(v, Number(s.efer & 0xffffffffn), Number(s.efer >> 32n));
  reset ||= v.u64(V.cr0) !== s.cr0;
  setCr0(v, Number(s.cr0));
  reset ||= v.u64(V.cr4) !== s.cr4;
  setCr4(v, Number(s.cr4));
  if (pdptrs && v.paePaging) {
    loadPdptrs(v, v.u64(V.cr3));
    reset = true;
  }
  for (const row of shown) {
    const given = s.segments[row.name] ?? row;
    setSegment(v, row.name, given.selector, given.attrib, given.limit, given.base);
  }
  return reset;
}

/** What KVM_GET_SREGS2 gives and KVM_SET_SREGS2 takes: all segments, and the PDPTEs. */
export interface Sregs2 extends Sregs {
  /** Address of the last page fault. */
  readonly cr2: bigint;
  /** Task priority. */
  readonly cr8: bigint;
  /** Limit and base of the global descriptor table. */
  readonly gdt: { readonly limit: number; readonly base: bigint };
  /** The same of the interrupt descriptor table. */
  readonly idt: { readonly limit: number; readonly base: bigint };
  /** The four PDPTEs, of a vCPU with PAE paging. */
  readonly pdptrs: readonly bigint[] | undefined;
}

/**
 * Reads control registers, segments and PDPTEs (KVM_GET_SREGS2).
 *
 * @param v The vCPU.
 * @returns They.
 */
export function getSregs2(v: Vcpu): Sregs2 {
  touch(v);
  if (v.traits.showsPayloads) payloadQuirk(v);
  const { vmcb } = v;
  const table = (limit: number) => ({
    limit: v.u32(vmcb + limit) & 0xffff,
    base: v.u64(vmcb + limit + 4),
  });
  const segments = Object.fromEntries(SEGMENTS.map((name) => {
    const at = segmentAt(v, name);
    return [name, {
      selector: v.u16(at),
      attrib: reportedAttributes(v, name),
      limit: v.u32(at + 4),
      base: v.u64(at + 8),
    }];
  }));
  if (v.paePaging) readPdptrs(v);
  return {
    cr0: v.u64(V.cr0),
    cr2: v.u64(V.cr2),
    cr3: v.u64(V.cr3),
    cr4: v.u64(V.cr4),
    cr8: v.u64(V.cr8),
    efer: v.u64(V.efer),
    segments,
    gdt: table(S.gdtr_limit),
    idt: table(S.idtr_limit),
    pdptrs: v.paePaging ? [0, 8, 16, 24].map((at) => v.u64(V.pdptr0 + at)) : undefined,
  };
}

/**
 * Loads control registers, segments and PDPTEs (KVM_SET_SREGS2).
 *
 * @param v The vCPU.
 * @param s What to load.
 * @returns 0, or EINVAL when they do not go together.
 */
export function setSregs2(v: Vcpu, s: Sregs2): number {
  touch(v);
  if (!validSregs(v, s)) return EINVAL;
  const { vmcb } = v;
  for (const [limit, table] of [[S.gdtr_limit, s.gdt], [S.idtr_limit, s.idt]] as const) {
    v.set32(vmcb + limit, table.limit);
    v.set64(vmcb + limit + 4, table.base);
  }
  v.set64(V.cr2, s.cr2);
  let reset = loadSregs(v, s, s.pdptrs === undefined);
  v.set64(V.cr8, s.cr8);
  if (s.pdptrs !== undefined) {
    s.pdptrs.forEach((entry, i) => v.set64(V.pdptr0 + 8 * i, entry));
    v.set8(V.pdptrs_valid, 1);
    v.set8(V.pdptrs_from_userspace, 1);
    reset = true;
  }
  if (reset) resetAfterSregs(v);
  return 0;
}

/** Loads the general registers, all others 0 (KVM_SET_REGS). */
export function setRegs(
  v: Vcpu,
  r: { rip: bigint; rax: bigint; rsp: bigint; rflags: bigint },
): void {
  touch(v);
  v.zero(V.rax, V.rax + 128);
  v.set16(V.unknown_registers, 0);
  v.set64(V.rax, r.rax);
  v.set64(V.rsp, r.rsp);
  v.set64(V.rip, r.rip);
  v.set64(v.vmcb + S.rflags, r.rflags | BigInt(RFLAGS.FIXED));
  v.set8(V.exception_pending, 0);
  v.set8(V.vmexit_pending, 0);
  v.requestEvent();
}

/** Sets VM_HSAVE_PA (svm_set_msr): of what userspace hands in, only the offset in the page is dropped. */
export function setHsave(v: Vcpu, value: bigint): void {
  touch(v);
  v.set64(V.hsave_msr, value & ~0xfffn);
}

/**
 * Restores nested state outside guest mode: GIF alone.
 *
 * @returns 0, or EINVAL.
 */
export function clearNestedState(v: Vcpu, gif: boolean): number {
  touch(v);
  if ((v.u32(V.efer) & EFER.SVME) === 0 && !gif && !v.traits.restoresGifWithoutSvme) return EINVAL;
  leaveNested(v);
  setGif(v, gif);
  return 0;
}

/** Queues an NMI (KVM_NMI). */
export function queueNmi(v: Vcpu): void {
  touch(v);
  v.set32(V.nmi_queued, v.u32(V.nmi_queued) + 1);
  v.request(REQ.NMI);
}

/**
 * Queues an interrupt (KVM_INTERRUPT).
 *
 * @returns 0, or EINVAL for a vector above 255.
 */
export function interrupt(v: Vcpu, vector: number): number {
  touch(v);
  if (vector > 255) return EINVAL;
  queueInterrupt(v, vector, false);
  v.requestEvent();
  return 0;
}

/** Queues an SMI (KVM_SMI). */
export function queueSmi(v: Vcpu): void {
  touch(v);
  v.request(REQ.SMI);
}

/**
 * What looking at a vCPU through the ioctls changes in it before registers are shown
 * (KVM_GET_SREGS, KVM_GET_VCPU_EVENTS).
 */
export function look(v: Vcpu): void {
  touch(v);
  if (v.traits.showsPayloads) payloadQuirk(v);
  processNmi(v);
  if (v.take(REQ.SMI)) {
    v.set8(V.smi_pending, 1);
    v.requestEvent();
  }
}

/** What it changes after they were shown. */
export function looked(v: Vcpu): void {
  if (!v.traits.showsPayloads) payloadQuirk(v);
}

/**
 * Restores nested state in guest mode (KVM_SET_NESTED_STATE): the policy's
 * `setstate` list.
 *
 * @param v The vCPU.
 * @param flags KVM_STATE_NESTED_* flags.
 * @param vmcb12 Address of vmcb12.
 * @param state L2's control area and L1's save area, laid out as a VMCB.
 * @returns 0, or EINVAL.
 */
export function setNestedState(v: Vcpu, flags: number, vmcb12: bigint, state: Uint8Array): number {
  touch(v);
  if ((v.u32(V.efer) & EFER.SVME) === 0 || v.smm) return EINVAL;
  if ((vmcb12 & 0xfffn) !== 0n || !legalGpa(v, vmcb12)) return EINVAL;
  v.recorder?.giveUp();
  v.bytes.set(state, MAPPED_AT);
  v.restoreFlags = flags;
  v.set64(V.pending_vmcb12_gpa, vmcb12);
  v.fromVmrun = false;
  const outcome = runWay(v, "setstate");
  v.observer?.inner("setstate", outcome === OK ? 0 : v.failedRet, v);
  return outcome === OK ? 0 : -v.failedRet;
}
