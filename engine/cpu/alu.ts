/**
 * Arithmetic and the flags it sets, on values of up to 64 bits in two halves.
 *
 * @module
 */
import { FLAG } from "./constants.ts";
import type { Processor } from "./processor.ts";

const HIGH = 0x1_0000_0000;
const ARITHMETIC = FLAG.cf | FLAG.pf | FLAG.af | FLAG.zf | FLAG.sf | FLAG.of;

const PARITY = new Uint8Array(256);
for (let i = 0; i < 256; i++) {
  let bits = i ^ i >> 4;
  bits ^= bits >> 2;
  bits ^= bits >> 1;
  PARITY[i] = (bits & 1) === 0 ? FLAG.pf : 0;
}

/** Result of the last operation: low and high half. */
export const result: { lo: number; hi: number } = { lo: 0, hi: 0 };

function put(cpu: Processor, size: number, lo: number, hi: number, other: number): void {
  let flags = other | (PARITY[lo & 0xff] as number);
  if (lo === 0 && hi === 0) flags |= FLAG.zf;
  const top = size === 8 ? hi >>> 31 : lo >>> size * 8 - 1 & 1;
  if (top !== 0) flags |= FLAG.sf;
  cpu.rflags = cpu.rflags & ~ARITHMETIC | flags;
  result.lo = lo;
  result.hi = hi;
}

/** Value of 1, 2, 4 or 8 bytes cut to its size: the low half. */
export function cut(size: number, lo: number): number {
  return size === 1 ? lo & 0xff : size === 2 ? lo & 0xffff : lo >>> 0;
}

/** Addition with carry in. */
export function add(
  cpu: Processor,
  size: number,
  aLo: number,
  aHi: number,
  bLo: number,
  bHi: number,
  carry: number,
): void {
  let lo = aLo + bLo + carry;
  let hi = 0;
  let other = 0;
  let sign: number;
  const af = aLo ^ bLo;
  if (size < 8) {
    const limit = size === 4 ? HIGH : 1 << size * 8;
    if (lo >= limit) {
      other = FLAG.cf;
      lo -= limit;
    }
    sign = ((aLo ^ lo) & (bLo ^ lo)) >>> size * 8 - 1 & 1;
  } else {
    hi = aHi + bHi;
    if (lo >= HIGH) {
      lo -= HIGH;
      hi++;
    }
    if (hi >= HIGH) {
      hi -= HIGH;
      other = FLAG.cf;
    }
    sign = ((aHi ^ hi) & (bHi ^ hi)) >>> 31;
  }
  if (sign !== 0) other |= FLAG.of;
  other |= (af ^ lo) & FLAG.af;
  put(cpu, size, lo, hi, other);
}

/** Subtraction with borrow in. */
export function sub(
  cpu: Processor,
  size: number,
  aLo: number,
  aHi: number,
  bLo: number,
  bHi: number,
  borrow: number,
): void {
  let lo = aLo - bLo - borrow;
  let hi = 0;
  let other = 0;
  let sign: number;
  const af = aLo ^ bLo;
  if (size < 8) {
    if (lo < 0) {
      other = FLAG.cf;
      lo += size === 4 ? HIGH : 1 << size * 8;
    }
    sign = ((aLo ^ bLo) & (aLo ^ lo)) >>> size * 8 - 1 & 1;
  } else {
    hi = aHi - bHi;
    if (lo < 0) {
      lo += HIGH;
      hi--;
    }
    if (hi < 0) {
      hi += HIGH;
      other = FLAG.cf;
    }
    sign = ((aHi ^ bHi) & (aHi ^ hi)) >>> 31;
  }
  if (sign !== 0) other |= FLAG.of;
  other |= (af ^ lo) & FLAG.af;
  put(cpu, size, lo, hi, other);
}

/** Flags of a logical operation's result. */
export function logic(cpu: Processor, size: number, lo: number, hi: number): void {
  put(cpu, size, cut(size, lo), size === 8 ? hi >>> 0 : 0, 0);
}

/** Group 1 by its number: ADD OR ADC SBB AND SUB XOR CMP. */
export function group1(
  cpu: Processor,
  op: number,
  size: number,
  aLo: number,
  aHi: number,
  bLo: number,
  bHi: number,
): void {
  const carry = cpu.rflags & FLAG.cf;
  switch (op) {
    case 0:
      return add(cpu, size, aLo, aHi, bLo, bHi, 0);
    case 1:
      return logic(cpu, size, aLo | bLo, aHi | bHi);
    case 2:
      return add(cpu, size, aLo, aHi, bLo, bHi, carry);
    case 3:
      return sub(cpu, size, aLo, aHi, bLo, bHi, carry);
    case 4:
      return logic(cpu, size, aLo & bLo, aHi & bHi);
    case 6:
      return logic(cpu, size, aLo ^ bLo, aHi ^ bHi);
    default:
      return sub(cpu, size, aLo, aHi, bLo, bHi, 0);
  }
}

/** INC (1) or DEC (-1): as ADD or SUB, but CF stays. */
export function step(cpu: Processor, size: number, lo: number, hi: number, by: number): void {
  const carry = cpu.rflags & FLAG.cf;
  if (by > 0) add(cpu, size, lo, hi, 1, 0, 0);
  else sub(cpu, size, lo, hi, 1, 0, 0);
  cpu.rflags = cpu.rflags & ~FLAG.cf | carry;
}

