/**
 * Instructions with opcodes after 0F.
 *
 * @module
 */
import * as alu from "./alu.ts";
import { doubleShift, popCount, zeroCount } from "./bit_operations.ts";
import { relative, taken } from "./branch.ts";
import { FLAG, NEXT, SEG, VECTOR } from "./constants.ts";
import { PREFIX } from "./decode.ts";
import { loadRightsOrLimit } from "./descriptor_checks.ts";
import { storeOrRestore } from "./groups.ts";
import {
  address,
  effectiveAddress,
  getOperand,
  getRegister,
  push,
  pushSize,
  setOperand,
  setRegister,
} from "./operands.ts";
import type { Processor } from "./processor.ts";
import { moveToSegment, popSegment } from "./segment_moves.ts";
import { executeSystem } from "./system.ts";

const HIGH = 0x1_0000_0000;

/** Executes the opcode after 0F. */
export function two(cpu: Processor, op: number): number {
  const insn = cpu.insn;
  const big = 1 << insn.dflag;
  const b = insn.rex & 1 ? 8 : 0;
  if (op >= 0x80 && op <= 0x8f) {
    return alu.condition(cpu.rflags, op & 15) ? relative(cpu, insn.imm, insn.dflag) : taken(cpu);
  }
  if (op >= 0x90 && op <= 0x9f) {
    if (insn.mod !== 3) effectiveAddress(cpu);
    return setOperand(cpu, 1, alu.condition(cpu.rflags, op & 15) ? 1 : 0, 0) ? NEXT : cpu.failure;
  }
  if (op >= 0x40 && op <= 0x4f) {
    if (!getOperand(cpu, big)) return cpu.failure;
    if (alu.condition(cpu.rflags, op & 15)) setRegister(cpu, insn.reg, big, cpu.lo, cpu.hi);
    else if (big === 4) cpu.gpr[insn.reg * 2 + 1] = 0;
    return NEXT;
  }
  if (op >= 0xc8 && op <= 0xcf) {
    const register = op & 7 | b;
    const swap = (x: number) =>
      ((x & 0xff) << 24 | (x & 0xff00) << 8 | x >>> 8 & 0xff00 | x >>> 24) >>> 0;
    getRegister(cpu, register, 8);
    if (big === 8) setRegister(cpu, register, 8, swap(cpu.hi), swap(cpu.lo));
    else setRegister(cpu, register, 4, swap(cpu.lo), 0);
    return NEXT;
  }
  switch (op) {
    case 0x0d:
      return insn.mod === 3 ? cpu.raise(VECTOR.ud) : NEXT;
    case 0x18:
    case 0x19:
    case 0x1c:
    case 0x1d:
    case 0x1e:
    case 0x1f:
      return NEXT;
    case 0xa0:
    case 0xa8:
      return push(cpu, pushSize(cpu), cpu.selector[op === 0xa0 ? SEG.fs : SEG.gs] as number, 0)
        ? NEXT
        : cpu.failure;
    case 0xa1:
    case 0xa9:
      return popSegment(cpu, op === 0xa1 ? SEG.fs : SEG.gs);
    case 0xa3:
    case 0xab:
    case 0xb3:
    case 0xbb:
      return bitTest(cpu, op >> 3 & 3, big, false);
    case 0xba: {
      const kind = insn.reg & 7;
      return kind < 4 ? cpu.raise(VECTOR.ud) : bitTest(cpu, kind & 3, big, true);
    }
    case 0xaf: {
      if (!getOperand(cpu, big)) return cpu.failure;
      const lo = cpu.lo;
      const hi = cpu.hi;
      getRegister(cpu, insn.reg, big);
      alu.multiply(cpu, big, cpu.lo, cpu.hi, lo, hi, true);
      setRegister(cpu, insn.reg, big, alu.result.lo, alu.result.hi);
      return NEXT;
    }
    case 0xb0:
    case 0xb1: {
      const size = op === 0xb0 ? 1 : big;
      if (!getOperand(cpu, size)) return cpu.failure;
      const lo = cpu.lo;
      const hi = cpu.hi;
      getRegister(cpu, 0, size);
      alu.sub(cpu, size, cpu.lo, cpu.hi, lo, hi, 0);
      if (cpu.lo === lo && cpu.hi === hi) {
        getRegister(cpu, insn.reg, size);
        return setOperand(cpu, size, cpu.lo, cpu.hi) ? NEXT : cpu.failure;
      }
      // A failed compare writes the old value back.
      if (!setOperand(cpu, size, lo, hi)) return cpu.failure;
      setRegister(cpu, 0, size, lo, hi);
      return NEXT;
    }
    case 0xb6:
    case 0xb7:
    case 0xbe:
    case 0xbf: {
      const from = (op & 1) === 0 ? 1 : 2;
      if (!getOperand(cpu, from)) return cpu.failure;
      const shift = 32 - from * 8;
      const value = op < 0xb8 ? cpu.lo : cpu.lo << shift >> shift;
      setRegister(cpu, insn.reg, big, value >>> 0, value >> 31 >>> 0);
      return NEXT;
    }
    case 0xc0:
    case 0xc1: {
      const size = op === 0xc0 ? 1 : big;
      if (!getOperand(cpu, size)) return cpu.failure;
      const lo = cpu.lo;
      const hi = cpu.hi;
      const flags = cpu.rflags;
      getRegister(cpu, insn.reg, size);
      alu.add(cpu, size, lo, hi, cpu.lo, cpu.hi, 0);
      const sumLo = alu.result.lo;
      const sumHi = alu.result.hi;
      if (insn.mod === 3) {
        setRegister(cpu, insn.reg, size, lo, hi);
        setRegister(cpu, insn.rm, size, sumLo, sumHi);
        return NEXT;
      }
      const status = storeOrRestore(cpu, size, flags);
      if (status === NEXT) setRegister(cpu, insn.reg, size, lo, hi);
      return status;
    }
    case 0xbc:
    case 0xbd:
      return (insn.prefixes & PREFIX.repz) !== 0
        ? zeroCount(cpu, big, op === 0xbd)
        : bitScan(cpu, op, big);
    case 0x02:
    case 0x03:
      return loadRightsOrLimit(cpu, op === 0x03);
    case 0xa4:
    case 0xac:
      return doubleShift(cpu, big, op === 0xa4, insn.imm);
    case 0xa5:
    case 0xad:
      return doubleShift(cpu, big, op === 0xa5, (cpu.gpr[2] as number) & 0xff);
    case 0xb8:
      return popCount(cpu, big);
    case 0xc3:
      if (insn.mod === 3) return cpu.raise(VECTOR.ud);
      effectiveAddress(cpu);
      getRegister(cpu, insn.reg, big === 8 ? 8 : 4);
      return setOperand(cpu, big === 8 ? 8 : 4, cpu.lo, cpu.hi) ? NEXT : cpu.failure;
    case 0xb2:
    case 0xb4:
    case 0xb5: {
      if (insn.mod === 3) return cpu.raise(VECTOR.ud);
      effectiveAddress(cpu);
      const { lo, hi } = address;
      if (!cpu.read(lo, hi, big, cpu.who)) return cpu.failure;
      const offset = cpu.lo;
      const offsetHi = cpu.hi;
      const end = lo + big;
      if (!cpu.read(end % HIGH, end >= HIGH ? hi + 1 >>> 0 : hi, 2, cpu.who)) return cpu.failure;
      const status = moveToSegment(cpu, op & 7, cpu.lo);
      if (status === NEXT) setRegister(cpu, insn.reg, big, offset, offsetHi);
      return status;
    }
  }
  return executeSystem(cpu, 0x100 | op);
}

