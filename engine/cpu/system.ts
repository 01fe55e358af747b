/**
 * Instructions that the system is made of: privilege, #UD and intercepts come in
 * QEMU's order.
 *
 * @module
 */
import { CR4, EFER } from "../svm/bits.ts";
import { LAB_CPUID } from "../svm/cpuid.ts";
import { hostPhysicalBits } from "../svm/machine.ts";
import { next } from "./branch.ts";
import { EXIT, EXIT_CODE, FLAG, HALTED, NEXT, SEG, UNMODELLED, VECTOR } from "./constants.ts";
import { moveControl, moveDebug, writeCr0 } from "./control_registers.ts";
import { PREFIX } from "./decode.ts";
import { farReturn } from "./far_transfer.ts";
import { gp, ud } from "./faults.ts";
import { checkIopl, interruptReturn, popFlags, pushFlags } from "./flags_return.ts";
import { syscall, sysenter, sysexit, sysret } from "./fast_calls.ts";
import { msr, swapGs } from "./msr.ts";
import { address, effectiveAddress, getOperand, setOperand, setRegister } from "./operands.ts";
import { dx, portAccess } from "./port_io.ts";
import type { Processor } from "./processor.ts";
import { saveState, simd } from "./simd.ts";
import { forget, readClock } from "./unknown.ts";
import { group6, loadTableRegister, storeTable, umip } from "./tables.ts";

const HIGH = 0x1_0000_0000;

/** Executes a system instruction; anything it does not know is #UD or unmodelled. */
export function executeSystem(cpu: Processor, op: number): number {
  const insn = cpu.insn;
  const size = (op & 1) === 0 ? 1 : Math.min(1 << insn.dflag, 4);
  const cpl0 = cpu.cpl === 0;
  switch (op) {
    case 0x90:
      return cpu.check(EXIT_CODE.pause) ? EXIT : NEXT;
    case 0x9c:
      return pushFlags(cpu);
    case 0x9d:
      return popFlags(cpu);
    case 0x6c:
    case 0x6d:
    case 0x6e:
    case 0x6f: {
      const status = portAccess(cpu, dx(cpu), size, op < 0x6e ? 5 : 4);
      return status === NEXT ? UNMODELLED : status;
    }
    case 0xe4:
    case 0xe5:
    case 0xe6:
    case 0xe7: {
      const status = portAccess(cpu, insn.imm & 0xff, size, op < 0xe6 ? 1 : 0);
      return status === NEXT ? UNMODELLED : status;
    }
    case 0xec:
    case 0xed:
    case 0xee:
    case 0xef: {
      const status = portAccess(cpu, dx(cpu), size, op < 0xee ? 1 : 0);
      return status === NEXT ? UNMODELLED : status;
    }
    case 0xcc:
      return cpu.softException(VECTOR.bp, next.lo, next.hi);
    case 0xcd:
      if (cpu.vm86 && cpu.iopl !== 3) return gp(cpu);
      return cpu.softInterrupt(insn.imm & 0xff, next.lo, next.hi);
    case 0xce:
      if (cpu.width === 64) return ud(cpu);
      return (cpu.rflags & FLAG.of) !== 0 ? cpu.softException(VECTOR.of, next.lo, next.hi) : NEXT;
    case 0xca:
    case 0xcb:
      return farReturn(cpu, op === 0xca ? insn.imm & 0xffff : 0);
    case 0xcf:
      return interruptReturn(cpu);
    case 0xf1:
      return cpu.model.icebpUndefined ? ud(cpu) : cpu.icebp(next.lo, next.hi);
    case 0xf4:
      if (!cpl0) return gp(cpu);
      if (cpu.check(EXIT_CODE.hlt)) return EXIT;
      cpu.ripLo = next.lo;
      cpu.ripHi = next.hi;
      cpu.inhibit = false;
      return HALTED;
    case 0xfa:
      if (!checkIopl(cpu)) return gp(cpu);
      cpu.rflags &= ~FLAG.if;
      return NEXT;
    case 0xfb:
      if (!checkIopl(cpu)) return gp(cpu);
      cpu.rflags |= FLAG.if;
      cpu.shadow = true;
      cpu.endOfBlock = true;
      return NEXT;
    case 0x100:
      return group6(cpu);
    case 0x101:
      return group7(cpu);
    case 0x105:
      return syscall(cpu);
    case 0x106:
      if (!cpl0) return gp(cpu);
      if (cpu.check(EXIT_CODE.writeCr)) return EXIT;
      cpu.cr0 = (cpu.cr0 & ~8) >>> 0;
      cpu.endOfBlock = true;
      return NEXT;
    case 0x107:
      return sysret(cpu);
    case 0x108:
    case 0x109:
      if (!cpl0) return gp(cpu);
      return cpu.check(op === 0x109 || cpu.model.invdIsWbinvd ? EXIT_CODE.wbinvd : EXIT_CODE.invd)
        ? EXIT
        : NEXT;
    case 0x120:
    case 0x122:
      return moveControl(cpu, op === 0x122);
    case 0x121:
    case 0x123:
      return moveDebug(cpu, op === 0x123);
    case 0x130:
    case 0x132:
      if (!cpl0) return gp(cpu);
      return msr(cpu, op === 0x130);
    case 0x131:
      return timeStamp(cpu) ? readClock(cpu, false) : cpu.failure;
    case 0x133:
      if (cpu.cpl !== 0 && (cpu.cr4 & 0x100) === 0) return gp(cpu);
      return cpu.check(EXIT_CODE.rdpmc) ? EXIT : ud(cpu);
    case 0x134:
      return sysenter(cpu);
    case 0x135:
      return sysexit(cpu);
    case 0x1a2:
      return cpu.check(EXIT_CODE.cpuid) ? EXIT : UNMODELLED;
    case 0x1aa:
      return cpu.check(EXIT_CODE.rsm) ? EXIT : ud(cpu);
    case 0x1ae:
      return group15(cpu);
    case 0x1c7:
      return (insn.reg & 7) === 1 && insn.mod !== 3 ? compareExchange(cpu) : random(cpu);
    case 0x11a:
    case 0x11b:
      return UNMODELLED;
  }
  return simd(cpu, op);
}

