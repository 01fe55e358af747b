/**
 * PUSHF, POPF and IRET.
 *
 * @module
 */
import { next } from "./branch.ts";
import { EXIT, EXIT_CODE, FLAG, NEXT, SEG, UNMODELLED, VECTOR } from "./constants.ts";
import { gp } from "./faults.ts";
import { drop, dropFar, peek, peekFar, push, pushSize, setRegister } from "./operands.ts";
import type { Processor } from "./processor.ts";
import { dropDataSegments, loadDescriptor, loadSegment } from "./segments.ts";

/** Whether IOPL allows I/O and interrupt flag changes. */
export function checkIopl(cpu: Processor): boolean {
  return cpu.vm86 ? cpu.iopl === 3 : cpu.cpl <= cpu.iopl;
}

/** PUSHF. */
export function pushFlags(cpu: Processor): number {
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

/** What IRET to virtual-8086 mode takes from the stack: VIF and VIP, too. */
const VM86_FLAGS = POPF_BASE | FLAG.if | FLAG.iopl | FLAG.vm | 3 << 19;

/** POPF. */
export function popFlags(cpu: Processor): number {
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

/** IRET to the same or an outer privilege. */
export function interruptReturn(cpu: Processor): number {
  if (cpu.check(EXIT_CODE.iret)) return EXIT;
  if (cpu.vm86 && cpu.iopl !== 3) return gp(cpu);
  const size = 1 << cpu.insn.dflag;
  if (!cpu.protectedMode || cpu.vm86) return returnReal(cpu, size);
  if ((cpu.rflags & FLAG.nt) !== 0) return cpu.longMode ? gp(cpu) : taskReturn(cpu);
  if (!peekFar(cpu, size, 0)) return cpu.failure;
  const lo = cpu.lo;
  const hi = cpu.hi;
  if (!peekFar(cpu, size, size)) return cpu.failure;
  const selector = cpu.lo & 0xffff;
  if (!peekFar(cpu, size, size * 2)) return cpu.failure;
  const flags = cpu.lo;
  if ((flags & FLAG.vm) !== 0 && size === 4) return returnToVm86(cpu, lo, selector, flags);
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
    if (!peekFar(cpu, size, used)) return cpu.failure;
    const spLo = cpu.lo;
    const spHi = cpu.hi;
    if (!peekFar(cpu, size, used + size)) return cpu.failure;
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
    dropFar(cpu, size, used);
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

/** IRET to the task that the TSS names; the switch itself is not modelled. */
function taskReturn(cpu: Processor): number {
  const at = SEG.tr * 2;
  if (!cpu.readSystem(cpu.segBase[at] as number, 0, 2)) return cpu.failure;
  const selector = cpu.lo & 0xffff, error = selector & 0xfffc;
  const found = (selector & 4) !== 0 ? -1 : loadDescriptor(cpu, selector);
  if (found > NEXT) return found;
  const busy = found === NEXT && (cpu.hi >>> 8 & 0x17) === 3;
  return busy ? UNMODELLED : cpu.raise(VECTOR.ts, error);
}

/** IRET to virtual-8086 mode: the segment registers come from the stack, too. */
function returnToVm86(cpu: Processor, ip: number, cs: number, flags: number): number {
  const values: number[] = [];
  for (let i = 3; i < 9; i++) {
    if (!peek(cpu, 4, 4 * i)) return cpu.failure;
    values.push(cpu.lo);
  }
  const [sp, ss, es, ds, fs, gs] = values as [number, number, number, number, number, number];
  loadFlags(cpu, flags, VM86_FLAGS);
  const selectors = [
    [SEG.cs, cs],
    [SEG.ss, ss],
    [SEG.es, es],
    [SEG.ds, ds],
    [SEG.fs, fs],
    [SEG.gs, gs],
  ] as const;
  for (const [segment, selector] of selectors) {
    // 64 KiB of data that anybody may write, code too.
    loadSegment(
      cpu,
      segment,
      selector & 0xffff,
      (selector & 0xfff) << 20 | 0xffff,
      selector >>> 12 & 15 | 0xf300,
    );
  }
  setRegister(cpu, 4, 4, sp, 0);
  next.lo = ip & 0xffff;
  next.hi = 0;
  cpu.endOfBlock = true;
  return NEXT;
}

function returnReal(cpu: Processor, size: number): number {
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
