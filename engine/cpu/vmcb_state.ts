/**
 * VMRUN's loading of a VMCB, the reasons to refuse it, and #VMEXIT's write-back.
 *
 * @module
 */
import { EFER } from "../svm/bits.ts";
import { hostCpuid, hostPhysicalBits, type Machine, V, VMCB01_AT } from "../svm/machine.ts";
import { ATTR, CR4_VALID, EFER_VALID, EXIT, NEXT, REFUSED, SEG } from "./constants.ts";
import type { Paging } from "../paging/paging.ts";
import type { Processor } from "./processor.ts";
import { CONTROL, GPR, SAVE } from "./vmcb_words.ts";

const HIGH = 0x1_0000_0000;

// VMRUN and VMLOAD sign-extend segment bases from the processor's 57 address bits.
const CANONICAL_SHIFT = 64 - 57;

/**
 * VMRUN: loads the VMCB and refuses it where the processor does, in the order
 * of QEMU's helper_vmrun. The bitmaps' addresses are the hypervisor's own and
 * are not checked.
 *
 * @returns NEXT, or EXIT or REFUSED with the exit code set.
 */
export function load(cpu: Processor, m: Machine, vmcb: number, paging: Paging): number {
  attach(cpu, m, vmcb, paging);
  const words = m.words;
  const at = cpu.at;
  const word = (index: number) => words[at + index] as number;
  // Nothing of the guest is loaded yet: the save area stays as it is.
  if ((word(CONTROL.word4) & 1) === 0 || word(CONTROL.asid) === 0) return refuseEarly(cpu);
  if (word(SAVE.cr0 + 1) !== 0 || (word(SAVE.cr0) & 0x60000000) === 0x20000000) {
    return refuseEarly(cpu);
  }
  if (word(SAVE.cr3 + 1) >>> hostPhysicalBits(m.caps) - 32 !== 0) return refuseEarly(cpu);
  if (word(SAVE.cr4 + 1) !== 0 || (word(SAVE.cr4) & ~CR4_VALID) !== 0) return refuseEarly(cpu);
  words[at + CONTROL.info2] = 0;
  words[at + CONTROL.info2 + 1] = 0;
  loadState(cpu);
  if (word(SAVE.dr6 + 1) !== 0 || word(SAVE.dr7 + 1) !== 0 || invalidEfer(cpu)) return refuse(cpu);
  if (!cpu.model.ignoresInterruptShadow) cpu.inhibit = (word(CONTROL.intState) & 1) !== 0;
  cpu.virq = hasVirq(cpu);
  cpu.vgif = (cpu.intCtl & 1 << 25) === 0 || (cpu.intCtl & 1 << 9) !== 0;
  return NEXT;
}

/** Ties the processor to a VMCB without touching it. */
export function attach(cpu: Processor, m: Machine, vmcb: number, paging: Paging): void {
  cpu.m = m;
  cpu.vmcb = vmcb;
  cpu.at = vmcb >> 2;
  cpu.paging = paging;
  cpu.oldException = -1;
  cpu.inhibit = false;
  cpu.injected = false;
  cpu.checksDpl = false;
  cpu.isException = false;
  cpu.external = 0;
  cpu.hostSegmentsDirty = false;
  cpu.armed = m.u8(V.breakpoints_armed);
  cpu.unknown = m.u16(V.unknown_registers);
  cpu.hits = 0;
  cpu.translations.flush(m.memory);
}

