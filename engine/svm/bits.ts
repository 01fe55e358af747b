/**
 * The bits of the processor's registers, as tables for dumps and diffs and as
 * masks for the consistency checks. Names are KVM's, else the manual's.
 *
 * @module
 */
import type { BitField } from "../layout.ts";

/** Masks of the bits of a table by name. */
export type Masks<T extends readonly BitField[]> = {
  readonly [K in T[number]["name"]]: number;
};

/**
 * The masks of a table of bits, as unsigned numbers. All bits must lie in the
 * low 32, so that a mask can be used on the low half of a register.
 *
 * @param bits The table.
 * @returns One mask per name.
 * @throws {RangeError} When a row reaches beyond bit 31.
 * @example
 * ```ts
 * import { masks } from "@vmtape/vmtape/engine";
 * const m = masks([{ name: "LMA", bit: 10 }, { name: "IOPL", bit: 12, width: 2 }] as const);
 * if (m.LMA !== 0x400 || m.IOPL !== 0x3000) throw new Error();
 * ```
 */
export function masks<const T extends readonly BitField[]>(bits: T): Masks<T> {
  const out: Record<string, number> = {};
  for (const { name, bit, width = 1 } of bits) {
    if (bit + width > 32) {
      throw new RangeError(`Bit ${name} reaches beyond bit 31: keep it out of a table of masks`);
    }
    out[name] = (2 ** width - 1) * 2 ** bit;
  }
  return out as Masks<T>;
}

/**
 * Numbers of the bits of a table by name: of a group of several the lowest.
 *
 * @param bits The table.
 * @param first Number of its bit 0, where it is part of a longer one.
 * @returns One number per name.
 * @example
 * ```ts
 * import { bitNumbers } from "@vmtape/vmtape/engine";
 * if (bitNumbers([{ name: "HLT", bit: 24 }] as const, 96).HLT !== 120) throw new Error();
 * ```
 */
export function bitNumbers<const T extends readonly BitField[]>(bits: T, first = 0): Masks<T> {
  const out: Record<string, number> = {};
  for (const { name, bit } of bits) out[name] = first + bit;
  return out as Masks<T>;
}

/** The same names in lower case. */
export type Lower<T> = { readonly [K in keyof T & string as Lowercase<K>]: number };

/**
 * Numbers by name, the names in lower case, as the processor's code spells them.
 *
 * @param numbers The numbers.
 * @returns The same numbers.
 * @example
 * ```ts
 * import { lowerCase, RFLAGS } from "@vmtape/vmtape/engine";
 * if (lowerCase(RFLAGS).tf !== 0x100) throw new Error();
 * ```
 */
export function lowerCase<const T extends Readonly<Record<string, number>>>(numbers: T): Lower<T> {
  return Object.fromEntries(
    Object.entries(numbers).map(([name, number]) => [name.toLowerCase(), number]),
  ) as Lower<T>;
}

/** Bits of CR0 (APM vol. 2, 3.1.1). */
export const CR0_BITS = [
  { name: "PE", bit: 0 },
  { name: "MP", bit: 1 },
  { name: "EM", bit: 2 },
  { name: "TS", bit: 3 },
  { name: "ET", bit: 4 },
  { name: "NE", bit: 5 },
  { name: "WP", bit: 16 },
  { name: "AM", bit: 18 },
  { name: "NW", bit: 29 },
  { name: "CD", bit: 30 },
  { name: "PG", bit: 31 },
] as const satisfies readonly BitField[];

/**
 * Masks of CR0's bits.
 *
 * @example
 * ```ts
 * import { CR0 } from "@vmtape/vmtape/engine";
 * if (CR0.PG !== 0x8000_0000) throw new Error();
 * ```
 */
export const CR0: Masks<typeof CR0_BITS> = masks(CR0_BITS);

/** Bits of CR4 (APM vol. 2, 3.1.3), with those that only other makers' processors have. */
export const CR4_BITS = [
  { name: "VME", bit: 0 },
  { name: "PVI", bit: 1 },
  { name: "TSD", bit: 2 },
  { name: "DE", bit: 3 },
  { name: "PSE", bit: 4 },
  { name: "PAE", bit: 5 },
  { name: "MCE", bit: 6 },
  { name: "PGE", bit: 7 },
  { name: "PCE", bit: 8 },
  { name: "OSFXSR", bit: 9 },
  { name: "OSXMMEXCPT", bit: 10 },
  { name: "UMIP", bit: 11 },
  { name: "LA57", bit: 12 },
  { name: "VMXE", bit: 13 },
  { name: "SMXE", bit: 14 },
  { name: "FSGSBASE", bit: 16 },
  { name: "PCIDE", bit: 17 },
  { name: "OSXSAVE", bit: 18 },
  { name: "SMEP", bit: 20 },
  { name: "SMAP", bit: 21 },
  { name: "PKE", bit: 22 },
  { name: "CET", bit: 23 },
  { name: "LAM_SUP", bit: 28 },
] as const satisfies readonly BitField[];

