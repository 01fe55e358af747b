/**
 * MMX, SSE and AVX, of which only what comes before them is modelled: whether they exist, and who
 * has to be asked first. What FXSAVE saves of the x87 is carried out.
 *
 * @module
 */
import { CR4 } from "../svm/bits.ts";
import { NEXT, UNMODELLED, VECTOR } from "./constants.ts";
import { PREFIX } from "./decode.ts";
import { gp, ud } from "./faults.ts";
import { address, effectiveAddress } from "./operands.ts";
import type { Processor } from "./processor.ts";
import { emptyStack, loadFxArea, saveFxArea } from "./x87_state.ts";

/** CR0.EM and CR0.TS. */
const EM = 4, TS = 8;
/** Bits of XCR0 that AVX needs: SSE and AVX. */
const AVX_STATE = 6;

const PREFIXED = PREFIX.data | PREFIX.repz | PREFIX.repnz;

/** Opcodes that work on MMX registers where no prefix makes SSE of them, from the first to the last. */
const MMX = [
  [0x160, 0x16b],
  [0x16e, 0x177],
  [0x17e, 0x17f],
  [0x1c4, 0x1c5],
  [0x1d1, 0x1d5],
  [0x1d7, 0x1e5],
  [0x1e7, 0x1ef],
  [0x1f1, 0x1fe],
  [0x200, 0x20b],
  [0x21c, 0x21e],
  [0x30f, 0x30f],
] as const;
/** The rest of the SSE tables. */
const SSE = [
  [0x110, 0x117],
  [0x128, 0x12f],
  [0x150, 0x17f],
  [0x1c2, 0x1c6],
  [0x1d0, 0x1fe],
  [0x200, 0x24f],
  [0x2d8, 0x2df],
  [0x300, 0x363],
  [0x3df, 0x3df],
] as const;

const EMMS = 0x177, FEMMS = 0x10e, AMD_3DNOW = 0x10f;
/** VMREAD and VMWRITE of other makers' processors, which with a prefix are EXTRQ and INSERTQ. */
const VMREAD = 0x178, VMWRITE = 0x179;

function among(ranges: readonly (readonly [number, number])[], op: number): boolean {
  return ranges.some(([first, last]) => op >= first && op <= last);
}

/** An instruction of the MMX and SSE tables, or #UD where the opcode is none. */
export function simd(cpu: Processor, op: number): number {
  const bare = (cpu.insn.prefixes & PREFIXED) === 0;
  const old = op === FEMMS || op === AMD_3DNOW || bare && among(MMX, op);
  if (!old && (!among(SSE, op) || bare && (op === VMREAD || op === VMWRITE))) return ud(cpu);
  if ((cpu.cr0 & EM) !== 0 || !old && (cpu.cr4 & CR4.OSFXSR) === 0) return ud(cpu);
  if ((cpu.cr0 & TS) !== 0) return cpu.raise(VECTOR.nm);
  if (op !== EMMS && op !== FEMMS) return UNMODELLED;
  emptyStack(cpu);
  return NEXT;
}

/** An instruction encoded with VEX, BMI's apart. */
export function vex(cpu: Processor): number {
  const there = cpu.protectedMode && !cpu.vm86 && (cpu.cr4 & CR4.OSXSAVE) !== 0 &&
    (cpu.xcr0 & AVX_STATE) === AVX_STATE;
  if (!there) return ud(cpu);
  return (cpu.cr0 & TS) !== 0 ? cpu.raise(VECTOR.nm) : UNMODELLED;
}

/** FXSAVE, FXRSTOR, LDMXCSR, STMXCSR and XSAVE with its like: ModRM.reg 0 to 6 of 0F AE, in memory. */
export function saveState(cpu: Processor, which: number): number {
  if (which > 3) return (cpu.cr4 & CR4.OSXSAVE) === 0 ? ud(cpu) : UNMODELLED;
  if (which > 1) {
    if ((cpu.cr0 & EM) !== 0 || (cpu.cr4 & CR4.OSFXSR) === 0) return ud(cpu);
    return (cpu.cr0 & TS) !== 0 ? cpu.raise(VECTOR.nm) : UNMODELLED;
  }
  if ((cpu.cr0 & (EM | TS)) !== 0) return cpu.raise(VECTOR.nm);
  // With OSFXSR it is about SSE's registers, too.
  if ((cpu.cr4 & CR4.OSFXSR) !== 0) return UNMODELLED;
  effectiveAddress(cpu);
  const { lo, hi } = address;
  if ((lo & 15) !== 0) return gp(cpu);
  return (which === 0 ? saveFxArea(cpu, lo, hi) : loadFxArea(cpu, lo, hi)) ? NEXT : cpu.failure;
}
