/**
 * Far jumps, calls and returns (QEMU's seg_helper.c). Gates and tasks are not modelled.
 *
 * @module
 */
import { jump, next } from "./branch.ts";
import { ATTR, NEXT, SEG, UNMODELLED, VECTOR } from "./constants.ts";
import { gp } from "./faults.ts";
import { drop, dropFar, peekFar, push, setRegister, stackSize } from "./operands.ts";
import type { Processor } from "./processor.ts";
import {
  descriptorLimit,
  dropDataSegments,
  loadDescriptor,
  loadSegment,
  loadSelectorReal,
} from "./segments.ts";

const HIGH = 0x1_0000_0000;

/** Descriptor bits, in its high half. */
const DESC = { code: 0x800, conforming: 0x400, segment: 0x1000, present: 0x8000 } as const;
/** Type of a 32-bit call gate, the only gate that long mode has here. */
const CALL_GATE = 12;
/** Types that legacy mode has: available tasks, task gates and call gates, a bit each. */
const TASKS_AND_GATES = 1 << 1 | 1 << 4 | 1 << 5 | 1 << 9 | 1 << 12;

function segmented(cpu: Processor): boolean {
  return cpu.protectedMode && !cpu.vm86;
}

/**
 * Reads the descriptor of a code segment that a jump or call names, into `cpu.lo` and `cpu.hi`.
 *
 * @returns NEXT when control may go there with the current privilege.
 */
function target(cpu: Processor, selector: number): number {
  const error = selector & 0xfffc, { cpl } = cpu;
  if (error === 0) return gp(cpu);
  const found = loadDescriptor(cpu, selector);
  if (found < 0) return cpu.raise(VECTOR.gp, error);
  if (found !== NEXT) return found;
  const e2 = cpu.hi, dpl = e2 >>> 13 & 3;
  if ((e2 & DESC.segment) === 0) {
    const known = (cpu.longMode ? 1 << CALL_GATE : TASKS_AND_GATES) >>> (e2 >>> 8 & 15) & 1;
    const allowed = known !== 0 && dpl >= cpl && dpl >= (selector & 3);
    return allowed ? UNMODELLED : cpu.raise(VECTOR.gp, error);
  }
  if ((e2 & DESC.code) === 0) return cpu.raise(VECTOR.gp, error);
  const allowed = (e2 & DESC.conforming) !== 0 ? dpl <= cpl : (selector & 3) <= cpl && dpl === cpl;
  if (!allowed) return cpu.raise(VECTOR.gp, error);
  return (e2 & DESC.present) === 0 ? cpu.raise(VECTOR.np, error) : NEXT;
}

/** Whether an offset lies in a code segment, which 64-bit ones have no limit of. */
function within(cpu: Processor, lo: number, hi: number, e1: number, e2: number): boolean {
  if (cpu.longMode && (e2 >>> 12 & ATTR.l) !== 0) return true;
  return hi === 0 && lo <= descriptorLimit(e1, e2);
}

/** Goes on in the code segment whose descriptor was read. */
function enter(
  cpu: Processor,
  selector: number,
  e1: number,
  e2: number,
  lo: number,
  hi: number,
): number {
  loadSegment(cpu, SEG.cs, selector & 0xfffc | cpu.cpl, e1, e2);
  return goOn(cpu, lo, hi);
}

function goOn(cpu: Processor, lo: number, hi: number): number {
  cpu.endOfBlock = true;
  next.lo = lo >>> 0;
  next.hi = hi >>> 0;
  return NEXT;
}

/** Far jump. */
export function farJump(cpu: Processor, selector: number, lo: number, hi = 0): number {
  if (!segmented(cpu)) {
    loadSelectorReal(cpu, SEG.cs, selector);
    return jump(cpu, lo, 0);
  }
  const status = target(cpu, selector);
  if (status !== NEXT) return status;
  const e1 = cpu.lo, e2 = cpu.hi;
  if (!within(cpu, lo, hi, e1, e2)) return cpu.raise(VECTOR.gp, selector & 0xfffc);
  return enter(cpu, selector, e1, e2, lo, hi);
}

