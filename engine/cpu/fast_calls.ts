/**
 * SYSCALL, SYSRET, SYSENTER and SYSEXIT.
 *
 * @module
 */
import { S, VMCB01_AT } from "../svm/machine.ts";
import { next } from "./branch.ts";
import { FLAG, NEXT, SEG } from "./constants.ts";
import { gp, ud } from "./faults.ts";
import type { Processor } from "./processor.ts";
import { loadSegment } from "./segments.ts";

/** High halves of the descriptors that they load: 32-bit and 64-bit code, and a stack. */
const CODE32 = 0x00cf9b00, CODE64 = 0x00af9b00, STACK = 0x00cf9300;
/** The same for CPL 3. */
const DPL3 = 0x6000;

/** What SYSRET takes from R11. */
const RETURNED = FLAG.tf | FLAG.ac | 1 << 21 | FLAG.if | FLAG.iopl | FLAG.vm | FLAG.rf | FLAG.nt |
  FLAG.cf | FLAG.pf | FLAG.af | FLAG.zf | FLAG.sf | FLAG.of | FLAG.df;

const SCE = 1;

function msr(cpu: Processor, at: number): number {
  return cpu.m.u32(VMCB01_AT + at);
}

function segments(cpu: Processor, cs: number, code: number, ss: number, dpl: number): void {
  loadSegment(cpu, SEG.cs, cs, 0xffff, code | dpl);
  loadSegment(cpu, SEG.ss, ss, 0xffff, STACK | dpl);
}

function goOn(cpu: Processor, lo: number, hi: number): number {
  next.lo = lo >>> 0;
  next.hi = hi >>> 0;
  cpu.endOfBlock = true;
  return NEXT;
}

/** SYSCALL. */
export function syscall(cpu: Processor): number {
  if ((cpu.efer & SCE) === 0) return ud(cpu);
  const selector = msr(cpu, S.star + 4) & 0xffff;
  cpu.gpr[2] = next.lo;
  cpu.gpr[3] = next.hi;
  if (!cpu.longMode) {
    cpu.gpr[3] = 0;
    cpu.rflags &= ~(FLAG.if | FLAG.rf | FLAG.vm);
    segments(cpu, selector & 0xfffc, CODE32, selector + 8 & 0xfffc, 0);
    return goOn(cpu, msr(cpu, S.star), 0);
  }
  cpu.gpr[22] = (cpu.rflags & ~FLAG.rf) >>> 0;
  cpu.gpr[23] = 0;
  const target = cpu.width === 64 ? S.lstar : S.cstar;
  cpu.rflags = cpu.rflags & ~(msr(cpu, S.sfmask) | FLAG.rf) | 2;
  segments(cpu, selector & 0xfffc, CODE64, selector + 8 & 0xfffc, 0);
  return goOn(cpu, msr(cpu, target), msr(cpu, target + 4));
}

/** SYSRET. */
export function sysret(cpu: Processor): number {
  if (!cpu.protectedMode) return gp(cpu);
  if ((cpu.efer & SCE) === 0) return ud(cpu);
  if (cpu.cpl !== 0) return gp(cpu);
  const selector = msr(cpu, S.star + 4) >>> 16;
  const stack = (selector + 8 | 3) & 0xffff;
  const [lo, hi] = [cpu.gpr[2] as number, cpu.gpr[3] as number];
  const wide = cpu.longMode && cpu.insn.dflag === 3;
  if (cpu.longMode) {
    cpu.rflags = cpu.rflags & ~RETURNED | (cpu.gpr[22] as number) & RETURNED | 2;
  } else cpu.rflags |= FLAG.if;
  const code = (wide ? selector + 16 : selector) | 3;
  segments(cpu, code & 0xffff, wide ? CODE64 : CODE32, stack, DPL3);
  return goOn(cpu, lo, wide ? hi : 0);
}

/** Whether the processor has no SYSENTER and SYSEXIT in this mode. */
function legacyOnly(cpu: Processor): boolean {
  return cpu.longMode && (cpu.width === 64 || !cpu.model.sysenterInCompatibility);
}

/** SYSENTER, which AMD has in legacy mode only. */
export function sysenter(cpu: Processor): number {
  if (legacyOnly(cpu)) return ud(cpu);
  const selector = msr(cpu, S.sysenter_cs);
  if (!cpu.protectedMode || selector === 0) return gp(cpu);
  cpu.rflags &= ~(FLAG.vm | FLAG.if | FLAG.rf);
  const long = cpu.longMode;
  segments(cpu, selector & 0xfffc, long ? CODE64 : CODE32, selector + 8 & 0xfffc, 0);
  cpu.gpr[8] = msr(cpu, S.sysenter_esp);
  cpu.gpr[9] = long ? msr(cpu, S.sysenter_esp + 4) : 0;
  return goOn(cpu, msr(cpu, S.sysenter_eip), long ? msr(cpu, S.sysenter_eip + 4) : 0);
}

/** SYSEXIT, which AMD has in legacy mode only. */
export function sysexit(cpu: Processor): number {
  if (legacyOnly(cpu)) return ud(cpu);
  const selector = msr(cpu, S.sysenter_cs);
  if (!cpu.protectedMode || selector === 0 || cpu.cpl !== 0) return gp(cpu);
  segments(cpu, selector + 16 & 0xfffc | 3, CODE32, selector + 24 & 0xfffc | 3, DPL3);
  cpu.gpr[8] = cpu.gpr[2] as number;
  cpu.gpr[9] = 0;
  return goOn(cpu, cpu.gpr[4] as number, 0);
}
