/**
 * MMX and SSE instructions that move, combine and shuffle whole numbers; those that compute with
 * floating-point numbers are not modelled.
 *
 * @module
 */
import { V } from "../svm/machine.ts";
import { EXIT, NEXT, UNMODELLED } from "./constants.ts";
import { gp, ud } from "./faults.ts";
import { address, effectiveAddress, getOperand, setOperand, setRegister } from "./operands.ts";
import {
  immediateShift,
  Lanes,
  PACKED,
  PACKED_FLOAT,
  PACKED_SSE,
  type PackedOperation,
  shuffle,
  signs,
} from "./packed.ts";
import type { Processor } from "./processor.ts";
import { enterMmx } from "./x87_state.ts";

/** The prefix that selects among instructions of one opcode. */
export const SELECTS = { none: 0, data: 1, repz: 2, repnz: 3 } as const;

/** Shifts by an operand that need not be aligned in memory. */
const SHIFTS_BY_OPERAND: ReadonlySet<number> = new Set([0xe1, 0xe2, 0xf1, 0xf2, 0xf3]);

const A = new Lanes(), B = new Lanes();
/** The last operand could not be reached: what became of that. */
let status: number = EXIT;

function registers(mmx: boolean): number {
  return mmx ? V.x87_registers : V.xmm_registers;
}

function get(cpu: Processor, to: Lanes, register: number, mmx: boolean): void {
  const at = registers(mmx) + 16 * (mmx ? register & 7 : register);
  to.u64[0] = cpu.m.u64(at);
  if (!mmx) to.u64[1] = cpu.m.u64(at + 8);
}

function put(
  cpu: Processor,
  from: Lanes,
  register: number,
  mmx: boolean,
  bytes = mmx ? 8 : 16,
): void {
  const at = registers(mmx) + 16 * (mmx ? register & 7 : register);
  if (bytes < 8) cpu.m.set32(at, from.u32[0] as number);
  else cpu.m.set64(at, from.u64[0] as bigint);
  if (bytes > 8) cpu.m.set64(at + 8, from.u64[1] as bigint);
}

/** Reads the operand of ModRM.rm; 16 bytes of memory have to be aligned unless told otherwise. */
function source(
  cpu: Processor,
  to: Lanes,
  mmx: boolean,
  bytes: number,
  aligned = bytes === 16,
): boolean {
  const { insn } = cpu;
  if (insn.mod === 3) {
    get(cpu, to, insn.rm, mmx);
    return true;
  }
  effectiveAddress(cpu);
  const { lo, hi } = address;
  if (aligned && (lo & 15) !== 0) {
    status = gp(cpu);
    return false;
  }
  to.u64.fill(0n);
  for (let at = 0; at < bytes; at += 8) {
    if (!cpu.read(...after(lo, hi, at), Math.min(8, bytes), cpu.who)) {
      status = cpu.failure;
      return false;
    }
    to.u32[at / 4] = cpu.lo;
    if (bytes > 4) to.u32[at / 4 + 1] = cpu.hi;
  }
  return true;
}

/** Writes the operand of ModRM.rm. */
function store(cpu: Processor, from: Lanes, mmx: boolean, bytes: number, aligned = false): number {
  const { insn } = cpu;
  if (insn.mod === 3) {
    put(cpu, from, insn.rm, mmx, bytes);
    return NEXT;
  }
  effectiveAddress(cpu);
  const { lo, hi } = address;
  if (aligned && (lo & 15) !== 0) return gp(cpu);
  for (let at = 0; at < bytes; at += 8) {
    const low = from.u32[at / 4] as number, high = from.u32[at / 4 + 1] as number;
    if (!cpu.write(...after(lo, hi, at), Math.min(8, bytes), low, high, cpu.who)) {
      return cpu.failure;
    }
  }
  return NEXT;
}

function after(lo: number, hi: number, by: number): [number, number] {
  const low = lo + by;
  return low > 0xffffffff ? [low - 0x1_0000_0000, hi + 1 >>> 0] : [low, hi];
}

/**
 * Executes one.
 *
 * @param op Opcode, 0x100 and more after 0F.
 * @param prefix One of {@linkcode SELECTS}.
 * @param mmx Whether it works on MMX registers.
 */
export function vector(cpu: Processor, op: number, prefix: number, mmx: boolean): number {
  if (op >= 0x200) return UNMODELLED;
  return known(cpu, op & 0xff, prefix, mmx);
}

