/**
 * Executes one decoded instruction.
 *
 * @module
 */
import { hostCpuid } from "../svm/machine.ts";
import { bmi, three38 } from "./bit_operations.ts";
import { ud } from "./faults.ts";
import { next } from "./branch.ts";
import { NEXT, SEG } from "./constants.ts";
import { PREFIX } from "./decode.ts";
import { one } from "./one_byte.ts";
import type { Processor } from "./processor.ts";
import { simd, vex } from "./simd.ts";
import { two } from "./two_byte.ts";

const HIGH = 0x1_0000_0000;

/** 0F 38 82. */
const INVPCID = 0x282;
/** Opcodes of BMI1 and BMI2: 0F 38 F2 to F7, and 0F 3A F0. */
const BMI: ReadonlySet<number> = new Set([0x2f2, 0x2f3, 0x2f5, 0x2f6, 0x2f7, 0x3f0]);

/**
 * Executes `cpu.insn`, which lies at RIP. RIP moves only when the status is
 * NEXT.
 */
export function execute(cpu: Processor): number {
  const insn = cpu.insn;
  let lo = cpu.ripLo + insn.length;
  let hi = cpu.ripHi;
  if (cpu.width !== 64) {
    lo >>>= 0;
    hi = 0;
  } else if (lo >= HIGH) {
    lo -= HIGH;
    hi = hi + 1 >>> 0;
  }
  next.lo = lo;
  next.hi = hi;
  const op = insn.opcode;
  const status = (insn.prefixes & PREFIX.vex) !== 0
    ? BMI.has(op) ? bmi(cpu, op) : vex(cpu)
    : op < 0x100
    ? one(cpu, op)
    : op < 0x200
    ? two(cpu, op & 0xff)
    : op === INVPCID && !hostCpuid(cpu.m.caps).has("invpcid")
    ? ud(cpu)
    : op < 0x300
    ? three38(cpu, op)
    : simd(cpu, op);
  if (status === NEXT) {
    if (cpu.width === 16 && next.lo > 0xffff) wrap(cpu, lo);
    cpu.ripLo = next.lo;
    cpu.ripHi = next.hi;
  }
  return status;
}

/**
 * IP of 16-bit code has 16 bits; QEMU remembers that where its blocks end, which is at the end of a
 * page, and after a jump of 16 bits.
 *
 * @param following Address of the instruction that follows in memory.
 */
function wrap(cpu: Processor, following: number): void {
  if (next.lo !== following || cpu.endOfBlock) return;
  const base = cpu.segBase[SEG.cs * 2] as number;
  if ((base + following) >>> 12 !== (base + cpu.ripLo) >>> 12) next.lo &= 0xffff;
}
