/**
 * Counting, moving and choosing bits: POPCNT, LZCNT, TZCNT, double shifts, MOVBE, CRC32, ADX and
 * the BMI extensions, which VEX encodes.
 *
 * @module
 */
import * as alu from "./alu.ts";
import { FLAG, NEXT, UNMODELLED } from "./constants.ts";
import { PREFIX } from "./decode.ts";
import { ud } from "./faults.ts";
import { effectiveAddress, getOperand, getRegister, setOperand, setRegister } from "./operands.ts";
import type { Processor } from "./processor.ts";
import { simd } from "./simd.ts";

const ARITHMETIC = FLAG.cf | FLAG.pf | FLAG.af | FLAG.zf | FLAG.sf | FLAG.of;

function value(cpu: Processor): bigint {
  return BigInt(cpu.hi) << 32n | BigInt(cpu.lo >>> 0);
}

function register(cpu: Processor, index: number, size: number): bigint {
  getRegister(cpu, index, size);
  return value(cpu);
}

function put(cpu: Processor, index: number, size: number, result: bigint): void {
  setRegister(cpu, index, size, Number(result & 0xffffffffn), Number(result >> 32n & 0xffffffffn));
}

function flags(cpu: Processor, bits: number): void {
  cpu.rflags = cpu.rflags & ~ARITHMETIC | bits;
}

function ones(bits: bigint): number {
  let count = 0;
  for (; bits !== 0n; bits &= bits - 1n) count++;
  return count;
}

/** Zeros above the highest 1, or below the lowest; all bits where there is none. */
function zeros(bits: bigint, size: number, leading: boolean): number {
  if (bits === 0n) return size * 8;
  const text = bits.toString(2);
  return leading ? size * 8 - text.length : text.length - 1 - text.lastIndexOf("1");
}

/** POPCNT. */
export function popCount(cpu: Processor, size: number): number {
  if ((cpu.insn.prefixes & (PREFIX.repz | PREFIX.lock)) !== PREFIX.repz) return ud(cpu);
  if (!getOperand(cpu, size)) return cpu.failure;
  const count = ones(value(cpu));
  setRegister(cpu, cpu.insn.reg, size, count, 0);
  flags(cpu, count === 0 ? FLAG.zf : 0);
  return NEXT;
}

/** LZCNT and TZCNT. */
export function zeroCount(cpu: Processor, size: number, leading: boolean): number {
  if (!getOperand(cpu, size)) return cpu.failure;
  const source = value(cpu);
  const count = zeros(source, size, leading);
  setRegister(cpu, cpu.insn.reg, size, count, 0);
  flags(cpu, (source === 0n ? FLAG.cf : 0) | (count === 0 ? FLAG.zf : 0));
  return NEXT;
}

/** SHLD and SHRD; of 16 bits, a count beyond them goes round once more. */
export function doubleShift(cpu: Processor, size: number, left: boolean, count: number): number {
  if (!getOperand(cpu, size)) return cpu.failure;
  const a = value(cpu), bits = BigInt(size * 8), mask = (1n << bits) - 1n;
  const b = register(cpu, cpu.insn.reg, size);
  const n = BigInt(count & (size === 8 ? 63 : 31));
  if (n === 0n) {
    return setOperand(cpu, size, Number(a & 0xffffffffn), Number(a >> 32n)) ? NEXT : cpu.failure;
  }
  const wide = (a << bits | b) << bits | a;
  const shifted = (by: bigint) => left ? wide << by >> 2n * bits & mask : wide >> by & mask;
  const result = shifted(n);
  // OF is defined for a count of 1 only; QEMU takes it from the first operand alone in 64 bits.
  const alone = left ? a << n - 1n & mask : a >> n - 1n;
  const before = size === 8 ? alone : shifted(n - 1n);
  const top = (x: bigint) => Number(x >> bits - 1n & 1n);
  const saved = cpu.rflags;
  const lo = Number(result & 0xffffffffn), hi = Number(result >> 32n);
  alu.logic(cpu, size, lo, hi);
  cpu.rflags |= left ? top(before) : Number(before & 1n);
  if (top(before) !== top(result)) cpu.rflags |= FLAG.of;
  if (setOperand(cpu, size, lo, hi)) return NEXT;
  cpu.rflags = saved;
  return cpu.failure;
}

function reversed(size: number, bits: bigint): bigint {
  let out = 0n;
  for (let i = 0; i < size; i++, bits >>= 8n) out = out << 8n | bits & 0xffn;
  return out;
}

/** CRC-32C of bits, lowest first. */
function crc(sum: number, bits: bigint, size: number): number {
  for (let i = 0; i < size * 8; i++, bits >>= 1n) {
    const odd = (sum ^ Number(bits & 1n)) & 1;
    sum = (sum >>> 1 ^ (odd !== 0 ? 0x82f63b78 : 0)) >>> 0;
  }
  return sum;
}

