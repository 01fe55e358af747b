/**
 * Operands of instructions: registers, effective addresses, the stack.
 *
 * @module
 */
import { BASE_RIP, PREFIX } from "./decode.ts";
import { ATTR, SEG } from "./constants.ts";
import type { Processor } from "./processor.ts";

const HIGH = 0x1_0000_0000;
const R_SP = 4;

/** Linear address of the last {@linkcode effectiveAddress}: low and high half, and the offset alone. */
export const address: { lo: number; hi: number; offsetLo: number; offsetHi: number } = {
  lo: 0,
  hi: 0,
  offsetLo: 0,
  offsetHi: 0,
};

/** Computes the memory operand's address into {@linkcode address}. */
export function effectiveAddress(cpu: Processor): void {
  const insn = cpu.insn;
  const gpr = cpu.gpr;
  let lo = insn.disp >>> 0;
  let hi = insn.aflag === 3 ? (insn.dispHi !== 0 ? insn.dispHi : insn.disp >> 31) >>> 0 : 0;
  // Of a 64-bit moffs both halves are given.
  if (insn.opcode >= 0xa0 && insn.opcode <= 0xa3) hi = insn.dispHi >>> 0;
  let segment: number = SEG.ds;
  const base = insn.base;
  if (base === BASE_RIP) {
    const next = cpu.ripLo + insn.length;
    lo += next;
    hi += cpu.ripHi;
  } else if (base >= 0) {
    lo += gpr[base * 2] as number;
    hi += gpr[base * 2 + 1] as number;
    if (base === R_SP || base === 5) segment = SEG.ss;
  }
  const index = insn.index;
  if (index >= 0) {
    const scale = insn.scale;
    const value = gpr[index * 2] as number;
    lo += value * (1 << scale);
    hi += (gpr[index * 2 + 1] as number) * (1 << scale);
  }
  // All are below 2^36, where >>> takes the rest: % on such numbers is a call.
  hi = hi + Math.floor(lo / HIGH) >>> 0;
  lo >>>= 0;
  if (insn.aflag === 1) lo &= 0xffff;
  if (insn.aflag !== 3) hi = 0;
  address.offsetLo = lo;
  address.offsetHi = hi;
  if (insn.segment >= 0) segment = insn.segment;
  addSegment(cpu, segment, lo, hi);
}

/** Adds a segment's base to an offset, into {@linkcode address}. */
export function addSegment(cpu: Processor, segment: number, lo: number, hi: number): void {
  if (cpu.width === 64) {
    if (segment >= SEG.fs) {
      lo += cpu.segBase[segment * 2] as number;
      hi += cpu.segBase[segment * 2 + 1] as number;
      if (lo >= HIGH) {
        lo -= HIGH;
        hi++;
      }
      hi >>>= 0;
    }
  } else {
    lo = lo + (cpu.segBase[segment * 2] as number) >>> 0;
    hi = 0;
  }
  address.lo = lo;
  address.hi = hi;
}

/** Reads a register of 1, 2, 4 or 8 bytes into `cpu.lo` and `cpu.hi`. */
export function getRegister(cpu: Processor, register: number, size: number): void {
  const gpr = cpu.gpr;
  if (size === 1) {
    if (register >= 4 && register < 8 && (cpu.insn.prefixes & PREFIX.rex) === 0) {
      cpu.lo = (gpr[(register - 4) * 2] as number) >>> 8 & 0xff;
    } else cpu.lo = (gpr[register * 2] as number) & 0xff;
    cpu.hi = 0;
    return;
  }
  const lo = gpr[register * 2] as number;
  cpu.lo = size === 2 ? lo & 0xffff : lo;
  cpu.hi = size === 8 ? gpr[register * 2 + 1] as number : 0;
}

/** Writes a register of 1, 2, 4 or 8 bytes; 4 bytes clear the high half. */
export function setRegister(
  cpu: Processor,
  register: number,
  size: number,
  lo: number,
  hi: number,
): void {
  const gpr = cpu.gpr;
  if (size === 1) {
    if (register >= 4 && register < 8 && (cpu.insn.prefixes & PREFIX.rex) === 0) {
      const at = (register - 4) * 2;
      gpr[at] = (gpr[at] as number) & ~0xff00 | (lo & 0xff) << 8;
    } else gpr[register * 2] = (gpr[register * 2] as number) & ~0xff | lo & 0xff;
  } else if (size === 2) {
    gpr[register * 2] = (gpr[register * 2] as number) & ~0xffff | lo & 0xffff;
  } else {
    gpr[register * 2] = lo;
    gpr[register * 2 + 1] = size === 8 ? hi : 0;
  }
}