/** Fences, flushes of cache lines, and the bases of FS and GS; the rest is about FPU state. */
function group15(cpu: Processor): number {
  const { insn } = cpu;
  const which = insn.reg & 7;
  const prefixed = (insn.prefixes & (PREFIX.repz | PREFIX.repnz | PREFIX.data)) !== 0;
  if ((insn.prefixes & PREFIX.lock) !== 0) return ud(cpu);
  if (insn.mod === 3) {
    if (which > 4 && !prefixed) return NEXT;
    return which < 4 && (insn.prefixes & PREFIX.repz) !== 0 ? segmentBase(cpu) : UNMODELLED;
  }
  // CLFLUSH, CLFLUSHOPT and CLWB look at nothing but the address.
  const flush = which === 7 || which === 6 && (insn.prefixes & PREFIX.data) !== 0;
  if ((insn.prefixes & (PREFIX.repz | PREFIX.repnz)) !== 0) return UNMODELLED;
  if (!flush) return saveState(cpu, which);
  effectiveAddress(cpu);
  return NEXT;
}

/** CMPXCHG8B and CMPXCHG16B. */
function compareExchange(cpu: Processor): number {
  const { insn, gpr } = cpu;
  const wide = insn.dflag === 3, size = wide ? 8 : 4;
  effectiveAddress(cpu);
  const { lo, hi } = address;
  if (wide && (lo & 15) !== 0) return gp(cpu);
  const who = cpu.who, second = lo + size, secondHi = second >= HIGH ? hi + 1 >>> 0 : hi;
  if (wide && !cpu.read(second % HIGH, secondHi, 8, who)) return cpu.failure;
  const upper = [cpu.lo, cpu.hi] as const;
  // Both halves of CMPXCHG8B are one access.
  if (!cpu.read(lo, hi, 8, who)) return cpu.failure;
  const low = wide ? [cpu.lo, cpu.hi] as const : [cpu.lo, 0] as const;
  const top = wide ? upper : [cpu.hi, 0] as const;
  const same = (from: number, [l, h]: readonly [number, number]) =>
    gpr[from] === l && (!wide || gpr[from + 1] === h);
  const equal = same(0, low) && same(4, top);
  // The old value is written back where they differ.
  const put = equal
    ? [gpr[6], gpr[7], gpr[2], gpr[3]] as [number, number, number, number]
    : [...low, ...top] as const;
  if (!cpu.write(lo, hi, 8, put[0], wide ? put[1] : put[2], who)) return cpu.failure;
  if (wide && !cpu.write(second % HIGH, secondHi, 8, put[2], put[3], who)) return cpu.failure;
  cpu.rflags = equal ? cpu.rflags | FLAG.zf : cpu.rflags & ~FLAG.zf;
  if (!equal) {
    setRegister(cpu, 0, size, ...low);
    setRegister(cpu, 2, size, ...top);
  }
  return NEXT;
}

/** RDFSBASE, RDGSBASE, WRFSBASE and WRGSBASE. */
function segmentBase(cpu: Processor): number {
  const { insn, gpr, segBase } = cpu;
  const which = insn.reg & 7;
  if (cpu.width !== 64 || (cpu.cr4 & CR4.FSGSBASE) === 0) return ud(cpu);
  const base = ((which & 1) === 0 ? SEG.fs : SEG.gs) * 2, register = insn.rm * 2;
  const wide = insn.dflag === 3;
  if (which < 2) {
    gpr[register] = segBase[base] as number;
    gpr[register + 1] = wide ? segBase[base + 1] as number : 0;
    return NEXT;
  }
  segBase[base] = gpr[register] as number;
  segBase[base + 1] = wide ? gpr[register + 1] as number : 0;
  cpu.hostSegmentsDirty = true;
  return NEXT;
}

