/**
 * System management mode: entering it on an SMI, and RSM, with the part that
 * nested SVM adds to both.
 *
 * @module
 */
import { C, canUse, S, V } from "../svm/machine.ts";
import { END, OK, runWay } from "../policy.ts";
import { CLEAN, CR0, CR4, DR7_FIXED, EFER, EXIT, HF, INTERCEPT, REQ, RFLAGS } from "./constants.ts";
import { setGuestCr0, setGuestCr3, setGuestCr4, setGuestEfer } from "./control_registers.ts";
import { resetContext } from "./mmu.ts";
import { leaveNested } from "./nested_state.ts";
import { clearIntercept, markDirty, setIntercept } from "./control.ts";
import { rflags, setCr0, setCr4, setEfer, updateDr7 } from "./regs.ts";
import {
  fromSmram,
  reportedAttributes,
  segmentAt,
  SEGMENTS,
  setSegment,
  toSmram,
} from "./segments.ts";
import { loadState32, type Resumed, saveState32 } from "./smram_32.ts";
import type { Vcpu } from "./vcpu.ts";
import { simpleVmexit } from "./vmexit.ts";

/** Bytes of the state save area. */
export const SMRAM_SIZE = 512;

/** Offsets in the 64-bit state save area (KVM's struct kvm_smram_state_64). */
export const SMRAM = {
  gdtr: 0x60,
  idtr: 0x80,
  int_shadow: 0xcb,
  efer: 0xd0,
  svm_guest_flag: 0xd8,
  svm_guest_vmcb_gpa: 0xe0,
  smm_revision: 0xfc,
  smbase: 0x100,
  cr4: 0x148,
  cr3: 0x150,
  cr0: 0x158,
  dr7: 0x160,
  dr6: 0x168,
  rflags: 0x170,
  rip: 0x178,
  gprs: 0x180,
} as const;

const SEGMENT_AT = {
  es: 0,
  cs: 0x10,
  ss: 0x20,
  ds: 0x30,
  fs: 0x40,
  gs: 0x50,
  ldtr: 0x70,
  tr: 0x90,
};

/** System management mode began or ended (kvm_smm_changed). */
export function smmChanged(v: Vcpu, entering: boolean): void {
  if (entering) {
    v.or32(V.hflags, HF.SMM);
  } else {
    v.clear32(V.hflags, HF.SMM | HF.SMM_INSIDE_NMI);
    v.requestEvent();
    v.set8(V.pdptrs_from_userspace, 0);
  }
  resetContext(v);
}

function save(v: Vcpu, to: DataView): void {
  const put = (at: number, from: number) => to.setBigUint64(at, v.u64(from), true);
  for (let i = 0; i < 16; i++) put(SMRAM.gprs + (15 - i) * 8, V.rax + i * 8);
  put(SMRAM.rip, V.rip);
  put(SMRAM.rflags, v.vmcb + S.rflags);
  to.setUint32(SMRAM.rflags, rflags(v), true);
  put(SMRAM.dr6, V.dr6);
  put(SMRAM.dr7, V.dr7);
  put(SMRAM.cr0, V.cr0);
  put(SMRAM.cr3, V.cr3);
  put(SMRAM.cr4, V.cr4);
  to.setUint32(SMRAM.smbase, v.u32(V.smbase), true);
  to.setUint32(SMRAM.smm_revision, 0x00020064, true);
  put(SMRAM.efer, V.efer);
  for (const name of SEGMENTS) {
    const from = segmentAt(v, name), at = SEGMENT_AT[name];
    to.setUint16(at, v.u16(from), true);
    to.setUint16(at + 2, toSmram(reportedAttributes(v, name)), true);
    to.setUint32(at + 4, v.u32(from + 4), true);
    to.setBigUint64(at + 8, v.u64(from + 8), true);
  }
  for (const [at, from] of [[SMRAM.gdtr, S.gdtr_limit], [SMRAM.idtr, S.idtr_limit]] as const) {
    to.setUint32(at + 4, v.u32(v.vmcb + from) & 0xffff, true);
    to.setBigUint64(at + 8, v.u64(v.vmcb + from + 4), true);
  }
  if (!v.traits.keepsShadowInSmram) return;
  to.setUint8(SMRAM.int_shadow, (v.u32(v.vmcb + C.int_state) & 1) !== 0 ? 3 : 0);
}