/** Reads the ModRM.rm operand; computes its address first when it is in memory. */
export function getOperand(cpu: Processor, size: number): boolean {
  if (cpu.insn.mod === 3) {
    getRegister(cpu, cpu.insn.rm, size);
    return true;
  }
  effectiveAddress(cpu);
  return cpu.read(address.lo, address.hi, size, cpu.who);
}

/** Writes the ModRM.rm operand; a memory operand's address must have been computed. */
export function setOperand(cpu: Processor, size: number, lo: number, hi: number): boolean {
  if (cpu.insn.mod === 3) {
    setRegister(cpu, cpu.insn.rm, size, lo, hi);
    return true;
  }
  return cpu.write(address.lo, address.hi, size, lo, hi, cpu.who);
}

/** Bytes of the stack pointer. */
export function stackSize(cpu: Processor): number {
  if (cpu.width === 64) return 8;
  return ((cpu.attrib[SEG.ss] as number) & ATTR.db) !== 0 ? 4 : 2;
}

/** Bytes that PUSH and POP move with the current operand size. */
export function pushSize(cpu: Processor): number {
  const dflag = cpu.insn.dflag;
  return cpu.width === 64 ? dflag === 1 ? 2 : 8 : 1 << dflag;
}

// Linear address of the stack pointer plus an offset, into address.
function stackAddress(cpu: Processor, offset: number): void {
  let lo = (cpu.gpr[R_SP * 2] as number) + offset;
  let hi = cpu.gpr[R_SP * 2 + 1] as number;
  if (lo < 0) {
    lo += HIGH;
    hi = hi - 1 >>> 0;
  } else if (lo >= HIGH) {
    lo -= HIGH;
    hi = hi + 1 >>> 0;
  }
  const size = stackSize(cpu);
  if (size === 2) lo &= 0xffff;
  if (size !== 8) hi = 0;
  address.offsetLo = lo;
  address.offsetHi = hi;
  addSegment(cpu, SEG.ss, lo, hi);
}

/** Pushes a value. */
export function push(cpu: Processor, size: number, lo: number, hi: number): boolean {
  stackAddress(cpu, -size);
  if (!cpu.write(address.lo, address.hi, size, lo, hi, cpu.who)) return false;
  setRegister(cpu, R_SP, stackSize(cpu), address.offsetLo, address.offsetHi);
  return true;
}

/** Reads the value at an offset from the top of the stack, leaving the stack pointer. */
export function peek(cpu: Processor, size: number, offset = 0): boolean {
  stackAddress(cpu, offset);
  return cpu.read(address.lo, address.hi, size, cpu.who);
}

/**
 * Reads the value at an offset from the top of the stack, as returns to another segment do: those
 * of 16 and 32 bits reach only 4 GiB of it, in 64-bit code too.
 */
export function peekFar(cpu: Processor, size: number, offset: number): boolean {
  if (cpu.width !== 64 || size === 8) return peek(cpu, size, offset);
  const lo = (cpu.segBase[SEG.ss * 2] as number) + farOffset(cpu, offset) >>> 0;
  return cpu.read(lo, 0, size, cpu.who);
}

/** Moves the stack pointer up after such a return. */
export function dropFar(cpu: Processor, size: number, bytes: number): void {
  if (cpu.width !== 64 || size === 8) drop(cpu, bytes);
  else setRegister(cpu, R_SP, stackBits(cpu), farOffset(cpu, bytes), 0);
}

/** Bytes of the stack pointer by SS alone. */
function stackBits(cpu: Processor): 2 | 4 {
  return ((cpu.attrib[SEG.ss] as number) & ATTR.db) !== 0 ? 4 : 2;
}

function farOffset(cpu: Processor, offset: number): number {
  const sp = (cpu.gpr[R_SP * 2] as number) + offset;
  return stackBits(cpu) === 4 ? sp >>> 0 : sp & 0xffff;
}

/** Moves the stack pointer up. */
export function drop(cpu: Processor, bytes: number): void {
  stackAddress(cpu, bytes);
  setRegister(cpu, R_SP, stackSize(cpu), address.offsetLo, address.offsetHi);
}