function known(cpu: Processor, op: number, prefix: number, mmx: boolean): number {
  const packed = PACKED.get(op) ?? PACKED_SSE.get(op);
  if (packed !== undefined) return combine(cpu, packed, mmx, !SHIFTS_BY_OPERAND.has(op));
  const float = PACKED_FLOAT.get(op);
  if (float !== undefined) return combine(cpu, float(prefix !== 0), false, true);
  if (op >= 0x71 && op <= 0x73) return shiftBy(cpu, op, mmx);
  switch (op) {
    case 0x10:
    case 0x11:
      return moveUnaligned(cpu, op === 0x11, prefix);
    case 0x12:
    case 0x16:
    case 0x13:
    case 0x17:
      return moveHalf(cpu, op, prefix);
    case 0x28:
    case 0x29:
      return move(cpu, op === 0x29, false, 16, true);
    case 0x2b: {
      const bytes = prefix === SELECTS.repz ? 4 : prefix === SELECTS.repnz ? 8 : 16;
      return move(cpu, true, false, bytes, bytes === 16);
    }
    case 0x6f:
    case 0x7f:
      return move(cpu, op === 0x7f, mmx, mmx ? 8 : 16, prefix === SELECTS.data);
    case 0xe7:
      return move(cpu, true, mmx, mmx ? 8 : 16, !mmx);
    case 0xf0:
      return move(cpu, false, false, 16, false);
    case 0x6e:
      return fromGeneral(cpu, mmx);
    case 0x7e:
      return prefix === SELECTS.repz ? moveQuad(cpu) : toGeneral(cpu, mmx);
    case 0xd6:
      return prefix === SELECTS.data ? storeQuad(cpu) : crossMove(cpu, prefix);
    case 0x70:
      return shuffled(cpu, prefix, mmx);
    case 0xc6:
      return shuffledFloats(cpu, prefix !== 0);
    case 0xc4:
      return insertWord(cpu, mmx);
    case 0xc5:
    case 0xd7:
    case 0x50:
      return extract(cpu, op, prefix, mmx);
  }
  return UNMODELLED;
}

/** The register of ModRM.reg and the operand of ModRM.rm become the former's new value. */
function combine(
  cpu: Processor,
  operation: PackedOperation,
  mmx: boolean,
  aligned: boolean,
): number {
  const bytes = mmx ? 8 : 16;
  if (mmx) enterMmx(cpu);
  if (!source(cpu, B, mmx, bytes, aligned && !mmx)) return status;
  get(cpu, A, cpu.insn.reg, mmx);
  operation(A, B, bytes);
  put(cpu, A, cpu.insn.reg, mmx);
  return NEXT;
}

function shiftBy(cpu: Processor, op: number, mmx: boolean): number {
  const { insn } = cpu, kind = insn.reg & 7;
  const operation = immediateShift(op, kind);
  const bytewise = kind === 3 || kind === 7;
  if (operation === undefined || bytewise && mmx) return ud(cpu);
  if (mmx) enterMmx(cpu);
  get(cpu, A, insn.rm, mmx);
  B.u64[0] = BigInt(insn.imm & 0xff);
  operation(A, B, mmx ? 8 : 16);
  put(cpu, A, insn.rm, mmx);
  return NEXT;
}

/** Moves between ModRM.reg and ModRM.rm; from memory the rest of the register is cleared. */
function move(cpu: Processor, out: boolean, mmx: boolean, bytes: number, aligned: boolean): number {
  if (mmx) enterMmx(cpu);
  const { reg } = cpu.insn;
  if (out) {
    get(cpu, A, reg, mmx);
    return store(cpu, A, mmx, bytes, aligned);
  }
  if (!source(cpu, A, mmx, bytes, aligned)) return status;
  put(cpu, A, reg, mmx);
  return NEXT;
}

/** MOVUPS, MOVUPD, MOVSS, MOVSD; between registers the scalar ones leave the rest alone. */
function moveUnaligned(cpu: Processor, out: boolean, prefix: number): number {
  const bytes = prefix === SELECTS.repz ? 4 : prefix === SELECTS.repnz ? 8 : 16;
  const { reg, rm, mod } = cpu.insn;
  if (bytes === 16 || mod !== 3) return move(cpu, out, false, bytes, false);
  get(cpu, A, out ? reg : rm, false);
  put(cpu, A, out ? rm : reg, false, bytes);
  return NEXT;
}

/** MOVLPS, MOVHPS and their like: one half of a register. */
function moveHalf(cpu: Processor, op: number, prefix: number): number {
  const { reg, mod } = cpu.insn;
  const out = (op & 1) !== 0, high = (op & 4) !== 0;
  if (prefix >= SELECTS.repz) {
    return duplicate(cpu, high, prefix);
  }
  if (out) {
    get(cpu, A, reg, false);
    if (high) A.u64[0] = A.u64[1] as bigint;
    return store(cpu, A, false, 8);
  }
  if (!source(cpu, B, false, 8, false)) return status;
  get(cpu, A, reg, false);
  // Of registers, MOVHLPS takes the other one's high half, MOVLHPS its low half.
  const fromHigh = mod === 3 && prefix === SELECTS.none && !high ||
    mod === 3 && prefix !== 0 && high;
  A.u64[high ? 1 : 0] = B.u64[fromHigh ? 1 : 0] as bigint;
  put(cpu, A, reg, false);
  return NEXT;
}

