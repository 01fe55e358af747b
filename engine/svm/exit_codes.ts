/**
 * Reasons of a #VMEXIT (APM vol. 2, appendix C), under the names of KVM's
 * uapi/asm/svm.h, with the manual's names and the texts of KVM's tracepoints.
 *
 * @module
 */
import { EXCEPTION_NAMES } from "./intercepts.ts";

/** One reason of a #VMEXIT. */
export interface ExitCode {
  /** The code; one below zero fills all 64 bits. */
  readonly code: number;
  /** KVM's SVM_EXIT_* name, or one in the same style where KVM has none. */
  readonly name: string;
  /** Name in the AMD manual; absent for codes that are software's. */
  readonly apm?: string;
  /** How KVM's tracepoints print it; absent where they print the number. */
  readonly trace?: string;
}

/** VMRUN failed: -1 in all 64 bits. */
export const VMEXIT_INVALID = 0xffff_ffff_ffff_ffffn;

const sixteen = Array.from({ length: 16 }, (_, i) => i);

/** Exits because of an instruction or an interrupt. */
const INSTRUCTIONS = [
  svm(0x060, "INTR", "interrupt"),
  svm(0x061, "NMI", "nmi"),
  svm(0x062, "SMI", "smi"),
  svm(0x063, "INIT", "init"),
  svm(0x064, "VINTR", "vintr"),
  svm(0x065, "CR0_SEL_WRITE", "cr0_sel_write"),
  svm(0x066, "IDTR_READ", "read_idtr"),
  svm(0x067, "GDTR_READ", "read_gdtr"),
  svm(0x068, "LDTR_READ", "read_ldtr"),
  svm(0x069, "TR_READ", "read_rt"),
  svm(0x06a, "IDTR_WRITE", "write_idtr"),
  svm(0x06b, "GDTR_WRITE", "write_gdtr"),
  svm(0x06c, "LDTR_WRITE", "write_ldtr"),
  svm(0x06d, "TR_WRITE", "write_rt"),
  svm(0x06e, "RDTSC", "rdtsc"),
  svm(0x06f, "RDPMC", "rdpmc"),
  svm(0x070, "PUSHF", "pushf"),
  svm(0x071, "POPF", "popf"),
  svm(0x072, "CPUID", "cpuid"),
  svm(0x073, "RSM", "rsm"),
  svm(0x074, "IRET", "iret"),
  svm(0x075, "SWINT", "swint"),
  svm(0x076, "INVD", "invd"),
  svm(0x077, "PAUSE", "pause"),
  svm(0x078, "HLT", "hlt"),
  svm(0x079, "INVLPG", "invlpg"),
  svm(0x07a, "INVLPGA", "invlpga"),
  svm(0x07b, "IOIO", "io"),
  svm(0x07c, "MSR", "msr"),
  svm(0x07d, "TASK_SWITCH", "task_switch"),
  svm(0x07e, "FERR_FREEZE", "ferr_freeze"),
  svm(0x07f, "SHUTDOWN", "shutdown"),
  svm(0x080, "VMRUN", "vmrun"),
  svm(0x081, "VMMCALL", "hypercall"),
  svm(0x082, "VMLOAD", "vmload"),
  svm(0x083, "VMSAVE", "vmsave"),
  svm(0x084, "STGI", "stgi"),
  svm(0x085, "CLGI", "clgi"),
  svm(0x086, "SKINIT", "skinit"),
  svm(0x087, "RDTSCP", "rdtscp"),
  svm(0x088, "ICEBP", "icebp"),
  svm(0x089, "WBINVD", "wbinvd"),
  svm(0x08a, "MONITOR", "monitor"),
  svm(0x08b, "MWAIT", "mwait"),
  svm(0x08c, "MWAIT_COND", undefined, "VMEXIT_MWAIT_CONDITIONAL"),
  svm(0x08d, "XSETBV", "xsetbv"),
  svm(0x08e, "RDPRU"),
  svm(0x08f, "EFER_WRITE_TRAP", "write_efer_trap"),
] as const;

