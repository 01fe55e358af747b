/**
 * MMX, SSE and AVX, of which only what comes before them is modelled: whether they exist, and who
 * has to be asked first. What FXSAVE saves of the x87 is carried out.
 *
 * @module
 */
import { CR4 } from "../svm/bits.ts";
import { NEXT, UNMODELLED, VECTOR } from "./constants.ts";
import { type Instruction, PREFIX } from "./decode.ts";
import { gp, ud } from "./faults.ts";
import { address, effectiveAddress } from "./operands.ts";
import type { Processor } from "./processor.ts";
import { SELECTS, vector } from "./vector.ts";
import { emptyStack, loadFxArea, saveFxArea } from "./x87_state.ts";

/** CR0.EM and CR0.TS. */
const EM = 4, TS = 8;
/** Bits of XCR0 that AVX needs: SSE and AVX. */
const AVX_STATE = 6;

const { none, data, repz, repnz } = SELECTS;
const NONE = 1 << none, DATA = 1 << data, REPZ = 1 << repz, REPNZ = 1 << repnz;
const BOTH = NONE | DATA, ALL = BOTH | REPZ | REPNZ;

/** Opcodes from the first to the last, and the prefixes with which there is an instruction. */
type Rows = readonly (readonly [first: number, last: number, prefixes: number])[];

/** Opcodes that work on MMX registers where no prefix makes SSE of them. */
const MMX: Rows = [
  [0x160, 0x16b, NONE],
  [0x16e, 0x177, NONE],
  [0x17e, 0x17f, NONE],
  [0x1c4, 0x1c5, NONE],
  [0x1d1, 0x1d5, NONE],
  [0x1d7, 0x1e5, NONE],
  [0x1e7, 0x1ef, NONE],
  [0x1f1, 0x1fe, NONE],
  [0x200, 0x20b, NONE],
  [0x21c, 0x21e, NONE],
  [0x30f, 0x30f, NONE],
];
/** The SSE tables. */
const SSE: Rows = [
  [0x110, 0x112, ALL],
  [0x113, 0x115, BOTH],
  [0x116, 0x116, BOTH | REPZ],
  [0x117, 0x117, BOTH],
  [0x128, 0x129, BOTH],
  [0x12a, 0x12d, ALL],
  [0x12e, 0x12f, BOTH],
  [0x150, 0x150, BOTH],
  [0x151, 0x151, ALL],
  [0x152, 0x153, NONE | REPZ],
  [0x154, 0x157, BOTH],
  [0x158, 0x15a, ALL],
  [0x15b, 0x15b, BOTH | REPZ],
  [0x15c, 0x15f, ALL],
  [0x160, 0x16b, DATA],
  [0x16c, 0x16e, DATA],
  [0x16f, 0x16f, DATA | REPZ],
  [0x170, 0x170, DATA | REPZ | REPNZ],
  [0x171, 0x177, DATA],
  [0x178, 0x17d, DATA | REPNZ],
  [0x17e, 0x17f, DATA | REPZ],
  [0x1c2, 0x1c2, ALL],
  [0x1c4, 0x1c5, DATA],
  [0x1c6, 0x1c6, BOTH],
  [0x1d0, 0x1d0, DATA | REPNZ],
  [0x1d1, 0x1d5, DATA],
  [0x1d6, 0x1d6, DATA | REPZ | REPNZ],
  [0x1d7, 0x1e5, DATA],
  [0x1e6, 0x1e6, DATA | REPZ | REPNZ],
  [0x1e7, 0x1ef, DATA],
  [0x1f0, 0x1f0, REPNZ],
  [0x1f1, 0x1fe, DATA],
  [0x200, 0x24f, DATA],
  [0x2d8, 0x2df, DATA],
  [0x300, 0x363, DATA],
  [0x3df, 0x3df, DATA],
];

const EMMS = 0x177, FEMMS = 0x10e, AMD_3DNOW = 0x10f;
/** SSE instructions between a register and memory alone, and between registers alone. */
const IN_MEMORY: ReadonlySet<number> = new Set([0x113, 0x117, 0x12b, 0x1f0, 0x22a]);
const IN_REGISTERS: ReadonlySet<number> = new Set([
  0x150,
  0x171,
  0x172,
  0x173,
  0x1c5,
  0x1d7,
  0x1f7,
]);

function among(rows: Rows, op: number, prefix: number): boolean {
  return rows.some(([first, last, prefixes]) =>
    op >= first && op <= last && (prefixes >> prefix & 1) !== 0
  );
}

/** The prefix that counts: F2 and F3 before 66. */
function selected({ prefixes }: Instruction): number {
  if ((prefixes & PREFIX.repnz) !== 0) return repnz;
  if ((prefixes & PREFIX.repz) !== 0) return repz;
  return (prefixes & PREFIX.data) !== 0 ? data : none;
}

/** Instructions that nobody asks about before they are executed, by opcode: with which prefixes. */
const UNCHECKED: Readonly<Record<number, number>> = {
  [FEMMS]: ALL,
  [AMD_3DNOW]: ALL,
  [EMMS]: ALL,
  0x12a: BOTH,
  0x12c: BOTH,
  0x12d: BOTH,
  0x178: ALL,
  0x179: ALL,
  0x1d6: REPZ | REPNZ,
};

/** An instruction of the MMX and SSE tables, or #UD where the opcode is none. */
export function simd(cpu: Processor, op: number): number {
  const { insn } = cpu, prefix = selected(insn);
  const old = op === FEMMS || op === AMD_3DNOW || op === EMMS;
  const mmx = old || among(MMX, op, prefix);
  if (!mmx && !among(SSE, op, prefix)) return ud(cpu);
  if ((insn.mod === 3 ? IN_MEMORY : IN_REGISTERS).has(op)) return ud(cpu);
  if (!(cpu.model.mixesUnchecked && ((UNCHECKED[op] ?? 0) >> prefix & 1) !== 0)) {
    if (!mmx && (cpu.cr4 & CR4.OSFXSR) === 0) return ud(cpu);
    if ((cpu.cr0 & TS) !== 0 && cpu.model.taskSwitchedFirst) return cpu.raise(VECTOR.nm);
    if ((cpu.cr0 & EM) !== 0) return ud(cpu);
    if ((cpu.cr0 & TS) !== 0) return cpu.raise(VECTOR.nm);
  }
  if (op !== EMMS && op !== FEMMS) return vector(cpu, op, prefix, mmx);
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
