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
import { loadCarried, storeCarried } from "./carried.ts";
import { CONTROL, SAVE } from "./vmcb_words.ts";

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
  const at = cpu.at;
  const word = (index: number) => m.word(at + index);
  // Nothing of the guest is loaded yet: the save area stays as it is.
  if ((word(CONTROL.word4) & 1) === 0 || word(CONTROL.asid) === 0) return refuseEarly(cpu);
  if (word(SAVE.cr0 + 1) !== 0 || (word(SAVE.cr0) & 0x60000000) === 0x20000000) {
    return refuseEarly(cpu);
  }
  if (word(SAVE.cr3 + 1) >>> hostPhysicalBits(m.caps) - 32 !== 0) return refuseEarly(cpu);
  if (word(SAVE.cr4 + 1) !== 0 || (word(SAVE.cr4) & ~CR4_VALID) !== 0) return refuseEarly(cpu);
  m.setWord(at + CONTROL.info2, 0);
  m.setWord(at + CONTROL.info2 + 1, 0);
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
  cpu.refusedEarly = false;
  cpu.armed = m.u8(V.breakpoints_armed);
  cpu.unknown = m.u16(V.unknown_registers);
  cpu.hits = 0;
  cpu.translations.flush(m.memory);
}

/** Loads the guest's registers from the attached VMCB, the vCPU area and vmcb01. */
export function loadState(cpu: Processor): void {
  const { m, at } = cpu;
  const word = (index: number) => m.word(at + index);
  cpu.cr0 = (word(SAVE.cr0) | 0x10) >>> 0;
  cpu.cr4 = word(SAVE.cr4);
  cpu.cr3 = word(SAVE.cr3 + 1) * HIGH + word(SAVE.cr3);
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
  loadCarried(cpu);
  cpu.dr6 = word(SAVE.dr6);
  cpu.dr7 = word(SAVE.dr7);
}

function loadSegment(cpu: Processor, i: number, from: number): void {
  const { m } = cpu;
  const first = m.word(from);
  cpu.selector[i] = first & 0xffff;
  cpu.attrib[i] = first >>> 16 & 0xfff;
  cpu.limit[i] = m.word(from + 1);
  cpu.segBase[i * 2] = m.word(from + 2);
  const high = m.word(from + 3);
  cpu.segBase[i * 2 + 1] = (high << CANONICAL_SHIFT) >> CANONICAL_SHIFT;
}

function invalidEfer(cpu: Processor): boolean {
  const efer = cpu.efer;
  const valid = cpu.model.refusesLmsle || hostCpuid(cpu.m.caps).has("lmsle_mbz")
    ? EFER_VALID & ~EFER.LMSLE
    : EFER_VALID;
  if ((efer & 1 << 12) === 0 || (efer & ~valid) !== 0) return true;
  if (cpu.m.word(cpu.at + SAVE.efer + 1) !== 0) return true;
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
  if (!cpu.model.invalidExitCode32) cpu.m.setWord(cpu.at + CONTROL.exitCode + 1, 0xffffffff);
  return EXIT;
}

function refuseEarly(cpu: Processor): number {
  cpu.refusedEarly = true;
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
  const { m, at } = cpu;
  const segments = at + SAVE.segments;
  storeSegments(cpu);
  storeTable(cpu, SEG.gdtr, segments + SEG.gdtr * 4);
  storeTable(cpu, SEG.idtr, segments + SEG.idtr * 4);
  m.setWord(at + SAVE.efer, cpu.efer);
  m.setWord(at + SAVE.cr0, cpu.cr0);
  m.setWord(at + SAVE.cr0 + 1, 0);
  const cr3Lo = cpu.cr3 % HIGH;
  m.setWord(at + SAVE.cr3, cr3Lo);
  m.setWord(at + SAVE.cr3 + 1, (cpu.cr3 - cr3Lo) / HIGH);
  m.setWord(at + SAVE.cr4, cpu.cr4);
  m.setWord(at + SAVE.rflags, cpu.rflags);
  m.setWord(at + SAVE.rflags + 1, 0);
  m.setWord(at + SAVE.rip, cpu.ripLo);
  m.setWord(at + SAVE.rip + 1, cpu.ripHi);
  m.setWord(at + SAVE.dr6, cpu.dr6);
  m.setWord(at + SAVE.dr7, cpu.dr7);
  m.set8(cpu.vmcb + SAVE.cpl, cpu.cpl);
  storeCarried(cpu);
  m.setWord(at + CONTROL.intCtl, cpu.intCtl);
  m.setWord(at + CONTROL.intState, cpu.inhibit ? 1 : 0);
  finishControl(cpu);
}

/** Writes the segment registers back: ES to DS to the VMCB, the others, where they changed, to vmcb01. */
export function storeSegments(cpu: Processor): void {
  const segments = cpu.at + SAVE.segments;
  for (let i = 0; i < 4; i++) storeSegment(cpu, i, segments + i * 4);
  if (!cpu.hostSegmentsDirty) return;
  const host = (VMCB01_AT >> 2) + SAVE.segments;
  for (const i of [SEG.fs, SEG.gs, SEG.ldtr, SEG.tr]) storeSegment(cpu, i, host + i * 4);
}

function finishControl(cpu: Processor): void {
  const { m, at } = cpu;
  const event = m.word(at + CONTROL.eventInj);
  const kept = event >= 0x80000000 || cpu.model.keepsEventBits;
  m.setWord(at + CONTROL.exitIntInfo, kept ? event : 0);
  m.setWord(at + CONTROL.exitIntInfo + 1, kept ? m.word(at + CONTROL.eventInj + 1) : 0);
  m.setWord(at + CONTROL.eventInj, 0);
}

function storeTable(cpu: Processor, i: number, to: number): void {
  const { m } = cpu;
  m.setWord(to + 1, cpu.limit[i] as number);
  m.setWord(to + 2, cpu.segBase[i * 2] as number);
  m.setWord(to + 3, cpu.segBase[i * 2 + 1] as number);
}

function storeSegment(cpu: Processor, i: number, to: number): void {
  cpu.m.setWord(to, (cpu.selector[i] as number) | (cpu.attrib[i] as number) << 16);
  storeTable(cpu, i, to);
}