/** MOVBE, CRC32, ADCX and ADOX: opcodes F0, F1 and F6 after 0F 38. */
export function three38(cpu: Processor, op: number): number {
  const { insn } = cpu, big = 1 << insn.dflag;
  if ((insn.prefixes & PREFIX.lock) !== 0) return ud(cpu);
  if (op === 0x2f6) return addWithFlag(cpu);
  if (op !== 0x2f0 && op !== 0x2f1) return simd(cpu, op);
  if ((insn.prefixes & PREFIX.repnz) !== 0) {
    const size = op === 0x2f0 ? 1 : big;
    if (!getOperand(cpu, size)) return cpu.failure;
    const data = value(cpu);
    getRegister(cpu, insn.reg, 4);
    setRegister(cpu, insn.reg, big === 8 ? 8 : 4, crc(cpu.lo, data, size), 0);
    return NEXT;
  }
  if ((insn.prefixes & PREFIX.repz) !== 0) return UNMODELLED;
  if (insn.mod === 3) return ud(cpu);
  if (op === 0x2f0) {
    if (!getOperand(cpu, big)) return cpu.failure;
    put(cpu, insn.reg, big, reversed(big, value(cpu)));
    return NEXT;
  }
  effectiveAddress(cpu);
  const out = reversed(big, register(cpu, insn.reg, big));
  return setOperand(cpu, big, Number(out & 0xffffffffn), Number(out >> 32n)) ? NEXT : cpu.failure;
}

/** ADCX (with 66) and ADOX (with F3): an addition through CF or OF alone. */
function addWithFlag(cpu: Processor): number {
  const { insn } = cpu, size = insn.dflag === 3 ? 8 : 4;
  const data = (insn.prefixes & PREFIX.data) !== 0, repz = (insn.prefixes & PREFIX.repz) !== 0;
  if (data === repz) return ud(cpu);
  const flag = data ? FLAG.cf : FLAG.of;
  if (!getOperand(cpu, size)) return cpu.failure;
  const carry = (cpu.rflags & flag) !== 0 ? 1n : 0n;
  const sum = value(cpu) + register(cpu, insn.reg, size) + carry;
  put(cpu, insn.reg, size, sum);
  cpu.rflags = sum >> BigInt(size * 8) !== 0n ? cpu.rflags | flag : cpu.rflags & ~flag;
  return NEXT;
}

/** BMI1 and BMI2: VEX opcodes F2, F3 and F5 to F7 after 0F 38, and RORX. */
export function bmi(cpu: Processor, op: number): number {
  const { insn } = cpu;
  if (!cpu.protectedMode || cpu.vm86 || insn.vexLong) return ud(cpu);
  const size = insn.dflag === 3 ? 8 : 4, pp = insn.vexPrefix, third = insn.vexRegister;
  const mask = (1n << BigInt(size * 8)) - 1n;
  if (!getOperand(cpu, size)) return cpu.failure;
  const source = value(cpu);
  const other = register(cpu, third, size);
  switch (op) {
    case 0x2f2: {
      if (pp !== 0) return ud(cpu);
      const result = ~other & source & mask;
      alu.logic(cpu, size, Number(result & 0xffffffffn), Number(result >> 32n));
      put(cpu, insn.reg, size, result);
      return NEXT;
    }
    case 0x2f3: {
      const kind = insn.reg & 7;
      if (pp !== 0 || kind < 1 || kind > 3) return ud(cpu);
      const less = source - 1n & mask;
      const result = kind === 1
        ? source & less
        : kind === 2
        ? source ^ less
        : source & -source & mask;
      put(cpu, third, size, result);
      bmiFlags(cpu, size, result, source === 0n);
      return NEXT;
    }
    case 0x2f5: {
      if (pp === 1) return ud(cpu);
      if (pp !== 0) {
        put(cpu, insn.reg, size, pp === 3 ? deposit(other, source) : extract(other, source));
        return NEXT;
      }
      const index = other & 0xffn, whole = index >= BigInt(size * 8);
      const result = whole ? source : source & (1n << index) - 1n;
      put(cpu, insn.reg, size, result);
      bmiFlags(cpu, size, result, whole);
      return NEXT;
    }
    case 0x2f6: {
      if (pp !== 3) return ud(cpu);
      const product = source * register(cpu, 2, size);
      put(cpu, third, size, product);
      put(cpu, insn.reg, size, product >> BigInt(size * 8));
      return NEXT;
    }
    case 0x2f7: {
      const by = other & BigInt(size * 8 - 1);
      if (pp === 0) {
        const start = other & 0xffn, length = other >> 8n & 0xffn;
        const result = source >> start & (1n << length) - 1n;
        put(cpu, insn.reg, size, result);
        alu.logic(cpu, size, Number(result & 0xffffffffn), Number(result >> 32n));
        return NEXT;
      }
      const signed = BigInt.asIntN(size * 8, source);
      put(cpu, insn.reg, size, pp === 1 ? source << by : pp === 2 ? signed >> by : source >> by);
      return NEXT;
    }
    default: {
      if (pp !== 3) return ud(cpu);
      const by = BigInt(insn.imm & size * 8 - 1);
      put(cpu, insn.reg, size, source >> by | source << BigInt(size * 8) - by);
      return NEXT;
    }
  }
}

function bmiFlags(cpu: Processor, size: number, result: bigint, carry: boolean): void {
  const sign = result >> BigInt(size * 8 - 1) & 1n;
  flags(
    cpu,
    (carry ? FLAG.cf : 0) | (result === 0n ? FLAG.zf : 0) | (sign !== 0n ? FLAG.sf : 0),
  );
}

/** PDEP: puts low bits where a mask has ones. */
function deposit(bits: bigint, mask: bigint): bigint {
  let out = 0n;
  for (; mask !== 0n; mask &= mask - 1n, bits >>= 1n) if ((bits & 1n) !== 0n) out |= mask & -mask;
  return out;
}

/** PEXT: gathers the bits where a mask has ones. */
function extract(bits: bigint, mask: bigint): bigint {
  let out = 0n;
  for (let to = 1n; mask !== 0n; mask &= mask - 1n, to <<= 1n) {
    if ((bits & mask & -mask) !== 0n) out |= to;
  }
  return out;
}