/** Whether the guest's CPUID has long mode, for which SMRAM is laid out otherwise. */
function hasLongMode(v: Vcpu): boolean {
  return canUse(v.caps, "lm");
}

/** Enters SMM (enter_smm): out of L2 first, if it runs (svm_enter_smm). */
export function enterSmm(v: Vcpu): void {
  v.recorder?.giveUp();
  const area = new Uint8Array(SMRAM_SIZE);
  const view = new DataView(area.buffer);
  if (hasLongMode(v)) save(v, view);
  else saveState32(v, view);
  if (v.guestMode && !leaveL2(v, view) && v.traits.givesUpFailedSmi) {
    v.request(REQ.VM_DEAD);
    return;
  }
  smmChanged(v, true);
  const smbase = v.u32(V.smbase);
  v.memory.writeBytes(smbase + 0xfe00, area);
  if (v.u8(V.nmi_masked) !== 0) v.or32(V.hflags, HF.SMM_INSIDE_NMI);
  else setNmiMask(v, true);
  v.set64(v.vmcb + S.rflags, BigInt(RFLAGS.FIXED));
  v.requestEvent();
  v.set64(V.rip, 0x8000n);
  v.clear32(v.vmcb + C.int_state, 1);
  setCr0(v, v.u32(V.cr0) & ~(CR0.PE | CR0.EM | CR0.TS | CR0.PG));
  setCr4(v, 0);
  v.set32(v.vmcb + S.idtr_limit, 0);
  v.set64(v.vmcb + S.idtr_base, 0n);
  markDirty(v, v.vmcb, CLEAN.DT);
  v.set64(V.dr7, BigInt(DR7_FIXED));
  updateDr7(v);
  setSegment(v, "cs", smbase >>> 4 & 0xffff, 0x893, 0xffffffff, BigInt(smbase));
  for (const name of ["ds", "es", "fs", "gs", "ss"] as const) {
    setSegment(v, name, 0, 0x893, 0xffffffff, 0n);
  }
  if (hasLongMode(v)) setEfer(v, 0);
  resetContext(v);
}

/** What svm_enter_smm adds while L2 runs: a #VMEXIT, and L1's state into the host save area. */
function leaveL2(v: Vcpu, area: DataView): boolean {
  if (v.traits.needsLongModeForSmi && !hasLongMode(v)) return false;
  area.setBigUint64(SMRAM.svm_guest_flag, 1n, true);
  area.setBigUint64(SMRAM.svm_guest_vmcb_gpa, v.u64(V.vmcb12_gpa), true);
  v.copy64(v.vmcb + S.rax, V.rax);
  v.copy64(v.vmcb + S.rsp, V.rsp);
  v.copy64(v.vmcb + S.rip, V.rip);
  if (!simpleVmexit(v, EXIT.SW)) return false;
  const hsave = v.u32(V.hsave_msr) + v.u32(V.hsave_msr + 4) * 2 ** 32;
  const page = hsave - hsave % 4096;
  if (!v.memory.backed(page, 4096)) return false;
  copyRunState(v, v.memory.writable(page), 0, v.bytes, v.vmcb);
  return true;
}

/** Ranges of the save area that VMRUN handles (svm_copy_vmrun_state), from the start of a VMCB. */
const RUN_STATE = [
  [S.es_selector, 64],
  [S.gdtr_selector, 16],
  [S.idtr_selector, 16],
  [S.efer, 8],
  [S.cr4, 24],
  [S.rflags, 16],
  [S.rsp, 8],
  [S.rax, 8],
] as const;

/** Copies the state that VMRUN handles from one VMCB-shaped page to another (svm_copy_vmrun_state). */
export function copyRunState(
  _v: Vcpu,
  to: Uint8Array,
  toAt: number,
  from: Uint8Array,
  fromAt: number,
): void {
  for (const [at, length] of RUN_STATE) {
    to.set(from.subarray(fromAt + at, fromAt + at + length), toAt + at);
  }
  to[toAt + S.rflags] = (to[toAt + S.rflags] as number) | RFLAGS.FIXED;
  to[toAt + S.cpl] = 0;
}

