/**
 * Executes one decoded instruction: the integer instruction set; what belongs
 * to the system is in system.ts.
 *
 * @module
 */
import * as alu from "./alu.ts";
import { PREFIX } from "./decode.ts";
import {
  address,
  addSegment,
  drop,
  effectiveAddress,
  getOperand,
  getRegister,
  peek,
  push,
  pushSize,
  setOperand,
  setRegister,
  stackSize,
} from "./operands.ts";
import { FLAG, HALTED, NEXT, SEG, UNMODELLED, VECTOR } from "./constants.ts";
import type { Processor } from "./processor.ts";
import { loadSelector, loadSelectorReal } from "./segments.ts";
import { executeSystem } from "./system.ts";

const HIGH = 0x1_0000_0000;

/** Address after the current instruction: low and high half. */
export const next: { lo: number; hi: number } = { lo: 0, hi: 0 };

/**
 * Executes `cpu.insn`, which lies at RIP. RIP moves only when the status is
 * NEXT.
 */
export function execute(cpu: Processor): number {
  const insn = cpu.insn;
  let lo = cpu.ripLo + insn.length;
  let hi = cpu.ripHi;
  if (cpu.width !== 64) {
    lo %= HIGH;
    hi = 0;
  } else if (lo >= HIGH) {
    lo -= HIGH;
    hi = hi + 1 >>> 0;
  }
  next.lo = lo;
  next.hi = hi;
  const op = insn.opcode;
  const status = (insn.prefixes & PREFIX.vex) !== 0
    ? UNMODELLED
    : op < 0x100
    ? one(cpu, op)
    : op < 0x200
    ? two(cpu, op & 0xff)
    : UNMODELLED;
  if (status === NEXT) {
    cpu.ripLo = next.lo;
    cpu.ripHi = next.hi;
  }
  return status;
}

function jump(cpu: Processor, lo: number, hi: number): number {
  cpu.endOfBlock = true;
  next.lo = lo >>> 0;
  next.hi = cpu.width === 64 ? hi >>> 0 : 0;
  return NEXT;
}

