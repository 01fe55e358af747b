/**
 * Instructions with one-byte opcodes.
 *
 * @module
 */
import * as alu from "./alu.ts";
import { jump, loop, next, relative, taken } from "./branch.ts";
import { FLAG, HALTED, NEXT, SEG, VECTOR } from "./constants.ts";
import { decimal } from "./decimal.ts";
import { PREFIX } from "./decode.ts";
import { adjustPrivilege } from "./descriptor_checks.ts";
import { farCall, farJump } from "./far_transfer.ts";
import { arithmetic, group3, group5, storeOrRestore } from "./groups.ts";
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
  stackSize,
} from "./operands.ts";
import type { Processor } from "./processor.ts";
import { moveToSegment, popSegment } from "./segment_moves.ts";
import { stringOperation } from "./strings.ts";
import { executeSystem } from "./system.ts";
import { wait, x87 } from "./x87.ts";

const HIGH = 0x1_0000_0000;

/** Executes a one-byte opcode. */
export function one(cpu: Processor, op: number): number {
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
      if (!wide) return adjustPrivilege(cpu);
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
      if ((insn.reg & 7) !== 0 && !cpu.model.popsAnyReg) return cpu.raise(VECTOR.ud);
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
        return (insn.prefixes & PREFIX.repz) !== 0 ? executeSystem(cpu, op) : NEXT;
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
    case 0x9a:
      return wide ? cpu.raise(VECTOR.ud) : farCall(cpu, insn.imm2, alu.cut(big, insn.imm), 0, big);
    case 0x9b:
      return wait(cpu);
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
      return x87(cpu);
    case 0x27:
    case 0x2f:
    case 0x37:
    case 0x3f:
    case 0xd4:
    case 0xd5:
      return wide ? cpu.raise(VECTOR.ud) : decimal(cpu, op);
    case 0xc8:
      return enter(cpu);
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
  return executeSystem(cpu, op);
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

/** ENTER: a stack frame, with the frame pointers of those around it. */
function enter(cpu: Processor): number {
  const { insn, gpr } = cpu;
  const bytes = pushSize(cpu), wide = stackSize(cpu), levels = insn.imm2 & 31;
  const spLo = gpr[8] as number, spHi = gpr[9] as number;
  const fail = () => {
    gpr[8] = spLo;
    gpr[9] = spHi;
    return cpu.failure;
  };
  getRegister(cpu, 5, bytes);
  if (!push(cpu, bytes, cpu.lo, cpu.hi)) return fail();
  const frameLo = gpr[8] as number, frameHi = gpr[9] as number;
  for (let level = 1; level < levels; level++) {
    // Frame pointers are read through the stack segment, below the old frame pointer.
    gpr[8] = gpr[10] as number;
    gpr[9] = gpr[11] as number;
    if (!peek(cpu, bytes, -level * bytes)) return fail();
    const { lo, hi } = cpu;
    gpr[8] = (frameLo - (level - 1) * bytes) >>> 0;
    gpr[9] = frameHi;
    if (!push(cpu, bytes, lo, hi)) return fail();
  }
  if (levels > 0 && !push(cpu, bytes, frameLo, frameHi)) return fail();
  setRegister(cpu, 5, wide, frameLo, frameHi);
  drop(cpu, -insn.imm);
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
