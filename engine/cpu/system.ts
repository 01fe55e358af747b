/**
 * Instructions that the system is made of: I/O, control registers, descriptor
 * tables, SVM. Privilege, #UD and intercepts come in QEMU's order.
 *
 * @module
 */
import { S, V, VMCB01_AT } from "../svm/machine.ts";
import { PREFIX } from "./decode.ts";
import {
  address,
  drop,
  effectiveAddress,
  getOperand,
  getRegister,
  peek,
  push,
  pushSize,
  setOperand,
  setRegister,
} from "./operands.ts";
import {
  CR4_VALID,
  EXIT,
  EXIT_CODE,
  FLAG,
  HALTED,
  NEXT,
  SEG,
  UNMODELLED,
  VECTOR,
} from "./constants.ts";
import type { Processor } from "./processor.ts";
import { setTaskPriority } from "./vmcb_state.ts";
import { loadDescriptor, loadSegment } from "./segments.ts";

const HIGH = 0x1_0000_0000;

/** Address after the instruction. */
interface NextRip {
  lo: number;
  hi: number;
}

const gp = (cpu: Processor) => cpu.raise(VECTOR.gp);
const ud = (cpu: Processor) => cpu.raise(VECTOR.ud);

function checkIopl(cpu: Processor): boolean {
  return cpu.vm86 ? cpu.iopl === 3 : cpu.cpl <= cpu.iopl;
}

/** Executes a system instruction; anything it does not know is #UD or unmodelled. */
export function executeSystem(cpu: Processor, op: number, next: NextRip): number {
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
      const status = portAccess(cpu, dx(cpu), size, op < 0x6e ? 5 : 4, next);
      return status === NEXT ? UNMODELLED : status;
    }
    case 0xe4:
    case 0xe5:
    case 0xe6:
    case 0xe7: {
      const status = portAccess(cpu, insn.imm & 0xff, size, op < 0xe6 ? 1 : 0, next);
      return status === NEXT ? UNMODELLED : status;
    }
    case 0xec:
    case 0xed:
    case 0xee:
    case 0xef: {
      const status = portAccess(cpu, dx(cpu), size, op < 0xee ? 1 : 0, next);
      return status === NEXT ? UNMODELLED : status;
    }
    case 0xcc:
      return cpu.softInterrupt(3, next.lo, next.hi);
    case 0xcd:
      if (cpu.vm86 && cpu.iopl !== 3) return gp(cpu);
      return cpu.softInterrupt(insn.imm & 0xff, next.lo, next.hi);
    case 0xce:
      if (cpu.width === 64) return ud(cpu);
      return (cpu.rflags & FLAG.of) !== 0 ? cpu.softInterrupt(4, next.lo, next.hi) : NEXT;
    case 0xca:
    case 0xcb:
      return UNMODELLED;
    case 0xcf:
      return interruptReturn(cpu, next);
    case 0xf1:
      return ud(cpu);
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
    case 0x102:
    case 0x103:
      return UNMODELLED;
    case 0x105:
      return syscall(cpu, next);
    case 0x106:
      if (!cpl0) return gp(cpu);
      if (cpu.check(EXIT_CODE.writeCr)) return EXIT;
      cpu.cr0 = (cpu.cr0 & ~8) >>> 0;
      cpu.endOfBlock = true;
      return NEXT;
    case 0x107:
      return cpu.protectedMode ? UNMODELLED : gp(cpu);
    case 0x108:
    case 0x109:
      if (!cpl0) return gp(cpu);
      // QEMU tests bit 1 of the opcode, which neither has: both are WBINVD.
      return cpu.check(EXIT_CODE.wbinvd) ? EXIT : NEXT;
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
      return timeStamp(cpu) ? UNMODELLED : cpu.failure;
    case 0x133:
      if (cpu.cpl !== 0 && (cpu.cr4 & 0x100) === 0) return gp(cpu);
      return cpu.check(EXIT_CODE.rdpmc) ? EXIT : ud(cpu);
    case 0x134:
    case 0x135:
      if (cpu.width === 64) return ud(cpu);
      return cpu.protectedMode ? UNMODELLED : gp(cpu);
    case 0x177:
      return UNMODELLED;
    case 0x1a2:
      return cpu.check(EXIT_CODE.cpuid) ? EXIT : UNMODELLED;
    case 0x1aa:
      return cpu.check(EXIT_CODE.rsm) ? EXIT : ud(cpu);
    case 0x1a4:
    case 0x1a5:
    case 0x1ac:
    case 0x1ad:
    case 0x1ae:
    case 0x1c3:
    case 0x1c7:
    case 0x1b8:
    case 0x11a:
    case 0x11b:
      return UNMODELLED;
  }
  return simd(op) ? UNMODELLED : ud(cpu);
}