function relative(cpu: Processor, distance: number, dflag: number): number {
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

function store(cpu: Processor, size: number): number {
  return setOperand(cpu, size, alu.result.lo, alu.result.hi) ? NEXT : cpu.failure;
}

function arithmetic(cpu: Processor, op: number): number {
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

// A store that faults leaves the flags as they were.
function storeOrRestore(cpu: Processor, size: number, flags: number): number {
  const status = store(cpu, size);
  if (status !== NEXT) cpu.rflags = flags;
  return status;
}

function one(cpu: Processor, op: number): number {
  const insn = cpu.insn;
  const wide = cpu.width === 64;
  if (op < 0x40 && (op & 7) < 6) return arithmetic(cpu, op);
  const size = (op & 1) === 0 ? 1 : 1 << insn.dflag;
  const big = 1 << insn.dflag;
  const b = insn.rex & 1 ? 8 : 0;
  switch (op) {
    case 0x06:
    case 0x0e:
    case 0x16:
    case 0x1e: {
      if (wide) return cpu.raise(VECTOR.ud);
      return push(cpu, pushSize(cpu), cpu.selector[op >> 3] as number, 0) ? NEXT : cpu.failure;
    }
    case 0x07:
    case 0x17:
    case 0x1f: {
      if (wide) return cpu.raise(VECTOR.ud);
      return popSegment(cpu, op >> 3);
    }
    case 0x50:
    case 0x51:
    case 0x52:
    case 0x53:
    case 0x54:
    case 0x55:
    case 0x56:
    case 0x57: {
      const bytes = pushSize(cpu);
      getRegister(cpu, op & 7 | b, bytes === 2 ? 2 : 8);
      return push(cpu, bytes, cpu.lo, cpu.hi) ? NEXT : cpu.failure;
    }
    case 0x58:
    case 0x59:
    case 0x5a:
    case 0x5b:
    case 0x5c:
    case 0x5d:
    case 0x5e:
    case 0x5f: {
      const bytes = pushSize(cpu);
      if (!peek(cpu, bytes)) return cpu.failure;
      const lo = cpu.lo;
      const hi = cpu.hi;
      drop(cpu, bytes);
      setRegister(cpu, op & 7 | b, bytes, lo, hi);
      return NEXT;
    }
    case 0x60:
    case 0x61:
      return wide ? cpu.raise(VECTOR.ud) : op === 0x60 ? pushAll(cpu) : popAll(cpu);
    case 0x62: {
      if (wide || insn.mod === 3) return cpu.raise(VECTOR.ud);
      return bound(cpu, big);
    }
    case 0x63: {
      if (!wide) return UNMODELLED;
      if (!getOperand(cpu, big < 4 ? 2 : 4)) return cpu.failure;
      setRegister(cpu, insn.reg, big, cpu.lo, cpu.lo >> 31 >>> 0);
      return NEXT;
    }
    case 0x68:
    case 0x6a:
      return push(cpu, pushSize(cpu), insn.imm >>> 0, insn.immHi >>> 0) ? NEXT : cpu.failure;
    case 0x69:
    case 0x6b: {
      if (!getOperand(cpu, big)) return cpu.failure;
      const bLo = alu.cut(big, insn.imm);
      alu.multiply(cpu, big, cpu.lo, cpu.hi, bLo, big === 8 ? insn.immHi >>> 0 : 0, true);
      setRegister(cpu, insn.reg, big, alu.result.lo, alu.result.hi);
      return NEXT;
    }
    case 0x80:
    case 0x81:
    case 0x82:
    case 0x83: {
      if (op === 0x82 && wide) return cpu.raise(VECTOR.ud);
      const kind = insn.reg & 7;
      if ((insn.prefixes & PREFIX.lock) !== 0 && (insn.mod === 3 || kind === 7)) {
        return cpu.raise(VECTOR.ud);
      }
      if (!getOperand(cpu, size)) return cpu.failure;
      const flags = cpu.rflags;
      const immHi = size === 8 ? insn.immHi >>> 0 : 0;
      alu.group1(cpu, kind, size, cpu.lo, cpu.hi, alu.cut(size, insn.imm), immHi);
      return kind === 7 ? NEXT : storeOrRestore(cpu, size, flags);
    }
    case 0x84:
    case 0x85: {
      if (!getOperand(cpu, size)) return cpu.failure;
      const lo = cpu.lo;
      const hi = cpu.hi;
      getRegister(cpu, insn.reg, size);
      alu.logic(cpu, size, lo & cpu.lo, hi & cpu.hi);
      return NEXT;
    }
    case 0x86:
    case 0x87: {
      if (!getOperand(cpu, size)) return cpu.failure;
      const lo = cpu.lo;
      const hi = cpu.hi;
      getRegister(cpu, insn.reg, size);
      if (!setOperand(cpu, size, cpu.lo, cpu.hi)) return cpu.failure;
      setRegister(cpu, insn.reg, size, lo, hi);
      return NEXT;
    }
    case 0x88:
    case 0x89: {
      if (insn.mod !== 3) effectiveAddress(cpu);
      getRegister(cpu, insn.reg, size);
      return setOperand(cpu, size, cpu.lo, cpu.hi) ? NEXT : cpu.failure;
    }
    case 0x8a:
    case 0x8b: {
      if (!getOperand(cpu, size)) return cpu.failure;
      setRegister(cpu, insn.reg, size, cpu.lo, cpu.hi);
      return NEXT;
    }
    case 0x8c: {
      const segment = insn.reg & 7;
      if (segment >= 6) return cpu.raise(VECTOR.ud);
      if (insn.mod !== 3) effectiveAddress(cpu);
      const bytes = insn.mod === 3 ? big : 2;
      return setOperand(cpu, bytes, cpu.selector[segment] as number, 0) ? NEXT : cpu.failure;
    }
    case 0x8d: {
      if (insn.mod === 3) return cpu.raise(VECTOR.ud);
      effectiveAddress(cpu);
      setRegister(cpu, insn.reg, big, address.offsetLo, address.offsetHi);
      return NEXT;
    }
    case 0x8e: {
      const segment = insn.reg & 7;
      if (segment >= 6 || segment === SEG.cs) return cpu.raise(VECTOR.ud);
      if (!getOperand(cpu, 2)) return cpu.failure;
      return moveToSegment(cpu, segment, cpu.lo);
    }
    case 0x8f: {
      if ((insn.reg & 7) !== 0) return cpu.raise(VECTOR.ud);
      const bytes = pushSize(cpu);
      if (!peek(cpu, bytes)) return cpu.failure;
      const lo = cpu.lo;
      const hi = cpu.hi;
      const spLo = cpu.gpr[8] as number;
      const spHi = cpu.gpr[9] as number;
      drop(cpu, bytes);
      if (insn.mod !== 3) effectiveAddress(cpu);
      if (setOperand(cpu, bytes, lo, hi)) return NEXT;
      cpu.gpr[8] = spLo;
      cpu.gpr[9] = spHi;
      return cpu.failure;
    }
    case 0x90:
      if (b === 0) {
        return (insn.prefixes & PREFIX.repz) !== 0 ? executeSystem(cpu, op, next) : NEXT;
      }
      return exchange(cpu, 8, big);
    case 0x91:
    case 0x92:
    case 0x93:
    case 0x94:
    case 0x95:
    case 0x96:
    case 0x97:
      return exchange(cpu, op & 7 | b, big);
    case 0x98: {
      getRegister(cpu, 0, big >> 1);
      const sign = big === 8 ? cpu.lo : cpu.lo << 32 - big * 4 >> 32 - big * 4;
      setRegister(cpu, 0, big, sign >>> 0, sign >> 31 >>> 0);
      return NEXT;
    }
    case 0x99: {
      getRegister(cpu, 0, big);
      const top = big === 8 ? cpu.hi : cpu.lo << 32 - big * 8;
      setRegister(cpu, 2, big, top >> 31 >>> 0, top >> 31 >>> 0);
      return NEXT;
    }
    case 0x9b:
    case 0x9a:
      return wide && op === 0x9a ? cpu.raise(VECTOR.ud) : UNMODELLED;
    case 0x9e: {
      getRegister(cpu, 0, 2);
      cpu.rflags = cpu.rflags & ~0xd5 | cpu.lo >> 8 & 0xd5;
      return NEXT;
    }
    case 0x9f: {
      const ah = cpu.rflags & 0xd5 | 2;
      cpu.gpr[0] = (cpu.gpr[0] as number) & ~0xff00 | ah << 8;
      return NEXT;
    }
    case 0xa0:
    case 0xa1:
    case 0xa2:
    case 0xa3: {
      effectiveAddress(cpu);
      if (op < 0xa2) {
        if (!cpu.read(address.lo, address.hi, size, cpu.who)) return cpu.failure;
        setRegister(cpu, 0, size, cpu.lo, cpu.hi);
        return NEXT;
      }
      getRegister(cpu, 0, size);
      return cpu.write(address.lo, address.hi, size, cpu.lo, cpu.hi, cpu.who) ? NEXT : cpu.failure;
    }
    case 0xa4:
    case 0xa5:
    case 0xa6:
    case 0xa7:
    case 0xaa:
    case 0xab:
    case 0xac:
    case 0xad:
    case 0xae:
    case 0xaf:
      return stringOperation(cpu, op, size);
    case 0xa8:
    case 0xa9: {
      getRegister(cpu, 0, size);
      alu.logic(cpu, size, cpu.lo & insn.imm, cpu.hi & insn.immHi);
      return NEXT;
    }
    case 0xb0:
    case 0xb1:
    case 0xb2:
    case 0xb3:
    case 0xb4:
    case 0xb5:
    case 0xb6:
    case 0xb7:
      setRegister(cpu, op & 7 | b, 1, insn.imm, 0);
      return NEXT;
    case 0xb8:
    case 0xb9:
    case 0xba:
    case 0xbb:
    case 0xbc:
    case 0xbd:
    case 0xbe:
    case 0xbf:
      setRegister(cpu, op & 7 | b, big, insn.imm >>> 0, insn.immHi >>> 0);
      return NEXT;
    case 0xc0:
    case 0xc1:
    case 0xd0:
    case 0xd1:
    case 0xd2:
    case 0xd3: {
      const count = op < 0xd0 ? insn.imm & 0xff : op < 0xd2 ? 1 : (cpu.gpr[2] as number) & 0xff;
      if (!getOperand(cpu, size)) return cpu.failure;
      const flags = cpu.rflags;
      alu.shift(cpu, insn.reg & 7, size, cpu.lo, cpu.hi, count);
      return storeOrRestore(cpu, size, flags);
    }
    case 0xc2:
    case 0xc3: {
      const bytes = pushSize(cpu);
      if (!peek(cpu, bytes)) return cpu.failure;
      const lo = cpu.lo;
      const hi = cpu.hi;
      drop(cpu, bytes + (op === 0xc2 ? insn.imm : 0));
      return jump(cpu, lo, hi);
    }
    case 0xc4:
    case 0xc5: {
      if (wide || insn.mod === 3) return cpu.raise(VECTOR.ud);
      effectiveAddress(cpu);
      if (!cpu.read(address.lo, 0, big, cpu.who)) return cpu.failure;
      const offset = cpu.lo;
      if (!cpu.read((address.lo + big) % HIGH, 0, 2, cpu.who)) return cpu.failure;
      const status = moveToSegment(cpu, op === 0xc4 ? SEG.es : SEG.ds, cpu.lo);
      if (status === NEXT) setRegister(cpu, insn.reg, big, offset, 0);
      return status;
    }
    case 0xc6:
    case 0xc7: {
      if (insn.mod !== 3) effectiveAddress(cpu);
      return setOperand(cpu, size, insn.imm >>> 0, insn.immHi >>> 0) ? NEXT : cpu.failure;
    }
    case 0xc9: {
      // LEAVE: the stack pointer is the frame pointer.
      const bytes = pushSize(cpu);
      const spLo = cpu.gpr[8] as number;
      const spHi = cpu.gpr[9] as number;
      setRegister(cpu, 4, stackSize(cpu), cpu.gpr[10] as number, cpu.gpr[11] as number);
      if (!peek(cpu, bytes)) {
        cpu.gpr[8] = spLo;
        cpu.gpr[9] = spHi;
        return cpu.failure;
      }
      const lo = cpu.lo;
      const hi = cpu.hi;
      drop(cpu, bytes);
      setRegister(cpu, 5, bytes, lo, hi);
      return NEXT;
    }
    case 0xd6:
      if (wide) return cpu.raise(VECTOR.ud);
      setRegister(cpu, 0, 1, (cpu.rflags & FLAG.cf) !== 0 ? 0xff : 0, 0);
      return NEXT;
    case 0xd7: {
      const al = (cpu.gpr[0] as number) & 0xff;
      insn.base = 3;
      insn.index = -1;
      insn.disp = al;
      insn.dispHi = 0;
      effectiveAddress(cpu);
      if (!cpu.read(address.lo, address.hi, 1, cpu.who)) return cpu.failure;
      setRegister(cpu, 0, 1, cpu.lo, 0);
      return NEXT;
    }
    case 0xe0:
    case 0xe1:
    case 0xe2:
    case 0xe3:
      return loop(cpu, op);
    case 0xe8:
      return push(cpu, pushSize(cpu), next.lo, next.hi)
        ? relative(cpu, insn.imm, insn.dflag)
        : cpu.failure;
    case 0xe9:
    case 0xeb:
      // A jump to itself never ends: no interrupt comes from outside.
      if (insn.imm === -insn.length && !cpu.virq && (cpu.rflags & FLAG.tf) === 0) return HALTED;
      return relative(cpu, insn.imm, insn.dflag);
    case 0xea:
      return wide ? cpu.raise(VECTOR.ud) : farJump(cpu, insn.imm2, alu.cut(big, insn.imm));
    case 0xf5:
      cpu.rflags ^= FLAG.cf;
      return NEXT;
    case 0xf6:
    case 0xf7:
      return group3(cpu, size);
    case 0xf8:
      cpu.rflags &= ~FLAG.cf;
      return NEXT;
    case 0xf9:
      cpu.rflags |= FLAG.cf;
      return NEXT;
    case 0xfc:
      cpu.rflags &= ~FLAG.df;
      return NEXT;
    case 0xfd:
      cpu.rflags |= FLAG.df;
      return NEXT;
    case 0xfe:
    case 0xff:
      return group5(cpu, op, size);
    case 0xd8:
    case 0xd9:
    case 0xda:
    case 0xdb:
    case 0xdc:
    case 0xdd:
    case 0xde:
    case 0xdf:
      // Bits EM and TS of CR0 come first; the x87 itself is not modelled.
      return (cpu.cr0 & 0xc) !== 0 ? cpu.raise(VECTOR.nm) : UNMODELLED;
    case 0x27:
    case 0x2f:
    case 0x37:
    case 0x3f:
    case 0xd4:
    case 0xd5:
      return wide ? cpu.raise(VECTOR.ud) : UNMODELLED;
    case 0xc8:
      return UNMODELLED;
  }
  if (op >= 0x70 && op <= 0x7f) {
    return alu.condition(cpu.rflags, op & 15) ? relative(cpu, insn.imm, insn.dflag) : taken(cpu);
  }
  if (op >= 0x40 && op <= 0x4f) {
    getRegister(cpu, op & 7, big);
    alu.step(cpu, big, cpu.lo, cpu.hi, op < 0x48 ? 1 : -1);
    setRegister(cpu, op & 7, big, alu.result.lo, alu.result.hi);
    return NEXT;
  }
  return executeSystem(cpu, op, next);
}

// A branch ends the block whether it is taken or not.
function taken(cpu: Processor): number {
  cpu.endOfBlock = true;
  return NEXT;
}

function exchange(cpu: Processor, register: number, size: number): number {
  getRegister(cpu, register, size);
  const lo = cpu.lo;
  const hi = cpu.hi;
  getRegister(cpu, 0, size);
  setRegister(cpu, register, size, cpu.lo, cpu.hi);
  setRegister(cpu, 0, size, lo, hi);
  return NEXT;
}

function moveToSegment(cpu: Processor, segment: number, selector: number): number {
  if (cpu.protectedMode && !cpu.vm86) {
    const status = loadSelector(cpu, segment, selector);
    if (status !== NEXT) return status;
  } else loadSelectorReal(cpu, segment, selector);
  if (segment === SEG.ss) {
    cpu.shadow = true;
    cpu.endOfBlock = true;
  } else if (cpu.width !== 64) cpu.endOfBlock = true;
  return NEXT;
}

function popSegment(cpu: Processor, segment: number): number {
  const bytes = pushSize(cpu);
  if (!peek(cpu, bytes)) return cpu.failure;
  const status = moveToSegment(cpu, segment, cpu.lo & 0xffff);
  if (status === NEXT) drop(cpu, bytes);
  return status;
}

function pushAll(cpu: Processor): number {
  const size = 1 << cpu.insn.dflag;
  const sp = cpu.gpr[8] as number;
  for (let register = 0; register < 8; register++) {
    getRegister(cpu, register, size);
    if (!push(cpu, size, register === 4 ? alu.cut(size, sp) : cpu.lo, 0)) {
      cpu.gpr[8] = sp;
      return cpu.failure;
    }
  }
  return NEXT;
}

function popAll(cpu: Processor): number {
  const size = 1 << cpu.insn.dflag;
  for (let i = 0; i < 8; i++) {
    if (!peek(cpu, size, i * size)) return cpu.failure;
    if (i !== 3) setRegister(cpu, 7 - i, size, cpu.lo, 0);
  }
  drop(cpu, size * 8);
  return NEXT;
}

function bound(cpu: Processor, size: number): number {
  effectiveAddress(cpu);
  const signed = (x: number) => size === 2 ? x << 16 >> 16 : x | 0;
  if (!cpu.read(address.lo, address.hi, size, cpu.who)) return cpu.failure;
  const low = signed(cpu.lo);
  if (!cpu.read((address.lo + size) % HIGH, address.hi, size, cpu.who)) return cpu.failure;
  const high = signed(cpu.lo);
  getRegister(cpu, cpu.insn.reg, size);
  const index = signed(cpu.lo);
  return index < low || index > high ? cpu.raise(VECTOR.br) : NEXT;
}

function loop(cpu: Processor, op: number): number {
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

function farJump(cpu: Processor, selector: number, offset: number): number {
  if (cpu.protectedMode && !cpu.vm86) return UNMODELLED;
  loadSelectorReal(cpu, SEG.cs, selector);
  return jump(cpu, offset, 0);
}

function group3(cpu: Processor, size: number): number {
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

function group5(cpu: Processor, op: number, size: number): number {
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
  if (kind === 3 || (cpu.protectedMode && !cpu.vm86)) return UNMODELLED;
  effectiveAddress(cpu);
  if (!cpu.read(address.lo, 0, size, cpu.who)) return cpu.failure;
  const offset = cpu.lo;
  if (!cpu.read((address.lo + size) % HIGH, 0, 2, cpu.who)) return cpu.failure;
  return farJump(cpu, cpu.lo, offset);
}

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

// One iteration; a repeated instruction stays at RIP until its count is used up.
function stringOperation(cpu: Processor, op: number, size: number): number {
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

function two(cpu: Processor, op: number): number {
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
      if ((insn.prefixes & PREFIX.repz) !== 0) return UNMODELLED;
      return bitScan(cpu, op, big);
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
  return executeSystem(cpu, 0x100 | op, next);
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
      const offset = size === 2 ? cpu.lo << 16 >> 16 : size === 4 ? cpu.lo | 0 : cpu.lo;
      if (size === 8) return UNMODELLED;
      effectiveAddress(cpu);
      const distance = (offset >> (size === 2 ? 4 : 5)) * size;
      const lo = address.lo + distance;
      address.hi = (address.hi + (lo < 0 ? -1 : lo >= HIGH ? 1 : 0)) >>> 0;
      address.lo = lo >>> 0;
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
