/**
 * RESET and INIT of a vCPU (kvm_vcpu_reset, init_vmcb).
 *
 * @module
 */
import { C, canUse, type Capabilities, hostCpuid, S, V, VMCB01_AT } from "../svm/machine.ts";
import { VMCB_SIZE } from "../svm/vmcb_fields.ts";
import {
  CR0,
  DR6_ACTIVE_LOW,
  DR7_FIXED,
  HOST,
  HOST_HIGH,
  INT_CTL,
  INTERCEPT,
  REQ,
  RFLAGS,
} from "./constants.ts";
import { clearExceptions, clearInterrupt } from "./queue.ts";
import { resetContext } from "./mmu.ts";
import { setMap } from "./msrpm.ts";
import { leaveNested } from "./nested_state.ts";
import { markAllDirty } from "./control.ts";
import { setCr0, setCr4, setEfer, updateDr7 } from "./regs.ts";
import type { Vcpu } from "./vcpu.ts";

const ALL_ONES = 0xffffffffffffffffn;

/** What L0 always intercepts, whatever the paging. */
const INTERCEPTS = [
  INTERCEPT.CR0_READ,
  INTERCEPT.CR4_READ,
  INTERCEPT.CR0_WRITE,
  INTERCEPT.CR4_WRITE,
  INTERCEPT.CR8_WRITE,
  INTERCEPT.EXCEPTION + 1,
  INTERCEPT.EXCEPTION + 6,
  INTERCEPT.EXCEPTION + 17,
  INTERCEPT.EXCEPTION + 18,
  INTERCEPT.INTR,
  INTERCEPT.NMI,
  INTERCEPT.SMI,
  INTERCEPT.SELECTIVE_CR0,
  INTERCEPT.RDPMC,
  INTERCEPT.CPUID,
  INTERCEPT.RSM,
  INTERCEPT.INVD,
  INTERCEPT.HLT,
  INTERCEPT.INVLPGA,
  INTERCEPT.IOIO_PROT,
  INTERCEPT.MSR_PROT,
  INTERCEPT.TASK_SWITCH,
  INTERCEPT.SHUTDOWN,
  INTERCEPT.VMRUN,
  INTERCEPT.VMMCALL,
  INTERCEPT.VMLOAD,
  INTERCEPT.VMSAVE,
  INTERCEPT.SKINIT,
  INTERCEPT.WBINVD,
  INTERCEPT.MONITOR,
  INTERCEPT.MWAIT,
  INTERCEPT.XSETBV,
  INTERCEPT.RDPRU,
] as const;

/** What L0 intercepts besides under shadow paging. */
const SHADOW_INTERCEPTS = [
  INTERCEPT.CR3_READ,
  INTERCEPT.CR3_WRITE,
  INTERCEPT.EXCEPTION + 14,
  INTERCEPT.INVLPG,
] as const;

/** What L0 intercepts for what L1's CPUID lacks (svm_recalc_instruction_intercepts). */
function cpuidIntercepts(caps: Capabilities): number[] {
  const host = hostCpuid(caps);
  const bits: number[] = [];
  if (host.has("invpcid") && (!caps.npt || !canUse(caps, "invpcid"))) bits.push(INTERCEPT.INVPCID);
  if (host.has("rdtscp") && !canUse(caps, "rdtscp")) bits.push(INTERCEPT.RDTSCP);
  return bits;
}

/** What L0 intercepts until the guest has SVM on. */
const VGIF_INTERCEPTS = [INTERCEPT.STGI, INTERCEPT.CLGI] as const;