// BT, BTS, BTR, BTC by `kind`; a register offset reaches beyond a memory operand.
function bitTest(cpu: Processor, kind: number, size: number, immediate: boolean): number {
  const insn = cpu.insn;
  const bits = size * 8;
  let bit = insn.imm & bits - 1;
  if (!immediate) {
    getRegister(cpu, insn.reg, size);
    bit = cpu.lo & bits - 1;
    if (insn.mod !== 3) {
      const words = size === 2
        ? cpu.lo << 16 >> 20
        : size === 4
        ? cpu.lo >> 5
        : Number(BigInt.asIntN(64, BigInt(cpu.hi) << 32n | BigInt(cpu.lo)) >> 6n);
      effectiveAddress(cpu);
      const lo = address.lo + words * size;
      address.hi = (address.hi + Math.floor(lo / HIGH)) >>> 0;
      address.lo = lo - Math.floor(lo / HIGH) * HIGH;
    }
  }
  if (insn.mod === 3) getRegister(cpu, insn.rm, size);
  else {
    if (immediate) effectiveAddress(cpu);
    if (!cpu.read(address.lo, address.hi, size, cpu.who)) return cpu.failure;
  }
  let lo = cpu.lo;
  let hi = cpu.hi;
  const mask = 1 << (bit & 31);
  const half = bit < 32 ? lo : hi;
  const carry = half >>> (bit & 31) & 1;
  const changed = kind === 1 ? half | mask : kind === 2 ? half & ~mask : half ^ mask;
  if (bit < 32) lo = changed >>> 0;
  else hi = changed >>> 0;
  if (kind !== 0 && !setOperand(cpu, size, lo, hi)) return cpu.failure;
  cpu.rflags = cpu.rflags & ~FLAG.cf | carry;
  return NEXT;
}

function bitScan(cpu: Processor, op: number, size: number): number {
  if (!getOperand(cpu, size)) return cpu.failure;
  const { lo, hi } = cpu;
  alu.logic(cpu, size, lo, hi);
  if (lo === 0 && hi === 0) return NEXT;
  const index = op === 0xbc
    ? lo !== 0 ? 31 - Math.clz32(lo & -lo) : 63 - Math.clz32(hi & -hi)
    : hi !== 0
    ? 63 - Math.clz32(hi)
    : 31 - Math.clz32(lo);
  setRegister(cpu, cpu.insn.reg, size, index, 0);
  return NEXT;
}