const value = (size: number, lo: number, hi: number) =>
  size === 8 ? BigInt(hi) << 32n | BigInt(lo >>> 0) : BigInt(lo >>> 0);

function store(big: bigint): void {
  result.lo = Number(big & 0xffffffffn);
  result.hi = Number(big >> 32n & 0xffffffffn);
}

/** Group 2: ROL ROR RCL RCR SHL SHR SHL SAR by a count. */
export function shift(
  cpu: Processor,
  op: number,
  size: number,
  lo: number,
  hi: number,
  count: number,
): void {
  const bits = BigInt(size * 8);
  const mask = (1n << bits) - 1n;
  const a = value(size, lo, hi);
  count &= size === 8 ? 63 : 31;
  result.lo = lo;
  result.hi = hi;
  if (count === 0) return;
  const top = (x: bigint) => Number(x >> bits - 1n & 1n);
  let n = BigInt(count);
  let carry = BigInt(cpu.rflags & FLAG.cf);
  if (op < 4) {
    let r: bigint;
    if (op < 2) {
      n %= bits;
      r = op === 0 ? (a << n | a >> bits - n) & mask : (a >> n | a << bits - n) & mask;
      carry = op === 0 ? r & 1n : BigInt(top(r));
    } else {
      const wide = a | carry << bits;
      const span = bits + 1n;
      n %= span;
      if (op === 3) n = (span - n) % span;
      const turned = (wide << n | wide >> span - n) & (1n << span) - 1n;
      r = turned & mask;
      carry = turned >> bits & 1n;
    }
    const of = (op & 1) === 0 ? top(r) ^ Number(carry) : top(r) ^ Number(r >> bits - 2n & 1n);
    cpu.rflags = cpu.rflags & ~(FLAG.cf | FLAG.of) | Number(carry) | (of !== 0 ? FLAG.of : 0);
    store(r);
    return;
  }
  const sign = BigInt.asIntN(Number(bits), a);
  const before = op === 5 ? a >> n - 1n : op === 7 ? sign >> n - 1n & mask : a << n - 1n & mask;
  const r = (op === 5 ? before >> 1n : op === 7 ? sign >> n : a << n) & mask;
  const cf = op === 5 || op === 7 ? Number(before & 1n) : top(before);
  const of = top(before) ^ top(r);
  store(r);
  put(cpu, size, result.lo, result.hi, cf | (of !== 0 ? FLAG.of : 0));
}

/** MUL (signed false) or IMUL of two values: the double-width product's halves as bigints. */
export function multiply(
  cpu: Processor,
  size: number,
  aLo: number,
  aHi: number,
  bLo: number,
  bHi: number,
  isSigned: boolean,
): bigint {
  const bits = size * 8;
  let a = value(size, aLo, aHi);
  let b = value(size, bLo, bHi);
  if (isSigned) {
    a = BigInt.asIntN(bits, a);
    b = BigInt.asIntN(bits, b);
  }
  const product = a * b;
  const low = BigInt.asUintN(bits, product);
  const overflow = isSigned ? BigInt.asIntN(bits, product) !== product : product !== low;
  store(low);
  put(cpu, size, result.lo, result.hi, overflow ? FLAG.cf | FLAG.of : 0);
  return BigInt.asUintN(bits * 2, product);
}

/** DIV or IDIV; quotient and remainder, or undefined for #DE. */
export function divide(
  size: number,
  dividend: bigint,
  dLo: number,
  dHi: number,
  isSigned: boolean,
): readonly [bigint, bigint] | undefined {
  const bits = size * 8;
  let divisor = value(size, dLo, dHi);
  if (divisor === 0n) return undefined;
  if (isSigned) {
    divisor = BigInt.asIntN(bits, divisor);
    dividend = BigInt.asIntN(bits * 2, dividend);
  }
  const quotient = dividend / divisor;
  const fits = isSigned
    ? BigInt.asIntN(bits, quotient) === quotient
    : quotient >> BigInt(bits) === 0n;
  return fits
    ? [BigInt.asUintN(bits, quotient), BigInt.asUintN(bits, dividend % divisor)]
    : undefined;
}

/** Whether condition `code` (0 O … 15 G) holds. */
export function condition(rflags: number, code: number): boolean {
  const f = rflags;
  let holds: boolean;
  switch (code >> 1) {
    case 0:
      holds = (f & FLAG.of) !== 0;
      break;
    case 1:
      holds = (f & FLAG.cf) !== 0;
      break;
    case 2:
      holds = (f & FLAG.zf) !== 0;
      break;
    case 3:
      holds = (f & (FLAG.cf | FLAG.zf)) !== 0;
      break;
    case 4:
      holds = (f & FLAG.sf) !== 0;
      break;
    case 5:
      holds = (f & FLAG.pf) !== 0;
      break;
    case 6:
      holds = ((f & FLAG.sf) !== 0) !== ((f & FLAG.of) !== 0);
      break;
    default:
      holds = (f & FLAG.zf) !== 0 || ((f & FLAG.sf) !== 0) !== ((f & FLAG.of) !== 0);
  }
  return holds !== ((code & 1) !== 0);
}
