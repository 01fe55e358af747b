/**
 * Port I/O: privilege, the TSS's permission map, the intercept.
 *
 * @module
 */
import { next } from "./branch.ts";
import { EXIT_CODE, NEXT, SEG } from "./constants.ts";
import { PREFIX } from "./decode.ts";
import { gp } from "./faults.ts";
import type { Processor } from "./processor.ts";

const HIGH = 0x1_0000_0000;

/** Port in DX. */
export const dx = (cpu: Processor): number => (cpu.gpr[4] as number) & 0xffff;

/** Checks a port access and exits when it is intercepted; `flags` are bits 3:0 of EXITINFO1. */
export function portAccess(
  cpu: Processor,
  port: number,
  size: number,
  flags: number,
): number {
  if (cpu.protectedMode && (cpu.cpl > cpu.iopl || cpu.vm86)) {
    const status = checkTss(cpu, port, size);
    if (status !== NEXT) return status;
  }
  if (!cpu.intercepted(EXIT_CODE.ioio)) return NEXT;
  if ((cpu.insn.prefixes & (PREFIX.repz | PREFIX.repnz)) !== 0) flags |= 8;
  // Of 32-bit code the upper half of RIP is only dropped as the run ends.
  cpu.setInfo2(next.lo, cpu.width === 64 ? next.hi : cpu.ripHi);
  return cpu.vmexit(EXIT_CODE.ioio, flags | size << 4 | port << 16);
}

function checkTss(cpu: Processor, port: number, size: number): number {
  const attrib = cpu.attrib[SEG.tr] as number;
  const limit = cpu.limit[SEG.tr] as number;
  if ((attrib & 0x80) === 0 || (attrib & 15) !== 9 || limit < 103) return gp(cpu);
  const base = cpu.segBase[SEG.tr * 2] as number;
  const baseHi = cpu.segBase[SEG.tr * 2 + 1] as number;
  const at = (offset: number) => {
    const lo = base + offset;
    return cpu.readSystem(lo % HIGH, lo >= HIGH ? baseHi + 1 >>> 0 : baseHi, 2);
  };
  if (!at(0x66)) return cpu.failure;
  const offset = cpu.lo + (port >> 3);
  if (offset + 1 > limit) return gp(cpu);
  if (!at(offset)) return cpu.failure;
  return (cpu.lo >> (port & 7) & (1 << size) - 1) !== 0 ? gp(cpu) : NEXT;
}
