/**
 * Runs of zeros. Two of them are an ADD of AL to one byte of memory, so that a guest that went
 * astray in memory that nobody wrote carries out the same instruction until something else is in
 * its way. What so many of them come to is plain, and is done at once.
 *
 * @module
 */
import { FETCH, READ, Walk, WRITE } from "../paging/walk.ts";
import * as alu from "./alu.ts";
import { FLAG, SEG } from "./constants.ts";
import { address } from "./operands.ts";
import type { Processor } from "./processor.ts";

const PAGE = 4096;
const HIGH = 0x1_0000_0000;

const walk = new Walk();

/**
 * Carries out further instructions of zeros after one that was carried out, as far as they lie on
 * one page and nothing but that one byte, the flags and RIP change meanwhile.
 *
 * @param cpu The processor, whose last instruction succeeded.
 * @param most How many there may be at most.
 * @returns How many there were; 0 where they have to be carried out one by one.
 */
export function passZeros(cpu: Processor, most: number): number {
  const { insn } = cpu;
  if (insn.opcode !== 0 || insn.modrm !== 0 || insn.length !== 2) return 0;
  if (cpu.virq || cpu.armed !== 0 || (cpu.rflags & FLAG.rf) !== 0) return 0;
  if (cpu.ripLo > HIGH - PAGE) return 0;
  const wide = cpu.width === 64;
  const lo = wide ? cpu.ripLo : (cpu.ripLo + (cpu.segBase[SEG.cs * 2] as number)) >>> 0;
  const { memory } = cpu.m, { translations, who } = cpu;
  // Each would find the same: were a table among what is written, it would be forgotten by now.
  if (!translations.find(cpu, lo, wide ? cpu.ripHi : 0, FETCH, who, walk)) return 0;
  const { gpa } = walk;
  if (!translations.find(cpu, address.lo, address.hi, READ, who, walk)) return 0;
  const operand = walk.gpa;
  if (!translations.find(cpu, address.lo, address.hi, WRITE, who, walk)) return 0;
  if (walk.gpa !== operand || (operand / PAGE | 0) === (gpa / PAGE | 0)) return 0;
  const count = Math.min(zeros(memory.words(gpa), lo % PAGE), most);
  memory.recorder?.readMemory(gpa, Math.min(2 * count + 2, PAGE - lo % PAGE));
  if (count === 0) return 0;
  const by = (cpu.gpr[0] as number) & 0xff;
  memory.recorder?.readMemory(operand, 1);
  memory.recorder?.writeMemory(operand, 1);
  const page = memory.writable(operand), at = operand % PAGE;
  const before = (page[at] as number) + (count - 1) * by & 0xff;
  alu.add(cpu, 1, before, 0, by, 0, 0);
  page[at] = alu.result.lo;
  cpu.ripLo += 2 * count;
  return count;
}

/** Bytes of zeros that QEMU translates at once. */
const BLOCK = 1000;

/**
 * Whether an instruction of zeros wrote to what QEMU translated with it: a block that is changed
 * meanwhile is left at once, which is when an interrupt that came in the meantime is seen.
 *
 * @param cpu The processor, whose last instruction succeeded.
 * @returns Whether it did.
 */
export function rewritesItself(cpu: Processor): boolean {
  const { insn } = cpu;
  if (insn.opcode !== 0 || insn.modrm !== 0 || insn.length !== 2) return false;
  const base = cpu.width === 64 ? 0 : (cpu.segBase[SEG.cs * 2] as number);
  const after = (address.lo - (cpu.ripLo - insn.length + base)) >>> 0;
  return after < BLOCK;
}

/** How many instructions of zeros there are from a place of a page on whose successor lies on it, too. */
function zeros(words: Uint32Array, from: number): number {
  let word = from >> 2, bits = (words[word] as number) >>> 8 * (from & 3), at = from;
  if (bits === 0) {
    while (++word < PAGE / 4 && words[word] === 0);
    if (word === PAGE / 4) return PAGE - 1 - from >> 1;
    bits = words[word] as number;
    at = 4 * word;
  }
  // To the lowest byte of the word that is not zero.
  at += 31 - Math.clz32(bits & -bits) >> 3;
  return Math.max(0, Math.min(at, PAGE - 1) - from >> 1);
}