// Opcodes of the SSE tables, which are not modelled.
function simd(op: number): boolean {
  return (op >= 0x10e && op <= 0x117) || (op >= 0x128 && op <= 0x12f) ||
    (op >= 0x138 && op <= 0x13a) || (op >= 0x150 && op <= 0x17f) || (op >= 0x1c2 && op <= 0x1c6) ||
    (op >= 0x1d0 && op <= 0x1fe);
}

const dx = (cpu: Processor) => (cpu.gpr[4] as number) & 0xffff;

function portAccess(
  cpu: Processor,
  port: number,
  size: number,
  flags: number,
  next: NextRip,
): number {
  if (cpu.protectedMode && (cpu.cpl > cpu.iopl || cpu.vm86)) {
    const status = checkTss(cpu, port, size);
    if (status !== NEXT) return status;
  }
  if (!cpu.intercepted(EXIT_CODE.ioio) || !cpu.ioIntercepted(port, size)) return NEXT;
  if ((cpu.insn.prefixes & (PREFIX.repz | PREFIX.repnz)) !== 0) flags |= 8;
  cpu.setInfo2(next.lo, next.hi);
  return cpu.vmexit(EXIT_CODE.ioio, flags | size << 4 | port << 16);
}

function checkTss(cpu: Processor, port: number, size: number): number {
  const attrib = cpu.attrib[SEG.tr] as number;
  const limit = cpu.limit[SEG.tr] as number;
  if ((attrib & 0x80) === 0 || (attrib & 15) !== 9 || limit < 103) return gp(cpu);
  const base = cpu.segBase[SEG.tr * 2] as number;
  const baseHi = cpu.segBase[SEG.tr * 2 + 1] as number;
  const at = (offset: number) => {
    const lo = base + offset;
    return cpu.readSystem(lo % HIGH, lo >= HIGH ? baseHi + 1 >>> 0 : baseHi, 2);
  };
  if (!at(0x66)) return cpu.failure;
  const offset = cpu.lo + (port >> 3);
  if (offset + 1 > limit) return gp(cpu);
  if (!at(offset)) return cpu.failure;
  return (cpu.lo >> (port & 7) & (1 << size) - 1) !== 0 ? gp(cpu) : NEXT;
}

function pushFlags(cpu: Processor): number {
  if (cpu.check(EXIT_CODE.pushf)) return EXIT;
  if (cpu.vm86 && cpu.iopl !== 3) return gp(cpu);
  const flags = cpu.rflags & ~(FLAG.vm | FLAG.rf);
  return push(cpu, pushSize(cpu), flags >>> 0, 0) ? NEXT : cpu.failure;
}

const POPF_BASE = FLAG.tf | FLAG.ac | 1 << 21 | FLAG.nt;
const STATUS = FLAG.cf | FLAG.pf | FLAG.af | FLAG.zf | FLAG.sf | FLAG.of | FLAG.df;

function loadFlags(cpu: Processor, value: number, mask: number): void {
  mask |= STATUS;
  cpu.rflags = cpu.rflags & ~mask | value & mask | 2;
}

function popFlags(cpu: Processor): number {
  if (cpu.check(EXIT_CODE.popf)) return EXIT;
  if (cpu.vm86 && cpu.iopl !== 3) return gp(cpu);
  const size = pushSize(cpu);
  if (!peek(cpu, size)) return cpu.failure;
  const value = cpu.lo;
  let mask = POPF_BASE;
  if (cpu.cpl === 0) mask |= FLAG.if | FLAG.iopl;
  else if (cpu.cpl <= cpu.iopl) mask |= FLAG.if;
  if (size === 2) mask &= 0xffff;
  drop(cpu, size);
  loadFlags(cpu, value, mask);
  cpu.endOfBlock = true;
  return NEXT;
}

