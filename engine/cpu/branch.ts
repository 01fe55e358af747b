/**
 * Jumps, and where the next instruction is.
 *
 * @module
 */
import * as alu from "./alu.ts";
import { FLAG, NEXT } from "./constants.ts";
import { getRegister, setRegister } from "./operands.ts";
import type { Processor } from "./processor.ts";

const HIGH = 0x1_0000_0000;

/** Address after the current instruction: low and high half. */
export const next: { lo: number; hi: number } = { lo: 0, hi: 0 };

/** Goes on at an address. */
export function jump(cpu: Processor, lo: number, hi: number): number {
  cpu.endOfBlock = true;
  next.lo = lo >>> 0;
  next.hi = cpu.width === 64 ? hi >>> 0 : 0;
  return NEXT;
}

/** Goes on at a distance from the next instruction. */
export function relative(cpu: Processor, distance: number, dflag: number): number {
  let lo = next.lo + distance;
  let hi = next.hi;
  if (lo < 0) {
    lo += HIGH;
    hi--;
  } else if (lo >= HIGH) {
    lo -= HIGH;
    hi++;
  }
  if (cpu.width !== 64 && dflag === 1) lo &= 0xffff;
  return jump(cpu, lo, hi);
}

/** A branch ends the block whether it is taken or not. */
export function taken(cpu: Processor): number {
  cpu.endOfBlock = true;
  return NEXT;
}

/** LOOPNE, LOOPE, LOOP and JCXZ. */
export function loop(cpu: Processor, op: number): number {
  const insn = cpu.insn;
  const size = 1 << insn.aflag;
  cpu.endOfBlock = true;
  getRegister(cpu, 1, size);
  let lo = cpu.lo;
  let hi = cpu.hi;
  if (op !== 0xe3) {
    alu.result.lo = lo;
    if (lo === 0) hi = hi - 1 >>> 0;
    lo = alu.cut(size, lo - 1);
    setRegister(cpu, 1, size, lo, hi);
    if (size < 8) hi = 0;
  }
  const zero = lo === 0 && hi === 0;
  const zf = (cpu.rflags & FLAG.zf) !== 0;
  const go = op === 0xe3 ? zero : !zero && (op === 0xe2 || (op === 0xe1) === zf);
  return go ? relative(cpu, insn.imm, insn.dflag) : NEXT;
}