/** Loads the guest's registers from the attached VMCB, the vCPU area and vmcb01. */
export function loadState(cpu: Processor): void {
  const words = cpu.m.words;
  const at = cpu.at;
  const word = (index: number) => words[at + index] as number;
  cpu.cr0 = (word(SAVE.cr0) | 0x10) >>> 0;
  cpu.cr4 = word(SAVE.cr4);
  cpu.cr3 = word(SAVE.cr3 + 1) * HIGH + word(SAVE.cr3);
  cpu.cr2Lo = word(SAVE.cr2);
  cpu.cr2Hi = word(SAVE.cr2 + 1);
  cpu.intCtl = word(CONTROL.intCtl);
  cpu.efer = word(SAVE.efer);
  cpu.rflags = word(SAVE.rflags) | 2;
  const host = (VMCB01_AT >> 2) + SAVE.segments;
  for (let i = 0; i < 10; i++) {
    const fromHost = i === SEG.fs || i === SEG.gs || i === SEG.ldtr || i === SEG.tr;
    loadSegment(cpu, i, (fromHost ? host : at + SAVE.segments) + i * 4);
  }
  cpu.cpl = cpu.model.cplFromSs
    ? (cpu.attrib[SEG.ss] as number) >> 5 & 3
    : cpu.m.u8(cpu.vmcb + SAVE.cpl) & 3;
  cpu.setWidth();
  cpu.ripLo = word(SAVE.rip);
  cpu.ripHi = word(SAVE.rip + 1);
  const gpr = cpu.gpr;
  for (let i = 2; i < 32; i++) gpr[i] = words[GPR + i] as number;
  gpr[0] = word(SAVE.rax);
  gpr[1] = word(SAVE.rax + 1);
  gpr[8] = word(SAVE.rsp);
  gpr[9] = word(SAVE.rsp + 1);
  cpu.dr6 = word(SAVE.dr6);
  cpu.dr7 = word(SAVE.dr7);
}

function loadSegment(cpu: Processor, i: number, from: number): void {
  const words = cpu.m.words;
  const first = words[from] as number;
  cpu.selector[i] = first & 0xffff;
  cpu.attrib[i] = first >>> 16 & 0xfff;
  cpu.limit[i] = words[from + 1] as number;
  cpu.segBase[i * 2] = words[from + 2] as number;
  const high = words[from + 3] as number;
  cpu.segBase[i * 2 + 1] = (high << CANONICAL_SHIFT) >> CANONICAL_SHIFT;
}

function invalidEfer(cpu: Processor): boolean {
  const efer = cpu.efer;
  const valid = cpu.model.refusesLmsle || hostCpuid(cpu.m.caps).has("lmsle_mbz")
    ? EFER_VALID & ~EFER.LMSLE
    : EFER_VALID;
  if ((efer & 1 << 12) === 0 || (efer & ~valid) !== 0) return true;
  if (cpu.m.words[cpu.at + SAVE.efer + 1] !== 0) return true;
  if ((efer & 1 << 8) === 0 || cpu.cr0 < 0x80000000) return false;
  const both = ATTR.l | ATTR.db;
  return (cpu.cr4 & 0x20) === 0 || (cpu.cr0 & 1) === 0 ||
    ((cpu.attrib[SEG.cs] as number) & both) === both;
}

function hasVirq(cpu: Processor): boolean {
  const ctl = cpu.intCtl;
  if ((ctl & 0x100) === 0) return false;
  if ((ctl & 1 << 20) !== 0) return true;
  const priority = ctl >>> 16 & 15;
  const tpr = ctl & 15;
  // The manual leaves open what becomes of equal priorities; every emulator takes the interrupt.
  return priority >= tpr;
}

/** Whether #VMEXIT saves the next RIP, and an injected soft event returns to it. */
export function savesNextRip(cpu: Processor): boolean {
  return !cpu.model.savesNoNextRip && hostCpuid(cpu.m.caps).has("nrip_save");
}

/** Writes the task priority, which may make a virtual interrupt deliverable. */
export function setTaskPriority(cpu: Processor, value: number): void {
  cpu.intCtl = cpu.intCtl & ~15 | value & 15;
  cpu.virq = hasVirq(cpu);
}

/** #VMEXIT with VMEXIT_INVALID. */
export function invalidExit(cpu: Processor): number {
  cpu.vmexit(0xffffffff, 0);
  if (!cpu.model.invalidExitCode32) cpu.m.words[cpu.at + CONTROL.exitCode + 1] = 0xffffffff;
  return EXIT;
}