function interruptReturn(cpu: Processor, next: NextRip): number {
  if (cpu.check(EXIT_CODE.iret)) return EXIT;
  if (cpu.vm86 && cpu.iopl !== 3) return gp(cpu);
  const size = 1 << cpu.insn.dflag;
  if (!cpu.protectedMode || cpu.vm86) return returnReal(cpu, size, next);
  if ((cpu.rflags & FLAG.nt) !== 0) return cpu.longMode ? gp(cpu) : UNMODELLED;
  if (!peek(cpu, size, 0)) return cpu.failure;
  const lo = cpu.lo;
  const hi = cpu.hi;
  if (!peek(cpu, size, size)) return cpu.failure;
  const selector = cpu.lo & 0xffff;
  if (!peek(cpu, size, size * 2)) return cpu.failure;
  const flags = cpu.lo;
  if ((flags & FLAG.vm) !== 0 && cpu.cpl === 0 && size === 4 && !cpu.longMode) return UNMODELLED;
  const rpl = selector & 3;
  const cpl = cpu.cpl;
  if ((selector & 0xfffc) === 0) return gp(cpu);
  const found = loadDescriptor(cpu, selector);
  const error = selector & 0xfffc;
  if (found < 0) return cpu.raise(VECTOR.gp, error);
  if (found !== NEXT) return found;
  const c1 = cpu.lo;
  const c2 = cpu.hi;
  const dpl = c2 >>> 13 & 3;
  if ((c2 & 0x1800) !== 0x1800 || rpl < cpl) return cpu.raise(VECTOR.gp, error);
  if ((c2 & 0x400) !== 0 ? dpl > rpl : dpl !== rpl) return cpu.raise(VECTOR.gp, error);
  if ((c2 & 0x8000) === 0) return cpu.raise(VECTOR.np, error);
  let used = size * 3;
  if (rpl !== cpl || cpu.width === 64) {
    if (!peek(cpu, size, used)) return cpu.failure;
    const spLo = cpu.lo;
    const spHi = cpu.hi;
    if (!peek(cpu, size, used + size)) return cpu.failure;
    const ss = cpu.lo & 0xffff;
    used += size * 2;
    if ((ss & 0xfffc) === 0) {
      if ((c2 & 0x200000) === 0 || rpl === 3) return gp(cpu);
      cpu.selector[SEG.ss] = ss;
      cpu.segBase[SEG.ss * 2] = 0;
      cpu.segBase[SEG.ss * 2 + 1] = 0;
      cpu.limit[SEG.ss] = 0xffffffff;
      cpu.attrib[SEG.ss] = 0x493 | 0x800 | rpl << 5;
    } else {
      const stack = loadDescriptor(cpu, ss);
      if ((ss & 3) !== rpl || stack < 0) return cpu.raise(VECTOR.gp, ss & 0xfffc);
      if (stack !== NEXT) return stack;
      const s2 = cpu.hi;
      if ((s2 & 0x1a00) !== 0x1200 || (s2 >>> 13 & 3) !== rpl) {
        return cpu.raise(VECTOR.gp, ss & 0xfffc);
      }
      if ((s2 & 0x8000) === 0) return cpu.raise(VECTOR.np, ss & 0xfffc);
      loadSegment(cpu, SEG.ss, ss, cpu.lo, s2);
    }
    loadSegment(cpu, SEG.cs, selector, c1, c2);
    cpu.cpl = rpl;
    setRegister(cpu, 4, cpu.width === 64 ? 8 : 4, spLo, spHi);
    if (rpl > cpl) dropDataSegments(cpu, rpl);
  } else {
    drop(cpu, used);
    loadSegment(cpu, SEG.cs, selector, c1, c2);
  }
  let mask = FLAG.tf | FLAG.ac | 1 << 21 | FLAG.rf | FLAG.nt;
  if (cpl === 0) mask |= FLAG.iopl;
  if (cpl <= cpu.iopl) mask |= FLAG.if;
  if (size === 2) mask &= 0xffff;
  loadFlags(cpu, flags, mask);
  next.lo = lo;
  next.hi = hi;
  cpu.endOfBlock = true;
  return NEXT;
}

// Data segments that the outer privilege may not use become null.
function dropDataSegments(cpu: Processor, cpl: number): void {
  for (const segment of [SEG.es, SEG.ds, SEG.fs, SEG.gs]) {
    if ((segment === SEG.fs || segment === SEG.gs) && (cpu.selector[segment] as number) < 4) {
      continue;
    }
    const attrib = cpu.attrib[segment] as number;
    if ((attrib & 0xc) !== 0xc && (attrib >> 5 & 3) < cpl) {
      cpu.selector[segment] = 0;
      cpu.segBase[segment * 2] = 0;
      cpu.segBase[segment * 2 + 1] = 0;
      cpu.attrib[segment] = attrib & ~0x80;
    }
  }
}