/**
 * Masks of CR4's bits.
 *
 * @example
 * ```ts
 * import { CR4 } from "@vmtape/vmtape/engine";
 * if (CR4.PAE !== 0x20) throw new Error();
 * ```
 */
export const CR4: Masks<typeof CR4_BITS> = masks(CR4_BITS);

/** Bits of EFER (APM vol. 2, 3.1.7). */
export const EFER_BITS = [
  { name: "SCE", bit: 0 },
  { name: "LME", bit: 8 },
  { name: "LMA", bit: 10 },
  { name: "NX", bit: 11 },
  { name: "SVME", bit: 12 },
  { name: "LMSLE", bit: 13 },
  { name: "FFXSR", bit: 14 },
  { name: "TCE", bit: 15 },
  { name: "MCOMMIT", bit: 17 },
  { name: "INTWB", bit: 18 },
  { name: "UAIE", bit: 20 },
  { name: "AUTOIBRS", bit: 21 },
] as const satisfies readonly BitField[];

/**
 * Masks of EFER's bits.
 *
 * @example
 * ```ts
 * import { EFER } from "@vmtape/vmtape/engine";
 * if ((EFER.SVME | EFER.LMA | EFER.LME) !== 0x1500) throw new Error();
 * ```
 */
export const EFER: Masks<typeof EFER_BITS> = masks(EFER_BITS);

/** Bits of RFLAGS (APM vol. 2, 3.1.6). `FIXED` always reads as one. */
export const RFLAGS_BITS = [
  { name: "CF", bit: 0 },
  { name: "FIXED", bit: 1 },
  { name: "PF", bit: 2 },
  { name: "AF", bit: 4 },
  { name: "ZF", bit: 6 },
  { name: "SF", bit: 7 },
  { name: "TF", bit: 8 },
  { name: "IF", bit: 9 },
  { name: "DF", bit: 10 },
  { name: "OF", bit: 11 },
  { name: "IOPL", bit: 12, width: 2 },
  { name: "NT", bit: 14 },
  { name: "RF", bit: 16 },
  { name: "VM", bit: 17 },
  { name: "AC", bit: 18 },
  { name: "VIF", bit: 19 },
  { name: "VIP", bit: 20 },
  { name: "ID", bit: 21 },
] as const satisfies readonly BitField[];

/**
 * Masks of RFLAGS's bits.
 *
 * @example
 * ```ts
 * import { RFLAGS } from "@vmtape/vmtape/engine";
 * if (RFLAGS.IF !== 0x200) throw new Error();
 * ```
 */
export const RFLAGS: Masks<typeof RFLAGS_BITS> = masks(RFLAGS_BITS);

/**
 * Bits of DR6 (APM vol. 2, 13.1.1.3). `BUS_LOCK` is active low; `ONES_LOW` and
 * `ONES_HIGH` read as ones.
 */
export const DR6_BITS = [
  { name: "B0", bit: 0 },
  { name: "B1", bit: 1 },
  { name: "B2", bit: 2 },
  { name: "B3", bit: 3 },
  { name: "ONES_LOW", bit: 4, width: 7 },
  { name: "BUS_LOCK", bit: 11 },
  { name: "BD", bit: 13 },
  { name: "BS", bit: 14 },
  { name: "BT", bit: 15 },
  { name: "ONES_HIGH", bit: 16, width: 16 },
] as const satisfies readonly BitField[];

/**
 * Masks of DR6's bits.
 *
 * @example
 * ```ts
 * import { DR6 } from "@vmtape/vmtape/engine";
 * if (DR6.BS !== 0x4000) throw new Error();
 * ```
 */
export const DR6: Masks<typeof DR6_BITS> = masks(DR6_BITS);

// Execution and length 1 are encoded as 0 and go unnamed, so that an idle breakpoint is not shown.
const RW = { 1: "WRITE", 2: "IO", 3: "READ_WRITE" } as const;
const LEN = { 1: "2", 2: "8", 3: "4" } as const;

