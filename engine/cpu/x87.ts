/**
 * The x87, but for its transcendental functions. As in QEMU a stack that runs
 * over or under is no exception, and where the last instruction and its operand lie is not kept.
 *
 * @module
 */
import { condition } from "./alu.ts";
import { FLAG, NEXT, UNMODELLED, VECTOR } from "./constants.ts";
import { ud } from "./faults.ts";
import { address, effectiveAddress } from "./operands.ts";
import type { Processor } from "./processor.ts";
import * as n from "./x87_number.ts";
import * as st from "./x87_state.ts";

const HIGH = 0x1_0000_0000;

/** Condition codes of a comparison: less, equal, greater, not ordered. */
const COMPARED = [0x100, 0x4000, 0, 0x4500] as const;
/** The same in RFLAGS. */
const IN_FLAGS = [FLAG.cf, FLAG.zf, 0, FLAG.zf | FLAG.pf | FLAG.cf] as const;

/** An x87 instruction: opcodes D8 to DF. */
export function x87(cpu: Processor): number {
  if ((cpu.cr0 & 0xc) !== 0) return cpu.raise(VECTOR.nm);
  const { insn } = cpu;
  const op = (insn.opcode & 7) << 3 | insn.reg & 7;
  if (insn.mod === 3) return onRegister(cpu, op, insn.modrm & 7);
  effectiveAddress(cpu);
  return onMemory(cpu, op);
}

/** FWAIT: raises what waits. */
export function wait(cpu: Processor): number {
  // Bits MP and TS of CR0 together come first.
  if ((cpu.cr0 & 0xa) === 0xa) return cpu.raise(VECTOR.nm);
  if (!st.waits(cpu)) return NEXT;
  return (cpu.cr0 & 0x20) !== 0 ? cpu.raise(VECTOR.mf) : UNMODELLED;
}

/** Bytes at a distance from the memory operand. */
function load(cpu: Processor, size: number, offset = 0): bigint | undefined {
  const lo = address.lo + offset;
  const hi = lo < HIGH ? address.hi : address.hi + 1 >>> 0;
  if (!cpu.read(lo % HIGH, hi, size, cpu.who)) return undefined;
  return BigInt(cpu.hi) << 32n | BigInt(cpu.lo >>> 0);
}

function save(cpu: Processor, size: number, value: bigint, offset = 0): boolean {
  const lo = address.lo + offset;
  const hi = lo < HIGH ? address.hi : address.hi + 1 >>> 0;
  const low = Number(value & 0xffffffffn), high = Number(value >> 32n & 0xffffffffn);
  return cpu.write(lo % HIGH, hi, size, low, high, cpu.who);
}

/** Operands of arithmetic and of loads in memory, by bits 5:4 of the operation: bytes, and whether integers. */
const OPERANDS = [[4, false], [4, true], [8, false], [2, true]] as const;

function operand(cpu: Processor, op: number, r: n.Rounding): n.Extended | undefined {
  const [size, integer] = OPERANDS[op >> 4] as typeof OPERANDS[number];
  const bits = load(cpu, size);
  if (bits === undefined) return undefined;
  return integer ? n.fromInteger(BigInt.asIntN(8 * size, bits)) : n.fromMemory(bits, size, r);
}

function onMemory(cpu: Processor, op: number): number {
  const kind = op & 15;
  const r = st.rounding(cpu);
  if (kind < 8) {
    const x = operand(cpu, op, r);
    if (x === undefined) return cpu.failure;
    calculate(cpu, kind, x, r);
    return NEXT;
  }
  if (kind < 12) {
    if (kind === 8) {
      const x = operand(cpu, op, r);
      if (x === undefined) return cpu.failure;
      st.merge(cpu, r);
      st.push(cpu, x);
      return NEXT;
    }
    return kind === 9 && op === 0x09 ? ud(cpu) : store(cpu, op, kind, r);
  }
  return other(cpu, op, r);
}

/** FST, FSTP, FIST, FISTP and FISTTP. */
function store(cpu: Processor, op: number, kind: number, r: n.Rounding): number {
  const truncating = kind === 9;
  const [size, integer] = truncating && op === 0x29
    ? [8, true] as const
    : OPERANDS[op >> 4] as typeof OPERANDS[number];
  return put(cpu, size, integer, truncating ? 3 : r.mode, kind !== 10, r);
}

function put(
  cpu: Processor,
  size: number,
  integer: boolean,
  mode: number,
  pops: boolean,
  r: n.Rounding,
): number {
  const x = st.get(cpu, 0);
  const bits = integer ? n.toInteger(x, 8 * size, mode, r) : n.toMemory(x, size, r);
  if (!save(cpu, size, BigInt.asUintN(64, bits))) return cpu.failure;
  st.merge(cpu, r);
  if (pops) st.pop(cpu);
  return NEXT;
}

