/**
 * Arithmetic instructions and the groups that ModRM.reg selects from.
 *
 * @module
 */
import * as alu from "./alu.ts";
import { jump, next } from "./branch.ts";
import { NEXT, VECTOR } from "./constants.ts";
import { PREFIX } from "./decode.ts";
import { farCall, farJump } from "./far_transfer.ts";
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

const HIGH = 0x1_0000_0000;

/** Writes the result to the ModRM.rm operand. */
export function store(cpu: Processor, size: number): number {
  return setOperand(cpu, size, alu.result.lo, alu.result.hi) ? NEXT : cpu.failure;
}

/** A store that faults leaves the flags as they were. */
export function storeOrRestore(cpu: Processor, size: number, flags: number): number {
  const status = store(cpu, size);
  if (status !== NEXT) cpu.rflags = flags;
  return status;
}

/** ADD to CMP in their six forms. */
export function arithmetic(cpu: Processor, op: number): number {
  const insn = cpu.insn;
  const size = (op & 1) === 0 ? 1 : 1 << insn.dflag;
  const kind = op >> 3 & 7;
  const form = op >> 1 & 3;
  const locked = (insn.prefixes & PREFIX.lock) !== 0;
  if (locked && (form !== 0 || insn.mod === 3 || kind === 7)) return cpu.raise(VECTOR.ud);
  if (form === 2) {
    getRegister(cpu, 0, size);
    alu.group1(
      cpu,
      kind,
      size,
      cpu.lo,
      cpu.hi,
      alu.cut(size, insn.imm),
      size === 8 ? insn.immHi >>> 0 : 0,
    );
    if (kind !== 7) setRegister(cpu, 0, size, alu.result.lo, alu.result.hi);
    return NEXT;
  }
  if (!getOperand(cpu, size)) return cpu.failure;
  const mLo = cpu.lo;
  const mHi = cpu.hi;
  getRegister(cpu, insn.reg, size);
  if (form === 0) {
    const flags = cpu.rflags;
    alu.group1(cpu, kind, size, mLo, mHi, cpu.lo, cpu.hi);
    if (kind === 7) return NEXT;
    const status = store(cpu, size);
    if (status !== NEXT) cpu.rflags = flags;
    return status;
  }
  alu.group1(cpu, kind, size, cpu.lo, cpu.hi, mLo, mHi);
  if (kind !== 7) setRegister(cpu, insn.reg, size, alu.result.lo, alu.result.hi);
  return NEXT;
}

/** TEST, NOT, NEG, MUL, IMUL, DIV, IDIV. */
export function group3(cpu: Processor, size: number): number {
  const insn = cpu.insn;
  const kind = insn.reg & 7;
  if (kind === 1) return cpu.raise(VECTOR.ud);
  if (!getOperand(cpu, size)) return cpu.failure;
  const lo = cpu.lo;
  const hi = cpu.hi;
  const flags = cpu.rflags;
  switch (kind) {
    case 0:
      alu.logic(cpu, size, lo & insn.imm, hi & insn.immHi);
      return NEXT;
    case 2:
      return setOperand(cpu, size, alu.cut(size, ~lo), ~hi >>> 0) ? NEXT : cpu.failure;
    case 3:
      alu.sub(cpu, size, 0, 0, lo, hi, 0);
      return storeOrRestore(cpu, size, flags);
    case 4:
    case 5: {
      getRegister(cpu, 0, size);
      const product = alu.multiply(cpu, size, cpu.lo, cpu.hi, lo, hi, kind === 5);
      if (size === 1) setRegister(cpu, 0, 2, Number(product), 0);
      else {
        setRegister(cpu, 0, size, alu.result.lo, alu.result.hi);
        const high = product >> BigInt(size * 8);
        setRegister(cpu, 2, size, Number(high & 0xffffffffn), Number(high >> 32n));
      }
      return NEXT;
    }
    default: {
      const bits = BigInt(size * 8);
      getRegister(cpu, 0, size === 1 ? 2 : size);
      let dividend = BigInt(cpu.hi) << 32n | BigInt(cpu.lo);
      if (size > 1) {
        getRegister(cpu, 2, size);
        dividend |= (BigInt(cpu.hi) << 32n | BigInt(cpu.lo)) << bits;
      }
      const quotient = alu.divide(size, dividend, lo, hi, kind === 7);
      if (quotient === undefined) return cpu.raise(VECTOR.de);
      const [q, r] = quotient;
      if (size === 1) setRegister(cpu, 0, 2, Number(q | r << 8n), 0);
      else {
        setRegister(cpu, 0, size, Number(q & 0xffffffffn), Number(q >> 32n));
        setRegister(cpu, 2, size, Number(r & 0xffffffffn), Number(r >> 32n));
      }
      return NEXT;
    }
  }
}

/** INC, DEC, CALL, JMP and PUSH of ModRM.rm. */
export function group5(cpu: Processor, op: number, size: number): number {
  const insn = cpu.insn;
  const kind = insn.reg & 7;
  if ((op === 0xfe && kind > 1) || kind === 7) return cpu.raise(VECTOR.ud);
  switch (kind) {
    case 0:
    case 1: {
      if (!getOperand(cpu, size)) return cpu.failure;
      const flags = cpu.rflags;
      alu.step(cpu, size, cpu.lo, cpu.hi, kind === 0 ? 1 : -1);
      return storeOrRestore(cpu, size, flags);
    }
    case 2:
    case 4: {
      const bytes = cpu.width === 64 ? 8 : size;
      if (!getOperand(cpu, bytes)) return cpu.failure;
      const lo = cpu.lo;
      const hi = cpu.hi;
      if (kind === 2 && !push(cpu, pushSize(cpu), next.lo, next.hi)) return cpu.failure;
      return jump(cpu, lo, hi);
    }
    case 6: {
      const bytes = pushSize(cpu);
      if (!getOperand(cpu, bytes)) return cpu.failure;
      return push(cpu, bytes, cpu.lo, cpu.hi) ? NEXT : cpu.failure;
    }
  }
  if (insn.mod === 3) return cpu.raise(VECTOR.ud);
  effectiveAddress(cpu);
  if (!cpu.read(address.lo, address.hi, size, cpu.who)) return cpu.failure;
  const offset = cpu.lo, offsetHi = cpu.hi;
  const end = address.lo + size;
  const endHi = end >= HIGH && cpu.width === 64 ? address.hi + 1 >>> 0 : address.hi;
  if (!cpu.read(end % HIGH, endHi, 2, cpu.who)) return cpu.failure;
  return kind === 3
    ? farCall(cpu, cpu.lo, offset, offsetHi, size)
    : farJump(cpu, cpu.lo, offset, offsetHi);
}