/** Far call; `size` is that of each of the two values pushed. */
export function farCall(
  cpu: Processor,
  selector: number,
  lo: number,
  hi: number,
  size: number,
): number {
  let e1 = 0, e2 = 0;
  if (segmented(cpu)) {
    const status = target(cpu, selector);
    if (status !== NEXT) return status;
    e1 = cpu.lo;
    e2 = cpu.hi;
  }
  const spLo = cpu.gpr[8] as number, spHi = cpu.gpr[9] as number;
  const pushed = push(cpu, size, cpu.selector[SEG.cs] as number, 0) &&
    push(cpu, size, next.lo, next.hi);
  const fits = !segmented(cpu) || size === 8 || within(cpu, lo, hi, e1, e2);
  if (!pushed || !fits) {
    cpu.gpr[8] = spLo;
    cpu.gpr[9] = spHi;
    return pushed ? cpu.raise(VECTOR.gp, selector & 0xfffc) : cpu.failure;
  }
  if (segmented(cpu)) return enter(cpu, selector, e1, e2, lo, hi);
  loadSelectorReal(cpu, SEG.cs, selector);
  return jump(cpu, lo, 0);
}

/** Far return, to the same or an outer privilege; `release` is how many bytes of arguments go too. */
export function farReturn(cpu: Processor, release: number): number {
  const size = 1 << cpu.insn.dflag;
  if (!peekFar(cpu, size, 0)) return cpu.failure;
  const lo = cpu.lo, hi = cpu.hi;
  if (!peekFar(cpu, size, size)) return cpu.failure;
  const selector = cpu.lo & 0xffff;
  let used = 2 * size + release;
  if (!segmented(cpu)) {
    drop(cpu, used);
    loadSelectorReal(cpu, SEG.cs, selector);
    return jump(cpu, lo, 0);
  }
  const error = selector & 0xfffc, rpl = selector & 3, { cpl } = cpu;
  const found = error === 0 ? -1 : loadDescriptor(cpu, selector);
  if (found < 0) return cpu.raise(VECTOR.gp, error);
  if (found !== NEXT) return found;
  const e1 = cpu.lo, e2 = cpu.hi, dpl = e2 >>> 13 & 3;
  const code = DESC.segment | DESC.code;
  if ((e2 & code) !== code || rpl < cpl) return cpu.raise(VECTOR.gp, error);
  if ((e2 & DESC.conforming) !== 0 ? dpl > rpl : dpl !== rpl) return cpu.raise(VECTOR.gp, error);
  if ((e2 & DESC.present) === 0) return cpu.raise(VECTOR.np, error);
  if (rpl === cpl) {
    dropFar(cpu, size, used);
    loadSegment(cpu, SEG.cs, selector, e1, e2);
    return goOn(cpu, lo, hi);
  }
  if (!peekFar(cpu, size, used)) return cpu.failure;
  const spLo = cpu.lo, spHi = cpu.hi;
  used += size;
  if (!peekFar(cpu, size, used)) return cpu.failure;
  const status = outerStack(cpu, cpu.lo & 0xffff, rpl);
  if (status !== NEXT) return status;
  loadSegment(cpu, SEG.cs, selector, e1, e2);
  cpu.cpl = rpl;
  const sp = spLo + release;
  setRegister(cpu, 4, stackSize(cpu), sp % HIGH, sp < HIGH ? spHi : spHi + 1);
  dropDataSegments(cpu, rpl);
  return goOn(cpu, lo, hi);
}

/** Loads the stack segment of an outer privilege. */
export function outerStack(cpu: Processor, selector: number, rpl: number): number {
  const error = selector & 0xfffc;
  if (error === 0) {
    if (!cpu.longMode || rpl === 3) return gp(cpu);
    cpu.selector[SEG.ss] = selector;
    cpu.segBase[SEG.ss * 2] = 0;
    cpu.segBase[SEG.ss * 2 + 1] = 0;
    cpu.limit[SEG.ss] = 0xffffffff;
    cpu.attrib[SEG.ss] = 0xc93 | rpl << 5;
    return NEXT;
  }
  if ((selector & 3) !== rpl) return cpu.raise(VECTOR.gp, error);
  const found = loadDescriptor(cpu, selector);
  if (found < 0) return cpu.raise(VECTOR.gp, error);
  if (found !== NEXT) return found;
  const e2 = cpu.hi;
  if ((e2 & 0x1a00) !== 0x1200 || (e2 >>> 13 & 3) !== rpl) return cpu.raise(VECTOR.gp, error);
  if ((e2 & DESC.present) === 0) return cpu.raise(VECTOR.np, error);
  loadSegment(cpu, SEG.ss, selector, cpu.lo, e2);
  return NEXT;
}