function refuseEarly(cpu: Processor): number {
  invalidExit(cpu);
  finishControl(cpu);
  return REFUSED;
}

/** Refuses VMRUN after the guest's state was loaded. */
export function refuse(cpu: Processor): number {
  if (cpu.model.leaksHostRip) {
    cpu.ripLo = (cpu.ripLo & 0xfffff000 | (cpu.m.caps.vmrunRip ?? 0)) >>> 0;
  }
  return invalidExit(cpu);
}

/** #VMEXIT's write-back of the guest's state to the VMCB (QEMU's do_vmexit). */
export function writeBack(cpu: Processor): void {
  const words = cpu.m.words;
  const at = cpu.at;
  const segments = at + SAVE.segments;
  for (let i = 0; i < 4; i++) storeSegment(cpu, i, segments + i * 4);
  storeTable(cpu, SEG.gdtr, segments + SEG.gdtr * 4);
  storeTable(cpu, SEG.idtr, segments + SEG.idtr * 4);
  if (cpu.hostSegmentsDirty) {
    const host = (VMCB01_AT >> 2) + SAVE.segments;
    for (const i of [SEG.fs, SEG.gs, SEG.ldtr, SEG.tr]) storeSegment(cpu, i, host + i * 4);
  }
  words[at + SAVE.efer] = cpu.efer;
  words[at + SAVE.cr0] = cpu.cr0;
  words[at + SAVE.cr0 + 1] = 0;
  words[at + SAVE.cr2] = cpu.cr2Lo;
  words[at + SAVE.cr2 + 1] = cpu.cr2Hi;
  const cr3Lo = cpu.cr3 % HIGH;
  words[at + SAVE.cr3] = cr3Lo;
  words[at + SAVE.cr3 + 1] = (cpu.cr3 - cr3Lo) / HIGH;
  words[at + SAVE.cr4] = cpu.cr4;
  words[at + SAVE.rflags] = cpu.rflags;
  words[at + SAVE.rflags + 1] = 0;
  words[at + SAVE.rip] = cpu.ripLo;
  words[at + SAVE.rip + 1] = cpu.ripHi;
  const gpr = cpu.gpr;
  words[at + SAVE.rsp] = gpr[8] as number;
  words[at + SAVE.rsp + 1] = gpr[9] as number;
  words[at + SAVE.rax] = gpr[0] as number;
  words[at + SAVE.rax + 1] = gpr[1] as number;
  words[at + SAVE.dr6] = cpu.dr6;
  words[at + SAVE.dr7] = cpu.dr7;
  cpu.m.bytes[cpu.vmcb + SAVE.cpl] = cpu.cpl;
  // RAX and RSP live in the VMCB; the others in the vCPU area.
  for (let i = 2; i < 32; i++) if (i !== 8 && i !== 9) words[GPR + i] = gpr[i] as number;
  words[at + CONTROL.intCtl] = cpu.intCtl;
  words[at + CONTROL.intState] = cpu.inhibit ? 1 : 0;
  finishControl(cpu);
}

function finishControl(cpu: Processor): void {
  const words = cpu.m.words;
  const at = cpu.at;
  const event = words[at + CONTROL.eventInj] as number;
  const kept = event >= 0x80000000 || cpu.model.keepsEventBits;
  words[at + CONTROL.exitIntInfo] = kept ? event : 0;
  words[at + CONTROL.exitIntInfo + 1] = kept ? words[at + CONTROL.eventInj + 1] as number : 0;
  words[at + CONTROL.eventInj] = 0;
}

function storeTable(cpu: Processor, i: number, to: number): void {
  const words = cpu.m.words;
  words[to + 1] = cpu.limit[i] as number;
  words[to + 2] = cpu.segBase[i * 2] as number;
  words[to + 3] = cpu.segBase[i * 2 + 1] as number;
}

function storeSegment(cpu: Processor, i: number, to: number): void {
  cpu.m.words[to] = (cpu.selector[i] as number) | (cpu.attrib[i] as number) << 16;
  storeTable(cpu, i, to);
}