function returnReal(cpu: Processor, size: number, next: NextRip): number {
  if (!peek(cpu, size, 0)) return cpu.failure;
  const lo = cpu.lo;
  if (!peek(cpu, size, size)) return cpu.failure;
  const selector = cpu.lo & 0xffff;
  if (!peek(cpu, size, size * 2)) return cpu.failure;
  const flags = cpu.lo;
  drop(cpu, size * 3);
  cpu.selector[SEG.cs] = selector;
  cpu.segBase[SEG.cs * 2] = selector << 4;
  cpu.segBase[SEG.cs * 2 + 1] = 0;
  let mask = FLAG.tf | FLAG.ac | 1 << 21 | FLAG.if | FLAG.rf | FLAG.nt;
  if (!cpu.vm86) mask |= FLAG.iopl;
  if (size === 2) mask &= 0xffff;
  loadFlags(cpu, flags, mask);
  next.lo = lo;
  next.hi = 0;
  cpu.endOfBlock = true;
  return NEXT;
}

function umip(cpu: Processor): boolean {
  return (cpu.cr4 & 1 << 11) !== 0 && cpu.cpl !== 0;
}

function group6(cpu: Processor): number {
  const insn = cpu.insn;
  const kind = insn.reg & 7;
  if (kind > 5 || !cpu.protectedMode || cpu.vm86) return ud(cpu);
  if (kind < 2) {
    if (umip(cpu)) return gp(cpu);
    if (cpu.check(kind === 0 ? EXIT_CODE.ldtrRead : EXIT_CODE.trRead)) return EXIT;
    if (insn.mod !== 3) effectiveAddress(cpu);
    const selector = cpu.selector[kind === 0 ? SEG.ldtr : SEG.tr] as number;
    return setOperand(cpu, insn.mod === 3 ? 1 << insn.dflag : 2, selector, 0) ? NEXT : cpu.failure;
  }
  if (kind > 3) return UNMODELLED;
  if (cpu.cpl !== 0) return gp(cpu);
  if (cpu.check(kind === 2 ? EXIT_CODE.ldtrWrite : EXIT_CODE.trWrite)) return EXIT;
  if (!getOperand(cpu, 2)) return cpu.failure;
  return loadTable(cpu, kind === 2 ? SEG.ldtr : SEG.tr, cpu.lo);
}

