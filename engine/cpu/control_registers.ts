/**
 * Moves to and from control and debug registers.
 *
 * @module
 */
import { hostPhysicalBits, V } from "../svm/machine.ts";
import { CR4_VALID, EXIT, EXIT_CODE, NEXT } from "./constants.ts";
import { arm } from "./breakpoints.ts";
import { PREFIX } from "./decode.ts";
import { gp, ud } from "./faults.ts";
import { getRegister, setRegister } from "./operands.ts";
import type { Processor } from "./processor.ts";
import { invalidExit, setTaskPriority } from "./vmcb_state.ts";

const HIGH = 0x1_0000_0000;

/** MOV to and from a control register. */
export function moveControl(cpu: Processor, write: boolean): number {
  const insn = cpu.insn;
  if (cpu.cpl !== 0) return gp(cpu);
  let register = insn.reg;
  if (register === 0 && (insn.prefixes & PREFIX.lock) !== 0) register = 8;
  if (register !== 0 && (register < 2 || register > 4) && register !== 8) return ud(cpu);
  const size = cpu.width === 64 ? 8 : 4;
  const unseen = !write && register === 3 && cpu.model.cr3ReadNeedsWrite &&
    !cpu.intercepted(EXIT_CODE.writeCr + register);
  if (!unseen && cpu.check((write ? EXIT_CODE.writeCr : EXIT_CODE.readCr) + register)) return EXIT;
  if (!write) {
    let lo = 0;
    let hi = 0;
    if (register === 0) lo = cpu.cr0;
    else if (register === 2) [lo, hi] = [cpu.cr2Lo, cpu.cr2Hi];
    else if (register === 3) {
      lo = cpu.cr3 % HIGH;
      hi = (cpu.cr3 - lo) / HIGH;
    } else if (register === 4) lo = cpu.cr4;
    else lo = cpu.intCtl & 15;
    setRegister(cpu, insn.rm, size, lo, hi);
    return NEXT;
  }
  getRegister(cpu, insn.rm, size);
  const lo = cpu.lo;
  const hi = cpu.hi;
  cpu.endOfBlock = true;
  switch (register) {
    case 0:
      return writeCr0(cpu, lo, hi);
    case 2:
      cpu.cr2Lo = lo;
      cpu.cr2Hi = hi;
      return NEXT;
    case 3:
      if (cpu.longMode && hi >>> hostPhysicalBits(cpu.m.caps) - 32 !== 0) return invalid(cpu);
      cpu.cr3 = (cpu.longMode ? hi * HIGH : 0) + lo;
      return NEXT;
    case 4:
      if (hi !== 0 || (lo & ~CR4_VALID) !== 0) return invalid(cpu);
      cpu.cr4 = lo;
      return NEXT;
  }
  setTaskPriority(cpu, lo);
  return NEXT;
}

/** A value that VMRUN would refuse too. */
function invalid(cpu: Processor): number {
  return cpu.model.badControlRegisterExits ? invalidExit(cpu) : gp(cpu);
}

/** Writes CR0: the selective intercept, then long mode. */
export function writeCr0(cpu: Processor, lo: number, hi: number): number {
  const changed = lo ^ cpu.cr0;
  if (cpu.intercepted(EXIT_CODE.cr0Write) && ((changed & ~0xa) !== 0 || hi !== 0)) {
    return cpu.vmexit(EXIT_CODE.cr0Write, 0);
  }
  const pg = 0x80000000;
  if (cpu.cr0 < pg && lo >= pg && (cpu.efer & 0x100) !== 0) {
    if ((cpu.cr4 & 0x20) === 0) return NEXT;
    cpu.efer |= 0x400;
  } else if (cpu.cr0 >= pg && lo < pg && cpu.longMode) {
    cpu.efer &= ~0x400;
  }
  cpu.cr0 = (lo | 0x10) >>> 0;
  cpu.setWidth();
  cpu.endOfBlock = true;
  return NEXT;
}

/** MOV to and from a debug register. */
export function moveDebug(cpu: Processor, write: boolean): number {
  const insn = cpu.insn;
  if (cpu.cpl !== 0) return gp(cpu);
  let register = insn.reg;
  if (register >= 8) return ud(cpu);
  if (cpu.check((write ? EXIT_CODE.writeDr : EXIT_CODE.readDr) + register)) return EXIT;
  const size = cpu.width === 64 ? 8 : 4;
  if (register === 4 || register === 5) {
    if ((cpu.cr4 & 8) !== 0) return ud(cpu);
    register += 2;
  }
  const at = (V.dr0 >> 2) + register * 2;
  if (!write) {
    if (register === 6) setRegister(cpu, insn.rm, size, cpu.dr6, 0);
    else if (register === 7) setRegister(cpu, insn.rm, size, cpu.dr7, 0);
    else setRegister(cpu, insn.rm, size, cpu.m.word(at), cpu.m.word(at + 1));
    return NEXT;
  }
  getRegister(cpu, insn.rm, size);
  cpu.endOfBlock = true;
  if (register < 4) {
    cpu.m.setWord(at, cpu.lo);
    cpu.m.setWord(at + 1, cpu.hi);
    return NEXT;
  }
  if (cpu.hi !== 0) return gp(cpu);
  if (register === 6) cpu.dr6 = (cpu.lo | 0xffff0ff0) >>> 0;
  else {
    cpu.dr7 = (cpu.lo | 0x400) >>> 0;
    arm(cpu);
  }
  return NEXT;
}