/** Masks or unmasks NMIs (svm_set_nmi_mask). */
export function setNmiMask(v: Vcpu, masked: boolean): void {
  v.set8(V.nmi_masked, masked ? 1 : 0);
  if (masked) setIntercept(v, INTERCEPT.IRET);
  else clearIntercept(v, INTERCEPT.IRET);
}

/** P in a segment's attributes, and G: its limit counts pages. */
const CS_PRESENT = 0x80, PAGES = 0x800;

/**
 * RSM (emulator_leave_smm): back to real mode, then into L2 if the SMI hit it
 * (the policy's `rsm` list), then the registers of the state save area. Even
 * when it fails, and the vCPU shuts down, it completes as an instruction: with
 * the RIP behind it, or the one of the state save area if that was read already.
 *
 * @returns Whether it left a mode that the emulator knows; if not, it writes nothing back and
 * gives the instruction up.
 */
export function leaveSmm(v: Vcpu): boolean {
  const to: Resumed = {
    rip: v.u64(V.rip) + 2n & 0xffffffffn,
    rflags: BigInt((rflags(v) & ~RFLAGS.RF) >>> 0),
    shadow: false,
    gprs: undefined,
  };
  const loaded = resume(v, to);
  const left = v.traits.failedRsmLeavesL2 && v.guestMode && to.gprs !== undefined;
  if (!loaded && left) leaveNested(v);
  if (!loaded) v.request(REQ.TRIPLE_FAULT);
  if ((loaded || !v.traits.failedRsmCompletes) && !possible(v, to)) return false;
  if (!v.code64) to.rip &= 0xffffffffn;
  if (to.gprs !== undefined) to.gprs.forEach((value, i) => v.set64(V.rax + i * 8, value));
  v.set64(V.rip, to.rip);
  v.set64(v.vmcb + S.rflags, to.rflags);
  if (to.shadow) v.or32(v.vmcb + C.int_state, 1);
  else v.clear32(v.vmcb + C.int_state, 1);
  return true;
}

/** Whether the emulator knows the mode that RSM left (emulator_recalc_and_set_mode). */
function possible(v: Vcpu, to: Resumed): boolean {
  if ((v.u32(V.cr0) & CR0.PE) === 0) return !v.longMode;
  if ((to.rflags & BigInt(RFLAGS.VM)) !== 0n) return !v.longMode;
  return (v.u16(v.vmcb + S.cs_attrib) & CS_PRESENT) !== 0;
}

function resume(v: Vcpu, to: Resumed): boolean {
  v.recorder?.giveUp();
  const start = v.u32(V.smbase) + 0xfe00;
  if (!v.memory.backed(start, SMRAM_SIZE)) return false;
  const area = new Uint8Array(SMRAM_SIZE);
  for (let i = 0; i < SMRAM_SIZE; i++) area[i] = v.memory.read8(start + i);
  const view = new DataView(area.buffer);
  if ((v.u32(V.hflags) & HF.SMM_INSIDE_NMI) === 0) setNmiMask(v, false);
  smmChanged(v, false);
  toRealMode(v);
  return enterL2(v, area, view) && load(v, view, to);
}

function toRealMode(v: Vcpu): void {
  const wide = hasLongMode(v);
  if (wide && (v.u32(V.cr4) & CR4.PCIDE) !== 0) {
    setGuestCr4(v, BigInt((v.u32(V.cr4) & ~CR4.PCIDE) >>> 0));
  }
  if (wide) setSegment(v, "cs", 0, 0x89b, v.traits.rsmCutsLimits ? 0xfff : 0, 0n);
  const cr0 = v.u32(V.cr0);
  if ((cr0 & CR0.PE) !== 0) setGuestCr0(v, BigInt((cr0 & ~(CR0.PG | CR0.PE)) >>> 0));
  if (!wide) return;
  const cr4 = v.u32(V.cr4);
  if ((cr4 & CR4.PAE) !== 0) setGuestCr4(v, BigInt((cr4 & ~CR4.PAE) >>> 0));
  setGuestEfer(v, 0n, false);
}

/** The nested part (svm_leave_smm). */
function enterL2(v: Vcpu, area: Uint8Array, view: DataView): boolean {
  if (!hasLongMode(v) || view.getBigUint64(SMRAM.svm_guest_flag, true) === 0n) return true;
  v.smram = area;
  v.fromVmrun = false;
  const outcome = runWay(v, "rsm");
  v.smram = undefined;
  if (outcome !== END) v.observer?.inner("rsm", outcome === OK ? 0 : v.failedRet, v);
  return outcome === OK;
}