/** What else there is in memory. */
function other(cpu: Processor, op: number, r: n.Rounding): number {
  switch (op) {
    case 0x0c:
      return loadEnvironment(cpu) ? NEXT : cpu.failure;
    case 0x0d: {
      const word = load(cpu, 2);
      if (word === undefined) return cpu.failure;
      st.setControlWord(cpu, Number(word));
      return NEXT;
    }
    case 0x0e:
      return saveEnvironment(cpu) ? NEXT : cpu.failure;
    case 0x0f:
      return save(cpu, 2, BigInt(st.controlWord(cpu))) ? NEXT : cpu.failure;
    case 0x1d: {
      const x = loadExtended(cpu, 0);
      if (x === undefined) return cpu.failure;
      st.push(cpu, x);
      return NEXT;
    }
    case 0x1f:
      if (!saveExtended(cpu, st.get(cpu, 0), 0)) return cpu.failure;
      st.pop(cpu);
      return NEXT;
    case 0x2c:
      return restore(cpu);
    case 0x2e:
      return saveAll(cpu);
    case 0x2f:
      return save(cpu, 2, BigInt(st.statusWord(cpu))) ? NEXT : cpu.failure;
    case 0x3d: {
      const bits = load(cpu, 8);
      if (bits === undefined) return cpu.failure;
      st.push(cpu, n.fromInteger(BigInt.asIntN(64, bits)));
      return NEXT;
    }
    case 0x3f:
      return put(cpu, 8, true, r.mode, true, r);
    case 0x3c:
      return loadDecimal(cpu);
    case 0x3e:
      return storeDecimal(cpu, r);
  }
  return ud(cpu);
}

/** Bytes of two digits each in a decimal number; one with the sign follows. */
const DECIMAL_BYTES = 9;
/** The least number with too many digits, and the bytes that stand for any such number. */
const TOO_LONG = 10n ** 18n, NO_DECIMAL = [0, 0, 0, 0, 0, 0, 0, 0xc0, 0xff, 0xff] as const;

/** FBLD. */
function loadDecimal(cpu: Processor): number {
  let value = 0n;
  for (let i = DECIMAL_BYTES - 1; i >= 0; i--) {
    const digits = load(cpu, 1, i);
    if (digits === undefined) return cpu.failure;
    value = value * 100n + (digits >> 4n) * 10n + (digits & 15n);
  }
  const sign = load(cpu, 1, DECIMAL_BYTES);
  if (sign === undefined) return cpu.failure;
  const x = n.fromInteger(value);
  st.push(cpu, (sign & 0x80n) === 0n ? x : { ...x, sign: 1 });
  return NEXT;
}

/** FBSTP, which writes the sign first. */
function storeDecimal(cpu: Processor, r: n.Rounding): number {
  const x = st.get(cpu, 0);
  const value = n.toInteger(x, 64, r.mode, r);
  let rest = value < 0n ? -value : value;
  const bytes: number[] = [];
  if (rest >= TOO_LONG) {
    r.flags = n.FPU_EXCEPTION.invalid;
    bytes.push(...NO_DECIMAL);
  } else {
    if (!save(cpu, 1, BigInt(x.sign << 7), DECIMAL_BYTES)) return cpu.failure;
    for (let i = 0; i < DECIMAL_BYTES; i++, rest /= 100n) {
      bytes.push(Number(rest / 10n % 10n << 4n | rest % 10n));
    }
  }
  for (const [i, byte] of bytes.entries()) {
    if (!save(cpu, 1, BigInt(byte), i)) return cpu.failure;
  }
  st.merge(cpu, r);
  st.pop(cpu);
  return NEXT;
}

function loadExtended(cpu: Processor, offset: number): n.Extended | undefined {
  const significand = load(cpu, 8, offset);
  const head = significand === undefined ? undefined : load(cpu, 2, offset + 8);
  if (significand === undefined || head === undefined) return undefined;
  return { sign: Number(head >> 15n), exponent: Number(head & 0x7fffn), significand };
}

function saveExtended(cpu: Processor, x: n.Extended, offset: number): boolean {
  return save(cpu, 8, x.significand, offset) &&
    save(cpu, 2, BigInt(x.sign << 15 | x.exponent), offset + 8);
}

/** Bytes of a word of the environment: seven there are. */
function environmentWord(cpu: Processor): number {
  return cpu.insn.dflag === 1 ? 2 : 4;
}

function saveEnvironment(cpu: Processor): boolean {
  const size = environmentWord(cpu);
  const words = [st.controlWord(cpu), st.statusWord(cpu), st.tagWord(cpu), 0, 0, 0, 0];
  return words.every((word, i) => save(cpu, size, BigInt(word), i * size));
}

