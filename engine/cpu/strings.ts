/**
 * String instructions, one iteration at a time.
 *
 * @module
 */
import * as alu from "./alu.ts";
import { next } from "./branch.ts";
import { FLAG, NEXT, SEG } from "./constants.ts";
import { PREFIX } from "./decode.ts";
import { address, addSegment, getRegister, setRegister } from "./operands.ts";
import type { Processor } from "./processor.ts";

const HIGH = 0x1_0000_0000;

function advance(cpu: Processor, register: number, size: number, bytes: number): void {
  getRegister(cpu, register, size);
  let lo = cpu.lo + bytes;
  let hi = cpu.hi;
  if (lo < 0) {
    lo += HIGH;
    hi--;
  } else if (lo >= HIGH) {
    lo -= HIGH;
    hi++;
  }
  setRegister(cpu, register, size, alu.cut(size, lo), hi >>> 0);
}

/** One iteration; a repeated instruction stays at RIP until its count is used up. */
export function stringOperation(cpu: Processor, op: number, size: number): number {
  const insn = cpu.insn;
  const width = 1 << insn.aflag;
  const repeated = (insn.prefixes & (PREFIX.repz | PREFIX.repnz)) !== 0;
  if (repeated) {
    getRegister(cpu, 1, width);
    if (cpu.lo === 0 && cpu.hi === 0) return NEXT;
  }
  const by = (cpu.rflags & FLAG.df) !== 0 ? -size : size;
  const kind = op & 0xfe;
  const source = insn.segment >= 0 ? insn.segment : SEG.ds;
  const who = cpu.who;
  const at = (register: number, segment: number) => {
    getRegister(cpu, register, width);
    addSegment(cpu, segment, cpu.lo, cpu.hi);
  };
  if (kind === 0xa4 || kind === 0xac || kind === 0xa6) {
    at(6, source);
    if (!cpu.read(address.lo, address.hi, size, who)) return cpu.failure;
  } else getRegister(cpu, 0, size);
  const lo = cpu.lo;
  const hi = cpu.hi;
  if (kind === 0xac) setRegister(cpu, 0, size, lo, hi);
  else {
    at(7, SEG.es);
    if (kind === 0xa4 || kind === 0xaa) {
      if (!cpu.write(address.lo, address.hi, size, lo, hi, who)) return cpu.failure;
    } else {
      if (!cpu.read(address.lo, address.hi, size, who)) return cpu.failure;
      alu.sub(cpu, size, lo, hi, cpu.lo, cpu.hi, 0);
    }
    advance(cpu, 7, width, by);
  }
  if (kind === 0xa4 || kind === 0xac || kind === 0xa6) advance(cpu, 6, width, by);
  if (!repeated) return NEXT;
  advance(cpu, 1, width, -1);
  getRegister(cpu, 1, width);
  if (kind === 0xa6 || kind === 0xae) {
    const zf = (cpu.rflags & FLAG.zf) !== 0;
    if (zf !== ((insn.prefixes & PREFIX.repz) !== 0)) return NEXT;
  }
  if (cpu.lo !== 0 || cpu.hi !== 0) {
    next.lo = cpu.ripLo;
    next.hi = cpu.ripHi;
  }
  cpu.endOfBlock = true;
  return NEXT;
}
