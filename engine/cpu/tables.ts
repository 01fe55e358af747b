/**
 * Descriptor table registers, LDTR and TR.
 *
 * @module
 */
import { EXIT, EXIT_CODE, NEXT, SEG, VECTOR } from "./constants.ts";
import { verify } from "./descriptor_checks.ts";
import { gp, ud } from "./faults.ts";
import { address, effectiveAddress, getOperand, setOperand } from "./operands.ts";
import type { Processor } from "./processor.ts";
import { loadDescriptor, loadSegment } from "./segments.ts";

const HIGH = 0x1_0000_0000;

/** Whether CR4.UMIP forbids it here. */
export function umip(cpu: Processor): boolean {
  return (cpu.cr4 & 1 << 11) !== 0 && cpu.cpl !== 0;
}

/** SLDT, STR, LLDT, LTR, VERR and VERW. */
export function group6(cpu: Processor): number {
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
  if (kind > 3) return verify(cpu, kind === 5);
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

function pieceAfter(lo: number, hi: number, by: number): [number, number] {
  const sum = lo + by;
  return sum >= HIGH ? [sum - HIGH, hi + 1 >>> 0] : [sum, hi];
}

/** SGDT and SIDT. */
export function storeTable(cpu: Processor, table: number): number {
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

/** LGDT and LIDT. */
export function loadTableRegister(cpu: Processor, table: number): number {
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
