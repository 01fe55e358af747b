/**
 * Decimal adjustment (DAA, DAS, AAA, AAS, AAM, AAD), which 64-bit code does not have.
 *
 * @module
 */
import { logic } from "./alu.ts";
import { FLAG, NEXT, VECTOR } from "./constants.ts";
import type { Processor } from "./processor.ts";

/** Opcodes. */
const DAA = 0x27, DAS = 0x2f, AAA = 0x37, AAM = 0xd4, AAD = 0xd5;

const CARRIES = FLAG.cf | FLAG.af;

function setAx(cpu: Processor, al: number, ah: number): void {
  cpu.gpr[0] = (cpu.gpr[0] as number) & ~0xffff | (ah & 0xff) << 8 | al & 0xff;
}

/** Flags of a result in AL, and the carries. */
function flags(cpu: Processor, al: number, carries: number): void {
  logic(cpu, 1, al, 0);
  cpu.rflags |= carries;
}

/** DAA or DAS: makes AL two decimal digits again after an addition or a subtraction. */
function packed(cpu: Processor, al: number, ah: number, subtract: boolean): void {
  const carry = (cpu.rflags & FLAG.cf) !== 0;
  const low = (al & 15) > 9 || (cpu.rflags & FLAG.af) !== 0;
  const high = al > 0x99 || carry;
  const by = (low ? 6 : 0) + (high ? 0x60 : 0);
  const result = (subtract ? al - by : al + by) & 0xff;
  const borrows = subtract && low && al < 6;
  flags(cpu, result, (low ? FLAG.af : 0) | (high || borrows ? FLAG.cf : 0));
  setAx(cpu, result, ah);
}

/** AAA or AAS: makes AL one decimal digit, and carries into AH. */
function unpacked(cpu: Processor, al: number, ah: number, subtract: boolean): void {
  if ((al & 15) <= 9 && (cpu.rflags & FLAG.af) === 0) {
    cpu.rflags &= ~CARRIES;
    setAx(cpu, al & 15, ah);
    return;
  }
  const next = subtract ? al - 6 : al + 6;
  const carry = next < 0 || next > 0xff ? 2 : 1;
  cpu.rflags |= CARRIES;
  setAx(cpu, next & 15, subtract ? ah - carry : ah + carry);
}

/**
 * Carries out one of them; the immediate of AAM and AAD is the base.
 *
 * @param cpu The processor, not in 64-bit code.
 * @param op The opcode.
 */
export function decimal(cpu: Processor, op: number): number {
  const ax = cpu.gpr[0] as number;
  const al = ax & 0xff, ah = ax >>> 8 & 0xff, base = cpu.insn.imm & 0xff;
  switch (op) {
    case DAA:
    case DAS:
      packed(cpu, al, ah, op === DAS);
      return NEXT;
    case AAM: {
      if (base === 0) return cpu.raise(VECTOR.de);
      flags(cpu, al % base, 0);
      setAx(cpu, al % base, Math.floor(al / base));
      return NEXT;
    }
    case AAD: {
      const result = ah * base + al & 0xff;
      flags(cpu, result, 0);
      setAx(cpu, result, 0);
      return NEXT;
    }
    default:
      unpacked(cpu, al, ah, op !== AAA);
      return NEXT;
  }
}