function load(v: Vcpu, from: DataView, to: Resumed): boolean {
  if (!hasLongMode(v)) {
    const [cr0, cr3, cr4] = loadState32(v, from, to) as [bigint, bigint, bigint];
    if (!enterProtectedMode(v, cr0, cr3, cr4)) return false;
    v.clear32(v.vmcb + C.int_state, 1);
    return true;
  }
  const get = (at: number) => from.getBigUint64(at, true);
  to.gprs = Array.from({ length: 16 }, (_, i) => get(SMRAM.gprs + (15 - i) * 8));
  to.rip = get(SMRAM.rip);
  to.rflags = get(SMRAM.rflags) | BigInt(RFLAGS.FIXED);
  const dr6 = get(SMRAM.dr6), dr7 = get(SMRAM.dr7);
  if (dr6 >> 32n !== 0n) return false;
  v.set64(V.dr6, dr6 & 0xe00fn | 0xffff0ff0n);
  if (dr7 >> 32n !== 0n) return false;
  v.set64(V.dr7, dr7 & 0xffff2bffn | BigInt(DR7_FIXED));
  updateDr7(v);
  v.set64(V.smbase, BigInt(from.getUint32(SMRAM.smbase, true)));
  if (!setGuestEfer(v, get(SMRAM.efer) & ~BigInt(EFER.LMA), false)) return false;
  loadSegment(v, from, "tr");
  loadTable(v, from, SMRAM.idtr, S.idtr_limit);
  loadSegment(v, from, "ldtr");
  loadTable(v, from, SMRAM.gdtr, S.gdtr_limit);
  if (!enterProtectedMode(v, get(SMRAM.cr0), get(SMRAM.cr3), get(SMRAM.cr4))) return false;
  for (const name of ["es", "cs", "ss", "ds", "fs", "gs"] as const) loadSegment(v, from, name);
  v.clear32(v.vmcb + C.int_state, 1);
  to.shadow = v.traits.keepsShadowInSmram && from.getUint8(SMRAM.int_shadow) !== 0;
  return true;
}

function loadSegment(v: Vcpu, from: DataView, name: keyof typeof SEGMENT_AT): void {
  const at = SEGMENT_AT[name];
  const attrib = fromSmram(from.getUint16(at + 2, true));
  const limit = from.getUint32(at + 4, true);
  const pages = (attrib & PAGES) !== 0 ? (limit << 12 | 0xfff) >>> 0 : limit & 0xfffff;
  setSegment(
    v,
    name,
    from.getUint16(at, true),
    attrib,
    v.traits.rsmCutsLimits ? pages : limit,
    from.getBigUint64(at + 8, true),
  );
}

function loadTable(v: Vcpu, from: DataView, at: number, limit: number): void {
  v.set32(v.vmcb + limit, from.getUint32(at + 4, true) & 0xffff);
  v.set64(v.vmcb + limit + 4, from.getBigUint64(at + 8, true));
  markDirty(v, v.vmcb, CLEAN.DT);
}

/** What RSM loads into a control register: some kernels keep the high half that it has. */
function loaded(v: Vcpu, at: number, value: bigint): bigint {
  if (!v.traits.rsmKeepsHighHalves) return value;
  return value & 0xffffffffn | BigInt(v.u32(at + 4)) << 32n;
}

function enterProtectedMode(v: Vcpu, saved0: bigint, cr3: bigint, saved4: bigint): boolean {
  const cr0 = loaded(v, V.cr0, saved0), cr4 = loaded(v, V.cr4, saved4);
  const pcide = BigInt(CR4.PCIDE);
  const pcid = (cr4 & pcide) !== 0n ? cr3 & 0xfffn : 0n;
  if (!setGuestCr3(v, cr3 & ~pcid)) return false;
  if (!setGuestCr4(v, cr4 & ~pcide)) return false;
  if (!setGuestCr0(v, cr0)) return false;
  if ((cr4 & pcide) === 0n) return true;
  if (!setGuestCr4(v, cr4)) return false;
  return pcid === 0n || setGuestCr3(v, cr3);
}