// LLDT and LTR.
function loadTable(cpu: Processor, table: number, selector: number): number {
  const task = table === SEG.tr;
  const error = selector & 0xfffc;
  if (error === 0) {
    if (task) cpu.attrib[table] = 0;
    cpu.segBase[table * 2] = 0;
    cpu.segBase[table * 2 + 1] = 0;
    cpu.limit[table] = 0;
    cpu.selector[table] = selector;
    cpu.hostSegmentsDirty = true;
    return NEXT;
  }
  if ((selector & 4) !== 0) return cpu.raise(VECTOR.gp, error);
  const index = selector & 0xfff8;
  if (index + (cpu.longMode ? 15 : 7) > (cpu.limit[SEG.gdtr] as number)) {
    return cpu.raise(VECTOR.gp, error);
  }
  const found = loadDescriptor(cpu, selector);
  if (found !== NEXT) return found;
  const e1 = cpu.lo;
  let e2 = cpu.hi;
  const type = e2 >>> 8 & 15;
  if ((e2 & 0x1000) !== 0 || (task ? type !== 1 && type !== 9 : type !== 2)) {
    return cpu.raise(VECTOR.gp, error);
  }
  if ((e2 & 0x8000) === 0) return cpu.raise(VECTOR.np, error);
  const entry = (cpu.segBase[SEG.gdtr * 2] as number) + index;
  const entryHi = cpu.segBase[SEG.gdtr * 2 + 1] as number;
  let baseHi = 0;
  if (cpu.longMode) {
    if (!cpu.readSystem((entry + 8) % HIGH, entryHi, 8)) return cpu.failure;
    baseHi = cpu.lo;
    if (task && (cpu.hi >>> 8 & 15) !== 0) return cpu.raise(VECTOR.gp, error);
  }
  if (task) {
    // QEMU marks the task busy in the table, not in the register it just loaded.
    const busy = (e2 | 0x200) >>> 0;
    if (!cpu.writeSystem((entry + 4) % HIGH, entryHi, 4, busy, 0)) return cpu.failure;
  } else e2 >>>= 0;
  loadSegment(cpu, table, selector, e1, e2, baseHi);
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

function pieceAfter(lo: number, hi: number, by: number): [number, number] {
  const sum = lo + by;
  return sum >= HIGH ? [sum - HIGH, hi + 1 >>> 0] : [sum, hi];
}

function storeTable(cpu: Processor, table: number): number {
  effectiveAddress(cpu);
  const who = cpu.who;
  if (!cpu.write(address.lo, address.hi, 2, (cpu.limit[table] as number) & 0xffff, 0, who)) {
    return cpu.failure;
  }
  const [lo, hi] = pieceAfter(address.lo, address.hi, 2);
  let base = cpu.segBase[table * 2] as number;
  if (cpu.insn.dflag === 1) base &= 0xffffff;
  const baseHi = cpu.insn.dflag === 1 ? 0 : cpu.segBase[table * 2 + 1] as number;
  return cpu.write(lo, hi, cpu.width === 64 ? 8 : 4, base, baseHi, who) ? NEXT : cpu.failure;
}

function loadTableRegister(cpu: Processor, table: number): number {
  effectiveAddress(cpu);
  const who = cpu.who;
  if (!cpu.read(address.lo, address.hi, 2, who)) return cpu.failure;
  const limit = cpu.lo;
  const [lo, hi] = pieceAfter(address.lo, address.hi, 2);
  if (!cpu.read(lo, hi, cpu.width === 64 ? 8 : 4, who)) return cpu.failure;
  cpu.segBase[table * 2] = cpu.insn.dflag === 1 ? cpu.lo & 0xffffff : cpu.lo;
  cpu.segBase[table * 2 + 1] = cpu.insn.dflag === 1 ? 0 : cpu.hi;
  cpu.limit[table] = limit;
  return NEXT;
}

const SVME = 1 << 12;

function group7Register(cpu: Processor, modrm: number): number {
  const svme = (cpu.efer & SVME) !== 0;
  const cpl0 = cpu.cpl === 0;
  const badPrefix = (cpu.insn.prefixes &
    (PREFIX.lock | PREFIX.data | PREFIX.repz | PREFIX.repnz)) !== 0;
  switch (modrm) {
    case 0xc8:
    case 0xc9: {
      if (!cpl0) return ud(cpu);
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
      return badPrefix ? ud(cpu) : UNMODELLED;
    case 0xd1:
      // XSETBV has no intercept in QEMU; without CR4.OSXSAVE it is #UD.
      if (badPrefix) return ud(cpu);
      if (!cpl0) return gp(cpu);
      return (cpu.cr4 & 1 << 18) === 0 ? ud(cpu) : UNMODELLED;
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
      return timeStamp(cpu) ? UNMODELLED : cpu.failure;
  }
  return ud(cpu);
}

// VMRUN, VMLOAD, VMSAVE: the address in rAX must be a page that can exist.
function validVmcb(cpu: Processor): boolean {
  const lo = cpu.gpr[0] as number;
  const hi = cpu.insn.aflag === 3 ? cpu.gpr[1] as number : 0;
  return (lo & 0xfff) === 0 && hi >>> cpu.m.caps.physicalBits - 32 === 0;
}

function swapGs(cpu: Processor): number {
  const at = VMCB01_AT + S.kernel_gs_base >> 2;
  const words = cpu.m.words;
  for (let half = 0; half < 2; half++) {
    const value = words[at + half] as number;
    words[at + half] = cpu.segBase[SEG.gs * 2 + half] as number;
    cpu.segBase[SEG.gs * 2 + half] = value;
  }
  cpu.hostSegmentsDirty = true;
  return NEXT;
}

// False when RDTSC(P) faults or exits; the counter itself is not modelled.
function timeStamp(cpu: Processor): boolean {
  if ((cpu.cr4 & 4) !== 0 && cpu.cpl !== 0) cpu.failure = gp(cpu);
  else if (cpu.check(EXIT_CODE.rdtsc)) cpu.failure = EXIT;
  else return true;
  return false;
}

function moveControl(cpu: Processor, write: boolean): number {
  const insn = cpu.insn;
  if (cpu.cpl !== 0) return gp(cpu);
  let register = insn.reg;
  if (register === 0 && (insn.prefixes & PREFIX.lock) !== 0) register = 8;
  if (register !== 0 && (register < 2 || register > 4) && register !== 8) return ud(cpu);
  const size = cpu.width === 64 ? 8 : 4;
  if (cpu.check((write ? EXIT_CODE.writeCr : EXIT_CODE.readCr) + register)) return EXIT;
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
      if (cpu.longMode && hi >>> cpu.m.caps.physicalBits - 32 !== 0) return invalid(cpu);
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

// QEMU makes a #VMEXIT of the values that VMRUN would refuse.
function invalid(cpu: Processor): number {
  return cpu.vmexit(0xffffffff, 0);
}

function writeCr0(cpu: Processor, lo: number, hi: number): number {
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

function moveDebug(cpu: Processor, write: boolean): number {
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
  const words = cpu.m.words;
  const at = (V.dr0 >> 2) + register * 2;
  if (!write) {
    if (register === 6) setRegister(cpu, insn.rm, size, cpu.dr6, 0);
    else if (register === 7) setRegister(cpu, insn.rm, size, cpu.dr7, 0);
    else setRegister(cpu, insn.rm, size, words[at] as number, words[at + 1] as number);
    return NEXT;
  }
  getRegister(cpu, insn.rm, size);
  cpu.endOfBlock = true;
  if (register < 4) {
    words[at] = cpu.lo;
    words[at + 1] = cpu.hi;
    return NEXT;
  }
  if (cpu.hi !== 0) return gp(cpu);
  if (register === 6) cpu.dr6 = (cpu.lo | 0xffff0ff0) >>> 0;
  else cpu.dr7 = (cpu.lo | 0x400) >>> 0;
  return NEXT;
}

// Syscall and segment-base MSRs, which KVM lets guests access.
const MSR_PLACE: ReadonlyMap<number, number> = new Map([
  [0xc0000081, S.star],
  [0xc0000082, S.lstar],
  [0xc0000083, S.cstar],
  [0xc0000084, S.sfmask],
  [0xc0000102, S.kernel_gs_base],
  [0x174, S.sysenter_cs],
  [0x175, S.sysenter_esp],
  [0x176, S.sysenter_eip],
]);

function msr(cpu: Processor, write: boolean): number {
  const index = cpu.gpr[2] as number;
  const mapped = index < 0x2000 || (index >= 0xc0000000 && index < 0xc0002000) ||
    (index >= 0xc0010000 && index < 0xc0012000);
  if (
    cpu.intercepted(EXIT_CODE.msr) && (!mapped || cpu.msrIntercepted(index, write))
  ) return cpu.vmexit(EXIT_CODE.msr, write ? 1 : 0);
  const words = cpu.m.words;
  const gpr = cpu.gpr;
  const base = index === 0xc0000100 ? SEG.fs : index === 0xc0000101 ? SEG.gs : -1;
  const place = MSR_PLACE.get(index);
  if (base < 0 && place === undefined) return UNMODELLED;
  const target = base >= 0 ? cpu.segBase : words;
  const at = base >= 0 ? base * 2 : VMCB01_AT + (place as number) >> 2;
  if (write) {
    target[at] = index === 0x174 ? (gpr[0] as number) & 0xffff : gpr[0] as number;
    target[at + 1] = index === 0x174 ? 0 : gpr[4] as number;
    if (base >= 0) cpu.hostSegmentsDirty = true;
  } else {
    gpr[0] = target[at] as number;
    gpr[1] = 0;
    gpr[4] = target[at + 1] as number;
    gpr[5] = 0;
  }
  return NEXT;
}

function syscall(cpu: Processor, next: NextRip): number {
  if ((cpu.efer & 1) === 0) return ud(cpu);
  if (!cpu.longMode) return UNMODELLED;
  const words = cpu.m.words;
  const at = (field: number) => words[VMCB01_AT + field >> 2] as number;
  const selector = at(S.star + 4) & 0xffff;
  cpu.gpr[2] = next.lo;
  cpu.gpr[3] = next.hi;
  cpu.gpr[22] = (cpu.rflags & ~FLAG.rf) >>> 0;
  cpu.gpr[23] = 0;
  const target = cpu.width === 64 ? S.lstar : S.cstar;
  cpu.rflags = cpu.rflags & ~(at(S.sfmask) | FLAG.rf) | 2;
  loadSegment(cpu, SEG.cs, selector & 0xfffc, 0xffff, 0x00af9b00);
  loadSegment(cpu, SEG.ss, selector + 8 & 0xfffc, 0xffff, 0x00cf9300);
  next.lo = at(target);
  next.hi = at(target + 4);
  cpu.endOfBlock = true;
  return NEXT;
}