/** RDPID on a processor that has none. */
function noRdpid(cpu: Processor): boolean {
  const { insn } = cpu;
  const rdpid = insn.mod === 3 && (insn.reg & 7) === 7 && (insn.prefixes & PREFIX.repz) !== 0;
  return rdpid && ((cpu.m.caps.cpuid ?? LAB_CPUID).register("7", "ecx") >>> 22 & 1) === 0;
}

const ARITHMETIC = FLAG.cf | FLAG.pf | FLAG.af | FLAG.zf | FLAG.sf | FLAG.of;

/** RDRAND and RDSEED, which always find a number. */
function random(cpu: Processor): number {
  const { insn } = cpu;
  const prefixed = (insn.prefixes & (PREFIX.lock | PREFIX.repz | PREFIX.repnz)) !== 0;
  if (noRdpid(cpu)) return ud(cpu);
  if (insn.mod !== 3 || (insn.reg & 7) < 6 || prefixed) return UNMODELLED;
  forget(cpu, insn.rm, 1 << insn.dflag);
  cpu.rflags = cpu.rflags & ~ARITHMETIC | FLAG.cf;
  return NEXT;
}

function group7(cpu: Processor): number {
  const insn = cpu.insn;
  const kind = insn.reg & 7;
  if (insn.mod === 3 && kind !== 4 && kind !== 6) return group7Register(cpu, insn.modrm);
  switch (kind) {
    case 0:
    case 1: {
      if (umip(cpu)) return gp(cpu);
      if (cpu.check(kind === 0 ? EXIT_CODE.gdtrRead : EXIT_CODE.idtrRead)) return EXIT;
      return storeTable(cpu, kind === 0 ? SEG.gdtr : SEG.idtr);
    }
    case 2:
    case 3: {
      if (cpu.cpl !== 0) return gp(cpu);
      if (cpu.check(kind === 2 ? EXIT_CODE.gdtrWrite : EXIT_CODE.idtrWrite)) return EXIT;
      return loadTableRegister(cpu, kind === 2 ? SEG.gdtr : SEG.idtr);
    }
    case 4: {
      if (umip(cpu)) return gp(cpu);
      if (cpu.check(EXIT_CODE.readCr)) return EXIT;
      if (insn.mod !== 3) effectiveAddress(cpu);
      return setOperand(cpu, insn.mod === 3 ? 1 << insn.dflag : 2, cpu.cr0, 0) ? NEXT : cpu.failure;
    }
    case 6: {
      if (cpu.cpl !== 0) return gp(cpu);
      if (cpu.check(EXIT_CODE.writeCr)) return EXIT;
      if (!getOperand(cpu, 2)) return cpu.failure;
      return writeCr0(cpu, (cpu.lo & 15 | cpu.cr0 & ~0xe) >>> 0, 0);
    }
    case 7: {
      if (cpu.cpl !== 0) return gp(cpu);
      cpu.endOfBlock = true;
      return cpu.check(EXIT_CODE.invlpg) ? EXIT : NEXT;
    }
  }
  return ud(cpu);
}

const SVME = EFER.SVME;

function xsetbv(cpu: Processor): number {
  const { xsetbvExitsFirst, noXsetbvIntercept } = cpu.model;
  if (xsetbvExitsFirst && cpu.cpl === 0 && cpu.check(EXIT_CODE.xsetbv)) return EXIT;
  if (noXsetbvIntercept && cpu.cpl !== 0) return gp(cpu);
  if ((cpu.cr4 & CR4.OSXSAVE) === 0) return ud(cpu);
  if (cpu.cpl !== 0) return gp(cpu);
  if (!noXsetbvIntercept) return cpu.check(EXIT_CODE.xsetbv) ? EXIT : UNMODELLED;
  const value = cpu.gpr[0] as number;
  if (cpu.gpr[2] !== 0 || cpu.gpr[4] !== 0 || !validXcr0(value)) return gp(cpu);
  cpu.xcr0 = value;
  cpu.endOfBlock = true;
  return NEXT;
}

/** Bits of XCR0 that the emulated processors have: x87, SSE, AVX, MPX and protection keys. */
const XCR0_BITS = 0x21f;

function validXcr0(value: number): boolean {
  const avx = (value & 6) !== 4, mpx = (value & 0x18) === 0 || (value & 0x18) === 0x18;
  return (value & 1) !== 0 && (value & ~XCR0_BITS) === 0 && avx && mpx;
}