/** Exits that came later, and those of nested paging and AVIC. */
const LATER = [
  svm(0x0a0, "INVLPGB"),
  svm(0x0a1, "INVLPGB_ILLEGAL"),
  svm(0x0a2, "INVPCID", "invpcid"),
  svm(0x0a3, "MCOMMIT"),
  svm(0x0a4, "TLBSYNC"),
  svm(0x0a5, "BUS_LOCK", undefined, "VMEXIT_BUSLOCK"),
  svm(0x0a6, "IDLE_HLT"),
  svm(0x400, "NPF", "npf"),
  svm(0x401, "AVIC_INCOMPLETE_IPI", "avic_incomplete_ipi", "AVIC_INCOMPLETE_IPI"),
  svm(0x402, "AVIC_UNACCELERATED_ACCESS", "avic_unaccelerated_access", "AVIC_NOACCEL"),
  svm(0x403, "VMGEXIT", "vmgexit"),
] as const;

/** All exit codes, in order; those below zero last. */
export const EXIT_CODES: readonly ExitCode[] = [
  ...accesses(0x000, "READ_CR", [0, 2, 3, 4, 8]),
  ...accesses(0x010, "WRITE_CR", [0, 2, 3, 4, 8]),
  ...accesses(0x020, "READ_DR", [0, 1, 2, 3, 4, 5, 6, 7]),
  ...accesses(0x030, "WRITE_DR", [0, 1, 2, 3, 4, 5, 6, 7]),
  ...EXCEPTION_NAMES.map(exception),
  ...INSTRUCTIONS,
  ...sixteen.map((i) =>
    svm(0x090 + i, `CR${i}_WRITE_TRAP`, [0, 4, 8].includes(i) ? `write_cr${i}_trap` : undefined)
  ),
  ...LATER,
  vmgexit(0x8000_0001, "MMIO_READ", "mmio_read"),
  vmgexit(0x8000_0002, "MMIO_WRITE", "mmio_write"),
  vmgexit(0x8000_0003, "NMI_COMPLETE", "nmi_complete"),
  vmgexit(0x8000_0004, "AP_HLT_LOOP", "ap_hlt_loop"),
  vmgexit(0x8000_0005, "AP_JUMP_TABLE", "ap_jump_table"),
  vmgexit(0x8000_0010, "PSC", "page_state_change"),
  vmgexit(0x8000_0011, "GUEST_REQUEST", "guest_request"),
  vmgexit(0x8000_0012, "EXT_GUEST_REQUEST", "ext_guest_request"),
  vmgexit(0x8000_0013, "AP_CREATION", "ap_creation"),
  vmgexit(0x8000_0018, "SNP_RUN_VMPL"),
  vmgexit(0x8000_fffd, "HV_FEATURES", "hypervisor_feature"),
  vmgexit(0x8000_fffe, "TERM_REQUEST"),
  vmgexit(0x8000_ffff, "UNSUPPORTED_EVENT"),
  { code: 0xf000_0000, name: "SVM_EXIT_SW" },
  { code: -1, name: "SVM_EXIT_ERR", apm: "VMEXIT_INVALID", trace: "invalid_guest_state" },
  svm(-2, "BUSY"),
  svm(-3, "IDLE_REQUIRED"),
  svm(-4, "INVALID_PMC"),
];

type Short<T> = T extends ExitCode & { readonly name: `SVM_EXIT_${infer N}` } ? N : never;

/**
 * Exit codes by KVM's name without SVM_EXIT_; `EXCP` is that of exception vector 0, `READ_CR0` and
 * the like that of the first register.
 *
 * @example
 * ```ts
 * import { EXITS } from "@vmtape/vmtape/engine";
 * if (EXITS.VMRUN !== 0x80 || EXITS.EXCP !== 0x40) throw new Error();
 * ```
 */
export const EXITS = {
  READ_CR0: 0x00,
  WRITE_CR0: 0x10,
  READ_DR0: 0x20,
  WRITE_DR0: 0x30,
  EXCP: 0x40,
  SW: 0xf000_0000,
  ...Object.fromEntries(
    [...INSTRUCTIONS, ...LATER].map(({ name, code }) => [name.slice("SVM_EXIT_".length), code]),
  ) as { readonly [N in Short<(typeof INSTRUCTIONS | typeof LATER)[number]>]: number },
} as const;

/**
 * Names of the values of the exit code's low half. -1 is SVM_EXIT_ERR here, as
 * in KVM, which looks at that half alone; VMEXIT_INVALID needs both.
 */