/** Bits of DR7 (APM vol. 2, 13.1.1.4). `ONE` always reads as one. */
export const DR7_BITS = [
  { name: "L0", bit: 0 },
  { name: "G0", bit: 1 },
  { name: "L1", bit: 2 },
  { name: "G1", bit: 3 },
  { name: "L2", bit: 4 },
  { name: "G2", bit: 5 },
  { name: "L3", bit: 6 },
  { name: "G3", bit: 7 },
  { name: "LE", bit: 8 },
  { name: "GE", bit: 9 },
  { name: "ONE", bit: 10 },
  { name: "GD", bit: 13 },
  { name: "RW0", bit: 16, width: 2, values: RW },
  { name: "LEN0", bit: 18, width: 2, values: LEN },
  { name: "RW1", bit: 20, width: 2, values: RW },
  { name: "LEN1", bit: 22, width: 2, values: LEN },
  { name: "RW2", bit: 24, width: 2, values: RW },
  { name: "LEN2", bit: 26, width: 2, values: LEN },
  { name: "RW3", bit: 28, width: 2, values: RW },
  { name: "LEN3", bit: 30, width: 2, values: LEN },
] as const satisfies readonly BitField[];

/**
 * Masks of DR7's bits.
 *
 * @example
 * ```ts
 * import { DR7 } from "@vmtape/vmtape/engine";
 * if (DR7.GD !== 0x2000) throw new Error();
 * ```
 */
export const DR7: Masks<typeof DR7_BITS> = masks(DR7_BITS);

/** Bits of the DebugCtl MSR (APM vol. 2, 13.1.1.6). */
export const DBGCTL_BITS = [
  { name: "LBR", bit: 0 },
  { name: "BTF", bit: 1 },
  { name: "BUS_LOCK_DETECT", bit: 2 },
  { name: "PB0", bit: 3 },
  { name: "PB1", bit: 4 },
  { name: "PB2", bit: 5 },
  { name: "PB3", bit: 6 },
  { name: "FREEZE_LBRS_ON_PMI", bit: 11 },
  { name: "FREEZE_PERFMON_ON_PMI", bit: 12 },
] as const satisfies readonly BitField[];

/**
 * Masks of the DebugCtl MSR's bits.
 *
 * @example
 * ```ts
 * import { DBGCTL } from "@vmtape/vmtape/engine";
 * if (DBGCTL.LBR !== 1) throw new Error();
 * ```
 */
export const DBGCTL: Masks<typeof DBGCTL_BITS> = masks(DBGCTL_BITS);

/** A segment's attributes in the VMCB's packed form (APM vol. 2, 15.5.1; KVM's SVM_SELECTOR_*). */
export const SEGMENT_ATTRIB_BITS = [
  { name: "TYPE", bit: 0, width: 4 },
  { name: "S", bit: 4 },
  { name: "DPL", bit: 5, width: 2 },
  { name: "P", bit: 7 },
  { name: "AVL", bit: 8 },
  { name: "L", bit: 9 },
  { name: "DB", bit: 10 },
  { name: "G", bit: 11 },
] as const satisfies readonly BitField[];

/**
 * Masks of a segment's packed attributes.
 *
 * @example
 * ```ts
 * import { SEGMENT_ATTRIB } from "@vmtape/vmtape/engine";
 * if (SEGMENT_ATTRIB.L !== 0x200 || SEGMENT_ATTRIB.DPL !== 0x60) throw new Error();
 * ```
 */
export const SEGMENT_ATTRIB: Masks<typeof SEGMENT_ATTRIB_BITS> = masks(SEGMENT_ATTRIB_BITS);

const MEMORY_TYPES = { 0: "UC", 1: "WC", 4: "WT", 5: "WP", 6: "WB", 7: "UC-" } as const;

/** The eight memory types of the PAT MSR (APM vol. 2, 7.8.2). */
export const PAT_BITS: readonly BitField[] = Array.from({ length: 8 }, (_, i) => ({
  name: `PA${i}`,
  bit: 8 * i,
  width: 3,
  values: MEMORY_TYPES,
}));

/** Bits of the SPEC_CTRL MSR (APM vol. 2, 3.2.9). */
export const SPEC_CTRL_BITS = [
  { name: "IBRS", bit: 0 },
  { name: "STIBP", bit: 1 },
  { name: "SSBD", bit: 2 },
  { name: "PSFD", bit: 7 },
] as const satisfies readonly BitField[];

/** Bits of the S_CET MSR (APM vol. 2, 18.11). */
export const S_CET_BITS = [
  { name: "SH_STK_EN", bit: 0 },
  { name: "WR_SHSTK_EN", bit: 1 },
] as const satisfies readonly BitField[];

/** Parts of the STAR MSR (APM vol. 2, 6.1.1). */
export const STAR_BITS = [
  { name: "SYSCALL_EIP", bit: 0, width: 32 },
  { name: "SYSCALL_CS", bit: 32, width: 16 },
  { name: "SYSRET_CS", bit: 48, width: 16 },
] as const satisfies readonly BitField[];
