/**
 * The six intercept words of the control area, under KVM's INTERCEPT_* and
 * TRAP_* names without the prefix INTERCEPT_; where KVM names none, in the
 * same style.
 *
 * @module
 */
import type { BitField } from "../layout.ts";

/** Mnemonics of the exception vectors 0 to 31; vectors without one are `VECTOR_n`. */
export const EXCEPTION_NAMES: readonly string[] = [
  "DE DB NMI BP OF BR UD NM DF OLD_MF TS NP SS GP PF SPURIOUS MF AC MC XM VE CP",
  "VECTOR_22 VECTOR_23 VECTOR_24 VECTOR_25 VECTOR_26 VECTOR_27 HV VC SX VECTOR_31",
].join(" ").split(" ");

/** Word 0 (byte 0x000): reads and writes of the control registers. */
export const INTERCEPT_CR_BITS: readonly BitField[] = accesses("CR");

/** Word 1 (byte 0x004): reads and writes of the debug registers. */
export const INTERCEPT_DR_BITS: readonly BitField[] = accesses("DR");

/** Word 2 (byte 0x008): exception vectors. */
export const INTERCEPT_EXCEPTION_BITS: readonly BitField[] = bitsFrom(0, EXCEPTION_NAMES);

/** Word 3 (byte 0x00c). */
export const INTERCEPT_WORD3_BITS: readonly BitField[] = bitsFrom(0, [
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
]);

/** Word 4 (byte 0x010). The TRAP_* bits take effect after the instruction. */
export const INTERCEPT_WORD4_BITS: readonly BitField[] = bitsFrom(0, [
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
  ...Array.from({ length: 16 }, (_, i) => `TRAP_CR${i}_WRITE`),
]);

/** Word 5 (byte 0x014). */
export const INTERCEPT_WORD5_BITS: readonly BitField[] = bitsFrom(0, [
  "INVLPGB",
  "INVLPGB_ILLEGAL",
  "INVPCID",
  "MCOMMIT",
  "TLBSYNC",
  "BUS_LOCK",
  "IDLE_HLT",
]);

function bitsFrom(first: number, names: readonly string[]): BitField[] {
  return names.map((name, i) => ({ name, bit: first + i }));
}

function accesses(register: string): BitField[] {
  const sixteen = Array.from({ length: 16 }, (_, i) => `${register}${i}`);
  return [
    ...bitsFrom(0, sixteen.map((r) => `${r}_READ`)),
    ...bitsFrom(16, sixteen.map((r) => `${r}_WRITE`)),
  ];
}