/** MOVSLDUP, MOVSHDUP and MOVDDUP. */
function duplicate(cpu: Processor, high: boolean, prefix: number): number {
  const double = prefix === SELECTS.repnz;
  if (!source(cpu, B, false, double ? 8 : 16, false)) return status;
  const order = double ? [0, 1, 0, 1] : high ? [1, 1, 3, 3] : [0, 0, 2, 2];
  A.u32.set(order.map((i) => B.u32[i] as number));
  put(cpu, A, cpu.insn.reg, false);
  return NEXT;
}

/** MOVD and MOVQ from a general register or memory. */
function fromGeneral(cpu: Processor, mmx: boolean): number {
  if (mmx) enterMmx(cpu);
  const wide = cpu.insn.dflag === 3;
  if (!getOperand(cpu, wide ? 8 : 4)) return cpu.failure;
  A.u32.set([cpu.lo, wide ? cpu.hi : 0, 0, 0]);
  put(cpu, A, cpu.insn.reg, mmx);
  return NEXT;
}

function toGeneral(cpu: Processor, mmx: boolean): number {
  if (mmx) enterMmx(cpu);
  const { insn } = cpu;
  get(cpu, A, insn.reg, mmx);
  if (insn.mod !== 3) effectiveAddress(cpu);
  const size = insn.dflag === 3 ? 8 : 4;
  return setOperand(cpu, size, A.u32[0] as number, A.u32[1] as number) ? NEXT : cpu.failure;
}

/** MOVQ of one SSE register, whose other half is cleared. */
function moveQuad(cpu: Processor): number {
  if (!source(cpu, A, false, 8)) return status;
  A.u64[1] = 0n;
  put(cpu, A, cpu.insn.reg, false);
  return NEXT;
}

function storeQuad(cpu: Processor): number {
  get(cpu, A, cpu.insn.reg, false);
  A.u64[1] = 0n;
  return store(cpu, A, false, cpu.insn.mod === 3 ? 16 : 8);
}

function shuffled(cpu: Processor, prefix: number, mmx: boolean): number {
  const { insn } = cpu;
  if (mmx) enterMmx(cpu);
  if (!source(cpu, B, mmx, mmx ? 8 : 16)) return status;
  A.u8.set(B.u8);
  if (prefix === SELECTS.data) shuffle(A.u32, B.u32, insn.imm);
  else {
    const at = prefix === SELECTS.repz ? 4 : 0;
    shuffle(A.u16.subarray(at), B.u16.subarray(at), insn.imm);
  }
  put(cpu, A, insn.reg, mmx);
  return NEXT;
}

function shuffledFloats(cpu: Processor, double: boolean): number {
  const { insn } = cpu, { imm } = insn;
  if (!source(cpu, B, false, 16)) return status;
  get(cpu, A, insn.reg, false);
  if (double) A.u64.set([A.u64[imm & 1] as bigint, B.u64[imm >> 1 & 1] as bigint]);
  else {
    const lane = (of: Lanes, at: number) => of.u32[imm >> at & 3] as number;
    A.u32.set([lane(A, 0), lane(A, 2), lane(B, 4), lane(B, 6)]);
  }
  put(cpu, A, insn.reg, false);
  return NEXT;
}

function insertWord(cpu: Processor, mmx: boolean): number {
  if (mmx) enterMmx(cpu);
  const { insn } = cpu;
  if (!getOperand(cpu, 2)) return cpu.failure;
  get(cpu, A, insn.reg, mmx);
  A.u16[insn.imm & (mmx ? 3 : 7)] = cpu.lo;
  put(cpu, A, insn.reg, mmx);
  return NEXT;
}

/** PEXTRW, PMOVMSKB and MOVMSKPS: from a register into a general one. */
function extract(cpu: Processor, op: number, prefix: number, mmx: boolean): number {
  const { insn } = cpu;
  if (mmx) enterMmx(cpu);
  get(cpu, A, insn.rm, mmx);
  const bytes = mmx ? 8 : 16;
  const value = op === 0xc5
    ? A.u16[insn.imm & (mmx ? 3 : 7)] as number
    : signs(A, bytes, op === 0xd7 ? 1 : prefix === 0 ? 4 : 8);
  setRegister(cpu, insn.reg, 4, value, 0);
  return NEXT;
}

/** MOVQ2DQ and MOVDQ2Q, between MMX and SSE. */
function crossMove(cpu: Processor, prefix: number): number {
  const { insn } = cpu;
  if (insn.mod !== 3) return ud(cpu);
  enterMmx(cpu);
  const toSse = prefix === SELECTS.repz;
  get(cpu, A, insn.rm, toSse);
  if (toSse) A.u64[1] = 0n;
  put(cpu, A, insn.reg, !toSse);
  return NEXT;
}