function loadEnvironment(cpu: Processor): boolean {
  const size = environmentWord(cpu);
  const words: number[] = [];
  for (let i = 0; i < 3; i++) {
    const word = load(cpu, 2, i * size);
    if (word === undefined) return false;
    words.push(Number(word));
  }
  const [control, status, tags] = words as [number, number, number];
  st.setControlWord(cpu, control);
  st.setStatusWord(cpu, status);
  st.setTagWord(cpu, tags);
  return true;
}

function saveAll(cpu: Processor): number {
  if (!saveEnvironment(cpu)) return cpu.failure;
  const from = 7 * environmentWord(cpu);
  for (let i = 0; i < 8; i++) {
    if (!saveExtended(cpu, st.get(cpu, i), from + 10 * i)) return cpu.failure;
  }
  st.initialize(cpu);
  return NEXT;
}

function restore(cpu: Processor): number {
  if (!loadEnvironment(cpu)) return cpu.failure;
  const from = 7 * environmentWord(cpu);
  for (let i = 0; i < 8; i++) {
    const x = loadExtended(cpu, from + 10 * i);
    if (x === undefined) return cpu.failure;
    st.set(cpu, i, x);
  }
  return NEXT;
}

/** Arithmetic of two numbers: addition, product, and the differences and quotients of either order. */
function result(kind: number, a: n.Extended, b: n.Extended, r: n.Rounding): n.Extended {
  switch (kind) {
    case 0:
      return n.add(a, b, false, r);
    case 1:
      return n.multiply(a, b, r);
    case 4:
      return n.add(a, b, true, r);
    case 5:
      return n.add(b, a, true, r);
    case 6:
      return n.divide(a, b, r);
    default:
      return n.divide(b, a, r);
  }
}

/** ST(0) and another operand: arithmetic, FCOM or FCOMP. */
function calculate(cpu: Processor, kind: number, x: n.Extended, r: n.Rounding): void {
  if (kind === 2 || kind === 3) {
    compare(cpu, x, true, r);
    if (kind === 3) st.pop(cpu);
    return;
  }
  const value = result(kind, st.get(cpu, 0), x, r);
  st.merge(cpu, r);
  st.set(cpu, 0, value);
}

function compare(cpu: Processor, x: n.Extended, loud: boolean, r: n.Rounding): void {
  const order = n.compare(st.get(cpu, 0), x, loud, r);
  st.setConditions(cpu, 0x4500, COMPARED[order + 1] as number);
  st.merge(cpu, r);
}

/** FCOMI and its like: the answer is in RFLAGS. */
function compareFlags(cpu: Processor, x: n.Extended, loud: boolean, r: n.Rounding): void {
  const order = n.compare(st.get(cpu, 0), x, loud, r);
  cpu.rflags = cpu.rflags & ~(FLAG.zf | FLAG.pf | FLAG.cf) | (IN_FLAGS[order + 1] as number);
  st.merge(cpu, r);
}

/** Conditions of FCMOV: below, equal, below or equal, not ordered. */
const MOVES = [2, 4, 6, 10] as const;

