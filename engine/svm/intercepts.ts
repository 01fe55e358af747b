/**
 * The six intercept words of the control area, under KVM's INTERCEPT_* and
 * TRAP_* names without the prefix INTERCEPT_; where KVM names none, in the
 * same style.
 *
 * @module
 */
import type { BitField } from "../layout.ts";
import { bitNumbers, type Masks } from "./bits.ts";

/** Mnemonics of the exception vectors 0 to 31; vectors without one are `VECTOR_n`. */
export const EXCEPTION_NAMES = [
  ...["DE", "DB", "NMI", "BP", "OF", "BR", "UD", "NM", "DF", "OLD_MF", "TS"] as const,
  ...["NP", "SS", "GP", "PF", "SPURIOUS", "MF", "AC", "MC", "XM", "VE", "CP"] as const,
  ...["VECTOR_22", "VECTOR_23", "VECTOR_24", "VECTOR_25", "VECTOR_26"] as const,
  ...["VECTOR_27", "HV", "VC", "SX", "VECTOR_31"] as const,
] as const;

/** A bit of an intercept word, under its name. */
export type Intercept<N extends string> = BitField & { readonly name: N };
/** Numbers of registers. */
export type Sixteen = 0 | 1 | 2 | 3 | 4 | 5 | 6 | 7 | 8 | 9 | 10 | 11 | 12 | 13 | 14 | 15;

/** Word 0 (byte 0x000): reads and writes of the control registers. */
export const INTERCEPT_CR_BITS: readonly Intercept<`CR${Sixteen}_${"READ" | "WRITE"}`>[] = accesses(
  "CR",
);

/** Word 1 (byte 0x004): reads and writes of the debug registers. */
export const INTERCEPT_DR_BITS: readonly Intercept<`DR${Sixteen}_${"READ" | "WRITE"}`>[] = accesses(
  "DR",
);

/** Word 2 (byte 0x008): exception vectors. */
export const INTERCEPT_EXCEPTION_BITS: readonly Intercept<typeof EXCEPTION_NAMES[number]>[] =
  bitsFrom(0, EXCEPTION_NAMES);

/** Exception vectors by mnemonic. */
export const VECTORS: Masks<typeof INTERCEPT_EXCEPTION_BITS> = bitNumbers(INTERCEPT_EXCEPTION_BITS);

/** Names of word 3, in order. */
export const INTERCEPT_WORD3_NAMES = [
  "INTR",
  "NMI",
  "SMI",
  "INIT",
  "VINTR",
  "SELECTIVE_CR0",
  "STORE_IDTR",
  "STORE_GDTR",
  "STORE_LDTR",
  "STORE_TR",
  "LOAD_IDTR",
  "LOAD_GDTR",
  "LOAD_LDTR",
  "LOAD_TR",
  "RDTSC",
  "RDPMC",
  "PUSHF",
  "POPF",
  "CPUID",
  "RSM",
  "IRET",
  "INTn",
  "INVD",
  "PAUSE",
  "HLT",
  "INVLPG",
  "INVLPGA",
  "IOIO_PROT",
  "MSR_PROT",
  "TASK_SWITCH",
  "FERR_FREEZE",
  "SHUTDOWN",
] as const;

/** Word 3 (byte 0x00c). */
export const INTERCEPT_WORD3_BITS: readonly Intercept<typeof INTERCEPT_WORD3_NAMES[number]>[] =
  bitsFrom(0, INTERCEPT_WORD3_NAMES);

/** Names of word 4 up to the writes of control registers, in order. */
export const WORD4_INSTRUCTIONS = [
  "VMRUN",
  "VMMCALL",
  "VMLOAD",
  "VMSAVE",
  "STGI",
  "CLGI",
  "SKINIT",
  "RDTSCP",
  "ICEBP",
  "WBINVD",
  "MONITOR",
  "MWAIT",
  "MWAIT_COND",
  "XSETBV",
  "RDPRU",
  "TRAP_EFER_WRITE",
] as const;

/** Name of a bit of word 4. */
export type InterceptWord4Name = typeof WORD4_INSTRUCTIONS[number] | `TRAP_CR${Sixteen}_WRITE`;

/** Names of word 4, in order. */
export const INTERCEPT_WORD4_NAMES: readonly InterceptWord4Name[] = [
  ...WORD4_INSTRUCTIONS,
  ...Array.from({ length: 16 }, (_, i) => `TRAP_CR${i as Sixteen}_WRITE` as const),
];

/** Word 4 (byte 0x010). The TRAP_* bits take effect after the instruction. */
export const INTERCEPT_WORD4_BITS: readonly Intercept<InterceptWord4Name>[] = bitsFrom(
  0,
  INTERCEPT_WORD4_NAMES,
);

/** Names of word 5, in order. */
export const INTERCEPT_WORD5_NAMES = [
  "INVLPGB",
  "INVLPGB_ILLEGAL",
  "INVPCID",
  "MCOMMIT",
  "TLBSYNC",
  "BUS_LOCK",
  "IDLE_HLT",
] as const;

/** Word 5 (byte 0x014). */
export const INTERCEPT_WORD5_BITS: readonly Intercept<typeof INTERCEPT_WORD5_NAMES[number]>[] =
  bitsFrom(0, INTERCEPT_WORD5_NAMES);

/**
 * Numbers of intercepts by name, counted over all six words.
 *
 * @example
 * ```ts
 * import { INTERCEPTS } from "@vmtape/vmtape/engine";
 * if (INTERCEPTS.HLT !== 120 || INTERCEPTS.CR3_WRITE !== 19) throw new Error();
 * ```
 */
export const INTERCEPTS:
  & Masks<typeof INTERCEPT_CR_BITS>
  & Masks<typeof INTERCEPT_DR_BITS>
  & Masks<typeof INTERCEPT_WORD3_BITS>
  & Masks<typeof INTERCEPT_WORD4_BITS>
  & Masks<typeof INTERCEPT_WORD5_BITS> = {
    ...bitNumbers(INTERCEPT_CR_BITS, 0),
    ...bitNumbers(INTERCEPT_DR_BITS, 32),
    ...bitNumbers(INTERCEPT_WORD3_BITS, 96),
    ...bitNumbers(INTERCEPT_WORD4_BITS, 128),
    ...bitNumbers(INTERCEPT_WORD5_BITS, 160),
  };

/** Number of the intercept of exception vector 0. */
export const EXCEPTION_INTERCEPTS = 64;

function bitsFrom<const N extends string>(first: number, names: readonly N[]): Intercept<N>[] {
  return names.map((name, i) => ({ name, bit: first + i }));
}

function accesses<const R extends string>(
  register: R,
): Intercept<`${R}${Sixteen}_${"READ" | "WRITE"}`>[] {
  const sixteen = Array.from({ length: 16 }, (_, i) => i as Sixteen);
  return [
    ...bitsFrom(0, sixteen.map((i) => `${register}${i}_READ` as const)),
    ...bitsFrom(16, sixteen.map((i) => `${register}${i}_WRITE` as const)),
  ];
}
