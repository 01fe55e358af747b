/**
 * Registers whose content nobody can predict: what RDTSC and RDRAND put there. Code goes on as long
 * as it does not look at them.
 *
 * @module
 */
import { EXIT_CODE, NEXT } from "./constants.ts";
import { BASE_RIP, type Instruction, PREFIX } from "./decode.ts";
import { setRegister } from "./operands.ts";
import type { Processor } from "./processor.ts";
import { CONTROL } from "./vmcb_words.ts";

const RAX = 0, RCX = 1, RDX = 2;

/** RDTSC and RDTSCP: a number in EDX:EAX, and that of the processor in ECX. */
export function readClock(cpu: Processor, withAux: boolean): number {
  for (const register of withAux ? [RAX, RDX, RCX] : [RAX, RDX]) forget(cpu, register, 4);
  return NEXT;
}

/** A register's content is unknown from now on; its lower bytes where it is written in part. */
export function forget(cpu: Processor, register: number, size: number): void {
  if (cpu.unknown === 0) cpu.unknownSince = cpu.code.slice(0, cpu.insn.length);
  setRegister(cpu, register, size, 0, 0);
  cpu.unknown |= 1 << register;
}

/**
 * Whether the decoded instruction can be executed although registers are unknown. What it
 * overwrites is known again.
 */
export function goesOn(cpu: Processor): boolean {
  const { insn } = cpu;
  const reads = (register: number) => (cpu.unknown >> register & 1) !== 0;
  if (insn.base >= 0 && insn.base !== BASE_RIP && reads(insn.base)) return false;
  if (insn.index >= 0 && reads(insn.index)) return false;
  const written = writes(insn);
  if (written >= 0) {
    if (readsOperand(insn) && reads(insn.rm)) return false;
    cpu.unknown &= ~(1 << written);
    return true;
  }
  return !uses(insn).some(reads);
}

/** Number of a register in the low bits of the opcode. */
function inOpcode({ opcode, rex }: Instruction): number {
  return opcode & 7 | rex << 3 & 8;
}

/** The register that an instruction writes whole, whatever was in it; or -1. */
function writes(insn: Instruction): number {
  const { opcode: op, mod, reg, rm, dflag } = insn;
  if (dflag < 2) return -1;
  const itself = mod === 3 && reg === rm;
  if (itself && (op === 0x31 || op === 0x33 || op === 0x29 || op === 0x2b)) return reg;
  if (op >= 0xb8 && op <= 0xbf || op >= 0x58 && op <= 0x5f) return inOpcode(insn);
  if (op === 0xc7 || op === 0x89) return mod === 3 ? rm : -1;
  if (op === 0x8b || op === 0x8d || op === 0x63 && (insn.rex & 8) !== 0) return reg;
  return op === 0x1b6 || op === 0x1b7 || op === 0x1be || op === 0x1bf ? reg : -1;
}

/** Whether an instruction that overwrites a register reads another one, and which. */
function readsOperand(insn: Instruction): boolean {
  const { opcode: op } = insn;
  return insn.mod === 3 && (op === 0x8b || op === 0x63 || op >= 0x1b6);
}

/** All registers, for an instruction of which nothing is known. */
const ANY = Array.from({ length: 16 }, (_, i) => i);
/** Instructions without ModRM that read no general register but the stack pointer. */
const NONE: ReadonlySet<number> = new Set([
  ...Array.from({ length: 16 }, (_, i) => 0x70 + i),
  ...Array.from({ length: 16 }, (_, i) => 0x180 + i),
  ...[0x90, 0xe8, 0xe9, 0xeb, 0xc3, 0xc2, 0x9c, 0x9d, 0x68, 0x6a, 0xcc, 0xcd, 0xf4, 0x10b, 0x131],
  ...[0xf5, 0xf8, 0xf9, 0xfa, 0xfb, 0xfc, 0xfd, 0x9b, 0xe4, 0xe5, 0xe6, 0xe7, 0x106, 0x108, 0x109],
]);
/** RDTSCP, VMMCALL, CLGI and STGI: their ModRM. */
const BARE_GROUP7: ReadonlySet<number> = new Set([0xf9, 0xd9, 0xdc, 0xdd]);

/** The registers that one reads, beside those of its address. */
function uses(insn: Instruction): readonly number[] {
  const { opcode: op, mod, reg, rm } = insn;
  if (NONE.has(op)) return (insn.prefixes & PREFIX.rex) !== 0 && op === 0x90 ? ANY : [];
  const operand = mod === 3 ? [rm] : [];
  if (op < 0x40) return (op & 7) < 4 ? [...operand, reg] : (op & 7) < 6 ? [RAX] : ANY;
  if (op >= 0x80 && op <= 0x83 || op === 0xc6 || op === 0xc7) return operand;
  if (op === 0x84 || op === 0x85 || op === 0x88 || op === 0x89 || op === 0x8a || op === 0x8b) {
    return [...operand, reg];
  }
  if (op === 0xc0 || op === 0xc1 || op === 0xd0 || op === 0xd1) return operand;
  if ((op === 0xf6 || op === 0xf7) && (reg & 7) < 4) return operand;
  if ((op === 0xfe || op === 0xff) && (reg & 7) !== 3 && (reg & 7) !== 5) return operand;
  if (op >= 0x50 && op <= 0x57) return [inOpcode(insn)];
  if (op >= 0xec && op <= 0xef) return [RDX];
  if (op === 0x101 && BARE_GROUP7.has(insn.modrm)) return [];
  return ANY;
}

/** Exits that say and ask nothing of the general registers but RAX. */
function tellsOnlyRax(code: number): boolean {
  return code >= EXIT_CODE.exception && code < EXIT_CODE.exception + 0x25 ||
    [EXIT_CODE.hlt, EXIT_CODE.vmmcall, EXIT_CODE.vmrun, EXIT_CODE.ioio].includes(code) ||
    code === EXIT_CODE.shutdown || code === EXIT_CODE.npf;
}

/** Whether what a #VMEXIT hands over is known. */
export function exitIsKnown(cpu: Processor): boolean {
  const code = cpu.m.word(cpu.at + CONTROL.exitCode);
  return (cpu.unknown & 1 << RAX) === 0 && tellsOnlyRax(code);
}