export const EXIT_CODE_VALUES: Readonly<Record<number, string>> = Object.fromEntries(
  EXIT_CODES.map((row) => [row.code >>> 0, row.name]),
);

const named = new Map<bigint, ExitCode>(
  EXIT_CODES.map((row) => [BigInt.asUintN(64, BigInt(row.code)), row]),
);
const byName = new Map<string, bigint>();
for (const [code, row] of named) {
  for (const name of [row.name, row.apm, row.trace]) {
    if (name !== undefined) byName.set(name.toLowerCase(), code);
  }
}

/**
 * The row of an exit code.
 *
 * @param code All 64 bits.
 * @returns The row, or nothing when the code has no name.
 * @example
 * ```ts
 * import { exitCode } from "@vmtape/vmtape/engine";
 * if (exitCode(0x81n)?.trace !== "hypercall") throw new Error();
 * ```
 */
export function exitCode(code: bigint): ExitCode | undefined {
  return named.get(code);
}

/**
 * The name of an exit code: KVM's, or VMEXIT_INVALID for -1, or the number in
 * hexadecimal.
 *
 * @param code All 64 bits: -1 has a name only when it fills them.
 * @returns The name.
 * @example
 * ```ts
 * import { exitCodeName, VMEXIT_INVALID } from "@vmtape/vmtape/engine";
 * if (exitCodeName(0x400n) !== "SVM_EXIT_NPF") throw new Error();
 * if (exitCodeName(VMEXIT_INVALID) !== "VMEXIT_INVALID") throw new Error();
 * if (exitCodeName(0xffff_ffffn) !== "0xffffffff") throw new Error();
 * ```
 */
export function exitCodeName(code: bigint): string {
  const row = named.get(code);
  return row ? displayName(row) : `0x${code.toString(16)}`;
}

/**
 * The exit code that a name stands for: KVM's, the manual's, or the text of a
 * tracepoint, in any case.
 *
 * @param name For instance `SVM_EXIT_NPF`, `VMEXIT_NPF` or `npf`.
 * @returns All 64 bits, or nothing when there is no such name.
 * @example
 * ```ts
 * import { exitCodeNamed } from "@vmtape/vmtape/engine";
 * if (exitCodeNamed("hypercall") !== 0x81n) throw new Error();
 * if (exitCodeNamed("VMEXIT_INVALID") !== 0xffff_ffff_ffff_ffffn) throw new Error();
 * ```
 */
export function exitCodeNamed(name: string): bigint | undefined {
  return byName.get(name.toLowerCase());
}

// Everyone calls -1 by the manual's name: KVM's own would hide that VMRUN failed.
function displayName(row: ExitCode): string {
  return row.code === -1 ? "VMEXIT_INVALID" : row.name;
}

function svm<const N extends string>(
  code: number,
  name: N,
  trace?: string,
  apm = `VMEXIT_${name}`,
): ExitCode & { readonly name: `SVM_EXIT_${N}` } {
  return { code, name: `SVM_EXIT_${name}`, apm, ...(trace === undefined ? {} : { trace }) };
}

function vmgexit(code: number, name: string, trace?: string): ExitCode {
  const printed = trace === undefined ? {} : { trace: `vmgexit_${trace}` };
  return { code, name: `SVM_VMGEXIT_${name}`, ...printed };
}

function accesses(first: number, what: string, traced: readonly number[]): ExitCode[] {
  const [access, register] = what.split("_");
  return sixteen.map((i) =>
    svm(
      first + i,
      `${what}${i}`,
      traced.includes(i) ? `${what.toLowerCase()}${i}` : undefined,
      `VMEXIT_${register}${i}_${access}`,
    )
  );
}

function exception(name: string, vector: number): ExitCode {
  const traced = /^(DE|DB|BP|OF|BR|UD|NM|DF|TS|NP|SS|GP|PF|MF|AC|MC|XM)$/.test(name);
  // KVM prints #XM under the manual's other name for it.
  const trace = traced ? `${name === "XM" ? "XF" : name} excp` : undefined;
  return svm(0x040 + vector, `EXCP_${name}`, trace, `VMEXIT_EXCP${vector}`);
}
