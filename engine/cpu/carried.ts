/**
 * Registers that a guest carries through a run without having to look at them: the general ones and
 * CR2. Most guests that a hypervisor enters and leaves use none of them, so what a run does is the
 * same whatever they hold.
 *
 * @module
 */
import type { Instruction } from "./decode.ts";
import type { Processor } from "./processor.ts";
import { GPR, SAVE } from "./vmcb_words.ts";

/** All of them: a bit for each general register by its number, and one for CR2. */
export const ALL_REGISTERS = 0x1ffff;
const RAX = 1;
/** 32-bit halves of all of them. */
const HALVES = 34;

/** Number of the word that holds half a register outside the guest: RAX, RSP and CR2 are in the VMCB. */
function wordOf(at: number, half: number): number {
  if (half >= 32) return at + SAVE.cr2 + half - 32;
  if (half < 2) return at + SAVE.rax + half;
  return half === 8 || half === 9 ? at + SAVE.rsp + half - 8 : GPR + half;
}

/** Loads them, whatever they hold. */
export function loadCarried(cpu: Processor): void {
  const { gpr, at } = cpu, { words } = cpu.m;
  for (let i = 2; i < 32; i++) gpr[i] = words[GPR + i] as number;
  gpr[0] = words[at + SAVE.rax] as number;
  gpr[1] = words[at + SAVE.rax + 1] as number;
  gpr[8] = words[at + SAVE.rsp] as number;
  gpr[9] = words[at + SAVE.rsp + 1] as number;
  cpu.cr2Lo = words[at + SAVE.cr2] as number;
  cpu.cr2Hi = words[at + SAVE.cr2 + 1] as number;
  cpu.used = 0;
}

/** Writes them back. */
export function storeCarried(cpu: Processor): void {
  if (cpu.m.recorder !== undefined) recordStore(cpu);
  const { gpr, at } = cpu, { words } = cpu.m;
  words[at + SAVE.cr2] = cpu.cr2Lo;
  words[at + SAVE.cr2 + 1] = cpu.cr2Hi;
  words[at + SAVE.rsp] = gpr[8] as number;
  words[at + SAVE.rsp + 1] = gpr[9] as number;
  words[at + SAVE.rax] = gpr[0] as number;
  words[at + SAVE.rax + 1] = gpr[1] as number;
  for (let i = 2; i < 32; i++) if (i !== 8 && i !== 9) words[GPR + i] = gpr[i] as number;
}

/** Those that were used follow from what was read; the others stay what they are. */
function recordStore({ m, at, gpr, used, cr2Lo, cr2Hi }: Processor): void {
  for (let half = 0; half < HALVES; half++) {
    const word = wordOf(at, half);
    const value = half < 32 ? gpr[half] : half === 32 ? cr2Lo : cr2Hi;
    if ((used >>> (half >> 1) & 1) !== 0) m.recorder?.write(word * 4, 4);
    else if (m.words[word] !== (value as number) >>> 0) m.recorder?.giveUp();
  }
}

/** What follows depends on these registers. */
export function recordUse(cpu: Processor, registers: number): void {
  const { m, at } = cpu;
  const fresh = registers & ~cpu.used;
  if (fresh === 0) return;
  cpu.used |= fresh;
  for (let half = 0; half < HALVES; half++) {
    if ((fresh >>> (half >> 1) & 1) !== 0) m.recorder?.read(wordOf(at, half) * 4, 4);
  }
}

/**
 * Registers that an instruction reads or writes, in itself and on its way to a #VMEXIT.
 *
 * @param insn The instruction.
 * @returns The registers; all of them of any that is not known to use less.
 */
export function registersOf({ opcode, modrm, mod, rex, prefixes }: Instruction): number {
  switch (opcode) {
    case 0x90:
      return rex === 0 && prefixes === 0 ? 0 : ALL_REGISTERS;
    case 0xf4: // HLT
    case 0x1a2: // CPUID, which exits
      return 0;
    case 0xe6: // OUT to a port in the instruction
    case 0xe7:
      return RAX;
    case 0x101:
      if (mod !== 3) return ALL_REGISTERS;
      // VMMCALL, STGI and CLGI; VMRUN, VMLOAD and VMSAVE.
      if (modrm === 0xd9 || modrm === 0xdc || modrm === 0xdd) return 0;
      return modrm === 0xd8 || modrm === 0xda || modrm === 0xdb ? RAX : ALL_REGISTERS;
    default:
      return ALL_REGISTERS;
  }
}