function xgetbv(cpu: Processor): number {
  if ((cpu.cr4 & CR4.OSXSAVE) === 0) return ud(cpu);
  const index = cpu.gpr[2] as number;
  if (index > 1) return gp(cpu);
  // Which of the states are in use only an emulator that does not track them tells: all.
  if (index === 1 && !cpu.model.noXsetbvIntercept) return UNMODELLED;
  cpu.gpr[0] = cpu.xcr0;
  cpu.gpr[1] = cpu.gpr[4] = cpu.gpr[5] = 0;
  return NEXT;
}

function group7Register(cpu: Processor, modrm: number): number {
  const svme = (cpu.efer & SVME) !== 0;
  const cpl0 = cpu.cpl === 0;
  const badPrefix = (cpu.insn.prefixes &
    (PREFIX.lock | PREFIX.data | PREFIX.repz | PREFIX.repnz)) !== 0;
  switch (modrm) {
    case 0xc8:
    case 0xc9: {
      if (!cpl0) return ud(cpu);
      // All exceptions come before the intercepts (APM vol. 2, 15.9), that of extensions in ECX, too.
      if (cpu.gpr[2] !== 0) return gp(cpu);
      if (cpu.check(modrm === 0xc8 ? EXIT_CODE.monitor : EXIT_CODE.mwait)) return EXIT;
      return modrm === 0xc8 ? NEXT : HALTED;
    }
    case 0xca:
    case 0xcb:
      if (!cpl0) return ud(cpu);
      cpu.rflags = modrm === 0xca ? cpu.rflags & ~FLAG.ac : cpu.rflags | FLAG.ac;
      cpu.endOfBlock = true;
      return NEXT;
    case 0xd0:
      return badPrefix ? ud(cpu) : xgetbv(cpu);
    case 0xd1:
      return badPrefix ? ud(cpu) : xsetbv(cpu);
    case 0xd8:
    case 0xda:
    case 0xdb: {
      if (!svme || !cpu.protectedMode) return ud(cpu);
      if (!cpl0) return gp(cpu);
      if (!validVmcb(cpu)) return gp(cpu);
      if (cpu.check(EXIT_CODE.vmrun + (modrm === 0xd8 ? 0 : modrm & 3))) return EXIT;
      return UNMODELLED;
    }
    case 0xd9:
      if (!svme) return ud(cpu);
      return cpu.check(EXIT_CODE.vmmcall) ? EXIT : ud(cpu);
    case 0xdc:
    case 0xdd: {
      if (!svme || !cpu.protectedMode) return ud(cpu);
      if (!cpl0) return gp(cpu);
      if (cpu.check(modrm === 0xdc ? EXIT_CODE.stgi : EXIT_CODE.clgi)) return EXIT;
      const on = modrm === 0xdc;
      // Without virtual GIF the physical one is written, which no interrupt waits for here.
      if ((cpu.intCtl & 1 << 25) !== 0) {
        cpu.intCtl = on ? cpu.intCtl | 0x200 : cpu.intCtl & ~0x200;
        cpu.vgif = on;
      }
      cpu.endOfBlock = on;
      return NEXT;
    }
    case 0xde:
      if (!svme || !cpu.protectedMode) return ud(cpu);
      return cpu.check(EXIT_CODE.skinit) ? EXIT : ud(cpu);
    case 0xdf:
      if (!svme || !cpu.protectedMode) return ud(cpu);
      if (!cpl0) return gp(cpu);
      cpu.endOfBlock = true;
      return cpu.check(EXIT_CODE.invlpga) ? EXIT : NEXT;
    case 0xee:
    case 0xef:
      if (badPrefix || (cpu.cr4 & 1 << 22) === 0) return ud(cpu);
      return UNMODELLED;
    case 0xf8:
      if (cpu.width !== 64) return ud(cpu);
      if (!cpl0) return gp(cpu);
      return swapGs(cpu);
    case 0xf9:
      return timeStamp(cpu) ? readClock(cpu, true) : cpu.failure;
  }
  return ud(cpu);
}

// VMRUN, VMLOAD, VMSAVE: the address in rAX must be a page that can exist.
function validVmcb(cpu: Processor): boolean {
  const lo = cpu.gpr[0] as number;
  const hi = cpu.insn.aflag === 3 ? cpu.gpr[1] as number : 0;
  return (lo & 0xfff) === 0 && hi >>> hostPhysicalBits(cpu.m.caps) - 32 === 0;
}

// False when RDTSC(P) faults or exits.
function timeStamp(cpu: Processor): boolean {
  if ((cpu.cr4 & 4) !== 0 && cpu.cpl !== 0) cpu.failure = gp(cpu);
  else if (cpu.check(EXIT_CODE.rdtsc)) cpu.failure = EXIT;
  else return true;
  return false;
}