function onRegister(cpu: Processor, op: number, index: number): number {
  const r = st.rounding(cpu);
  const kind = op & 7;
  switch (op) {
    case 0x22:
      compare(cpu, st.get(cpu, index), true, r);
      return NEXT;
    case 0x23:
    case 0x32:
      compare(cpu, st.get(cpu, index), true, r);
      st.pop(cpu);
      return NEXT;
    case 0x15:
    case 0x33:
      if (index !== 1) return ud(cpu);
      compare(cpu, st.get(cpu, 1), op === 0x33, r);
      st.pop(cpu);
      st.pop(cpu);
      return NEXT;
    case 0x08:
      st.push(cpu, st.get(cpu, index));
      return NEXT;
    case 0x09:
    case 0x29:
    case 0x39: {
      const [a, b] = [st.get(cpu, 0), st.get(cpu, index)];
      st.set(cpu, 0, b);
      st.set(cpu, index, a);
      return NEXT;
    }
    case 0x0a:
      if (index !== 0) return ud(cpu);
      return st.waits(cpu) ? cpu.raise(VECTOR.mf) : NEXT;
    case 0x0c:
      return sign(cpu, index, r);
    case 0x0d:
      return constant(cpu, index, r);
    case 0x0e:
    case 0x0f:
      return special(cpu, op << 3 & 8 | index, r);
    case 0x1c:
      if (index > 4) return ud(cpu);
      if (index === 2) st.clearExceptions(cpu);
      else if (index === 3) st.initialize(cpu);
      return NEXT;
    case 0x1d:
    case 0x1e:
    case 0x3d:
    case 0x3e:
      compareFlags(cpu, st.get(cpu, index), kind === 6, r);
      if (op >= 0x38) st.pop(cpu);
      return NEXT;
    case 0x28:
    case 0x38:
      st.tag(cpu, index, false);
      if (op === 0x38) st.pop(cpu);
      return NEXT;
    case 0x2a:
    case 0x2b:
    case 0x0b:
    case 0x3a:
    case 0x3b:
      st.set(cpu, index, st.get(cpu, 0));
      if (op !== 0x2a) st.pop(cpu);
      return NEXT;
    case 0x2c:
    case 0x2d:
      compare(cpu, st.get(cpu, index), false, r);
      if (op === 0x2d) st.pop(cpu);
      return NEXT;
    case 0x3c:
      if (index !== 0) return ud(cpu);
      cpu.gpr[0] = (cpu.gpr[0] as number) & ~0xffff | st.statusWord(cpu);
      return NEXT;
  }
  if (op < 8) {
    calculate(cpu, kind, st.get(cpu, index), r);
    return NEXT;
  }
  if ((op >= 0x10 && op <= 0x13) || (op >= 0x18 && op <= 0x1b)) {
    const holds = condition(cpu.rflags, MOVES[op & 3] as number) === op < 0x18;
    if (holds) st.set(cpu, 0, st.get(cpu, index));
    return NEXT;
  }
  if ((op >= 0x20 && op <= 0x27 || op >= 0x30 && op <= 0x37) && kind !== 2 && kind !== 3) {
    // Differences and quotients have their operands the other way round here.
    const turned = kind < 4 ? kind : kind ^ 1;
    const value = result(turned, st.get(cpu, index), st.get(cpu, 0), r);
    st.merge(cpu, r);
    st.set(cpu, index, value);
    if (op >= 0x30) st.pop(cpu);
    return NEXT;
  }
  return ud(cpu);
}

/** FCHS, FABS, FTST and FXAM. */
function sign(cpu: Processor, index: number, r: n.Rounding): number {
  const x = st.get(cpu, 0);
  switch (index) {
    case 0:
      st.set(cpu, 0, { ...x, sign: 1 - x.sign });
      return NEXT;
    case 1:
      st.set(cpu, 0, { ...x, sign: 0 });
      return NEXT;
    case 4:
      compare(cpu, n.zero(0), true, r);
      return NEXT;
    case 5: {
      const of = !st.isTagged(cpu, 0)
        ? 0x4100
        : n.isNan(x)
        ? 0x100
        : n.isInfinite(x)
        ? 0x500
        : x.exponent === 0
        ? n.isZero(x) ? 0x4000 : 0x4400
        : 0x400;
      st.setConditions(cpu, 0x4700, of | x.sign << 9);
      return NEXT;
    }
  }
  return ud(cpu);
}

/** Biased exponents and significands of FLD1 to FLDZ: the lower neighbour, and the nearer one's distance from it. */
const CONSTANTS = [
  [0x3fff, 0x8000000000000000n, -1],
  [0x4000, 0xd49a784bcd1b8afen, 0],
  [0x3fff, 0xb8aa3b295c17f0bbn, 1],
  [0x4000, 0xc90fdaa22168c234n, 1],
  [0x3ffd, 0x9a209a84fbcff798n, 1],
  [0x3ffe, 0xb17217f7d1cf79abn, 1],
] as const;

function constant(cpu: Processor, index: number, r: n.Rounding): number {
  if (index === 7) return ud(cpu);
  const row = CONSTANTS[index];
  if (row === undefined) {
    st.push(cpu, n.zero(0));
    return NEXT;
  }
  const [exponent, low, nearest] = row;
  const up = nearest >= 0 && (r.mode === 2 || r.mode === 0 && nearest === 1);
  st.push(cpu, { sign: 0, exponent, significand: up ? low + 1n : low });
  return NEXT;
}

/** FXTRACT: the exponent where the number was, and its significand on top of it. */
function extract(cpu: Processor, r: n.Rounding): void {
  const { exponent, significand } = n.extract(st.get(cpu, 0), r);
  st.merge(cpu, r);
  st.set(cpu, 0, exponent);
  st.push(cpu, significand);
}

/** FXTRACT, FDECSTP, FINCSTP, FSQRT and FRNDINT; the functions around them are not modelled. */
function special(cpu: Processor, index: number, r: n.Rounding): number {
  switch (index) {
    case 4:
      extract(cpu, r);
      return NEXT;
    case 6:
    case 7:
      st.rotate(cpu, index === 6 ? -1 : 1);
      return NEXT;
    case 10:
    case 12: {
      const x = st.get(cpu, 0);
      const value = index === 10 ? n.squareRoot(x, r) : n.roundToInteger(x, r);
      st.merge(cpu, r);
      st.set(cpu, 0, value);
      return NEXT;
    }
  }
  return UNMODELLED;
}