function initVmcb(v: Vcpu): void {
  const at = VMCB01_AT;
  for (const bit of INTERCEPTS) v.or32(at + (bit >> 5) * 4, 1 << (bit & 31));
  const { interceptsIcebp, recalcsByRequest } = v.traits;
  if (interceptsIcebp) v.or32(at + C.intercept_word4, 1 << (INTERCEPT.ICEBP & 31));
  if (recalcsByRequest) {
    for (const bit of VGIF_INTERCEPTS) v.or32(at + C.intercept_word4, 1 << (bit & 31));
  }
  if (!v.caps.npt) {
    for (const bit of SHADOW_INTERCEPTS) v.or32(at + (bit >> 5) * 4, 1 << (bit & 31));
  }
  for (const bit of cpuidIntercepts(v.caps)) v.or32(at + (bit >> 5) * 4, 1 << (bit & 31));
  v.set32(at + C.intercept_dr, 0x00ff00ff);
  v.set32(at + C.iopm_base_pa, HOST.IOPM);
  v.set32(at + C.iopm_base_pa + 4, HOST_HIGH);
  setMap(v, at, HOST.MSRPM);
  v.set32(at + C.int_ctl, INT_CTL.V_INTR_MASKING | INT_CTL.V_GIF_ENABLE | INT_CTL.V_GIF);
  for (const seg of [S.es_selector, S.ss_selector, S.ds_selector, S.fs_selector, S.gs_selector]) {
    setSegment(v, at + seg, 0, 0x92, 0n);
  }
  setSegment(v, at + S.cs_selector, 0xf000, 0x9a, 0xffff0000n);
  setSegment(v, at + S.ldtr_selector, 0, 0x82, 0n);
  setSegment(v, at + S.tr_selector, 0, 0x83, 0n);
  for (const table of [S.gdtr_selector, S.idtr_selector]) {
    v.set32(at + table + 4, 0xffff);
    v.set64(at + table + 8, 0n);
  }
  if (v.caps.npt) {
    v.or32(at + C.nested_ctl, 1);
    v.set64(at + S.g_pat, 0x0007040600070406n);
    v.set64(at + S.cr3, 0n);
  }
  v.set64(V.vmcb12_gpa, ALL_ONES);
  v.set64(V.last_vmcb12_gpa, ALL_ONES);
  markAllDirty(v, at);
}

function setSegment(v: Vcpu, at: number, selector: number, attrib: number, base: bigint): void {
  v.set16(at, selector);
  v.set16(at + 2, attrib);
  v.set32(at + 4, 0xffff);
  v.set64(at + 8, base);
}

/** INIT after a shutdown (shutdown_interception): the active VMCB is wiped, then made anew. */
export function resetVcpu(v: Vcpu): void {
  v.zero(v.vmcb, v.vmcb + VMCB_SIZE);
  if (v.smm) {
    v.clear32(V.hflags, 6);
    v.requestEvent();
    v.set8(V.pdptrs_from_userspace, 0);
    resetContext(v);
  }
  initVcpu(v, true);
}

/**
 * RESET (`init` false, at creation) or INIT of a vCPU.
 *
 * @param v The vCPU.
 * @param init Whether it is an INIT.
 */
export function initVcpu(v: Vcpu, init: boolean): void {
  const oldCr0 = v.u32(V.cr0);
  if (v.guestMode) leaveNested(v);
  v.set32(V.hflags, 0);
  v.set8(V.smi_pending, 0);
  v.set32(V.nmi_queued, 0);
  v.set32(V.nmi_pending, 0);
  v.set8(V.nmi_injected, 0);
  clearInterrupt(v);
  clearExceptions(v);
  for (const at of [V.dr0, V.dr1, V.dr2, V.dr3]) v.set64(at, 0n);
  v.set64(V.dr6, BigInt(DR6_ACTIVE_LOW));
  v.set64(V.dr7, BigInt(DR7_FIXED));
  v.set64(V.cr2, 0n);
  v.requestEvent();
  if (!init) v.set64(V.smbase, 0x30000n);
  v.zero(V.rax, V.rax + 128);
  v.set64(V.rdx, init ? CPUID_1_EAX : 0x600n);
  initVmcb(v);
  updateDr7(v);
  // Where hflags have it, INIT clears it with the others.
  if (!init || v.traits.flags.nmiMasked !== 0) v.set8(V.nmi_masked, 0);
  if (!init || v.traits.flags.awaitingIret !== 0) v.set8(V.awaiting_iret, 0);
  if (v.traits.recalcsByRequest) v.request(REQ.RECALC_INTERCEPTS);
  else v.set8(V.msrpm_recalc, 1);
  v.set64(v.vmcb + S.rflags, BigInt(RFLAGS.FIXED));
  v.requestEvent();
  v.set64(V.rip, 0xfff0n);
  v.set64(V.cr3, 0n);
  setCr0(v, init ? CR0.ET | oldCr0 & (CR0.NW | CR0.CD) : CR0.ET | CR0.NW | CR0.CD);
  setCr4(v, 0);
  setEfer(v, 0);
  if ((oldCr0 & CR0.PG) !== 0) {
    v.request(REQ.TLB_FLUSH_GUEST);
    resetContext(v);
  }
  if (init) v.request(REQ.TLB_FLUSH_GUEST);
}

/** Family, model and stepping of the modelled CPU, which INIT leaves in RDX. */
const CPUID_1_EAX = 0x60fb1n;
