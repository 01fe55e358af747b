/**
 * Reasons of a #VMEXIT (APM vol. 2, appendix C), under the names of KVM's
 * uapi/asm/svm.h, with the manual's names and the texts of KVM's tracepoints.
 *
 * @module
 */
import { EXCEPTION_NAMES } from "./intercepts.ts";

/** What KVM's names of exit codes have in common. */
const COMMON = "SVM_EXIT_";

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

/** Name without the prefix, the text of KVM's tracepoint, and the manual's name where it is another. */
type Listed = readonly [code: number, name: string, trace?: string | undefined, apm?: string];

// Both are literals alone, so that the names are types which a declaration can spell.
/** Exits because of an instruction or an interrupt. */
const INSTRUCTIONS = [
  [0x060, "INTR", "interrupt"],
  [0x061, "NMI", "nmi"],
  [0x062, "SMI", "smi"],
  [0x063, "INIT", "init"],
  [0x064, "VINTR", "vintr"],
  [0x065, "CR0_SEL_WRITE", "cr0_sel_write"],
  [0x066, "IDTR_READ", "read_idtr"],
  [0x067, "GDTR_READ", "read_gdtr"],
  [0x068, "LDTR_READ", "read_ldtr"],
  [0x069, "TR_READ", "read_rt"],
  [0x06a, "IDTR_WRITE", "write_idtr"],
  [0x06b, "GDTR_WRITE", "write_gdtr"],
  [0x06c, "LDTR_WRITE", "write_ldtr"],
  [0x06d, "TR_WRITE", "write_rt"],
  [0x06e, "RDTSC", "rdtsc"],
  [0x06f, "RDPMC", "rdpmc"],
  [0x070, "PUSHF", "pushf"],
  [0x071, "POPF", "popf"],
  [0x072, "CPUID", "cpuid"],
  [0x073, "RSM", "rsm"],
  [0x074, "IRET", "iret"],
  [0x075, "SWINT", "swint"],
  [0x076, "INVD", "invd"],
  [0x077, "PAUSE", "pause"],
  [0x078, "HLT", "hlt"],
  [0x079, "INVLPG", "invlpg"],
  [0x07a, "INVLPGA", "invlpga"],
  [0x07b, "IOIO", "io"],
  [0x07c, "MSR", "msr"],
  [0x07d, "TASK_SWITCH", "task_switch"],
  [0x07e, "FERR_FREEZE", "ferr_freeze"],
  [0x07f, "SHUTDOWN", "shutdown"],
  [0x080, "VMRUN", "vmrun"],
  [0x081, "VMMCALL", "hypercall"],
  [0x082, "VMLOAD", "vmload"],
  [0x083, "VMSAVE", "vmsave"],
  [0x084, "STGI", "stgi"],
  [0x085, "CLGI", "clgi"],
  [0x086, "SKINIT", "skinit"],
  [0x087, "RDTSCP", "rdtscp"],
  [0x088, "ICEBP", "icebp"],
  [0x089, "WBINVD", "wbinvd"],
  [0x08a, "MONITOR", "monitor"],
  [0x08b, "MWAIT", "mwait"],
  [0x08c, "MWAIT_COND", undefined, "VMEXIT_MWAIT_CONDITIONAL"],
  [0x08d, "XSETBV", "xsetbv"],
  [0x08e, "RDPRU"],
  [0x08f, "EFER_WRITE_TRAP", "write_efer_trap"],
] as const satisfies readonly Listed[];

/** Exits that came later, and those of nested paging and AVIC. */
const LATER = [
  [0x0a0, "INVLPGB"],
  [0x0a1, "INVLPGB_ILLEGAL"],
  [0x0a2, "INVPCID", "invpcid"],
  [0x0a3, "MCOMMIT"],
  [0x0a4, "TLBSYNC"],
  [0x0a5, "BUS_LOCK", undefined, "VMEXIT_BUSLOCK"],
  [0x0a6, "IDLE_HLT"],
  [0x400, "NPF", "npf"],
  [0x401, "AVIC_INCOMPLETE_IPI", "avic_incomplete_ipi", "AVIC_INCOMPLETE_IPI"],
  [0x402, "AVIC_UNACCELERATED_ACCESS", "avic_unaccelerated_access", "AVIC_NOACCEL"],
  [0x403, "VMGEXIT", "vmgexit"],
] as const satisfies readonly Listed[];

/** All exit codes, in order; those below zero last. */
export const EXIT_CODES: readonly ExitCode[] = [
  ...accesses(0x000, "READ_CR", [0, 2, 3, 4, 8]),
  ...accesses(0x010, "WRITE_CR", [0, 2, 3, 4, 8]),
  ...accesses(0x020, "READ_DR", [0, 1, 2, 3, 4, 5, 6, 7]),
  ...accesses(0x030, "WRITE_DR", [0, 1, 2, 3, 4, 5, 6, 7]),
  ...EXCEPTION_NAMES.map(exception),
  ...INSTRUCTIONS.map((row) => listed(row)),
  ...sixteen.map((i) =>
    svm(0x090 + i, `CR${i}_WRITE_TRAP`, [0, 4, 8].includes(i) ? `write_cr${i}_trap` : undefined)
  ),
  ...LATER.map((row) => listed(row)),
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
    [...INSTRUCTIONS, ...LATER].map(([code, name]) => [name, code]),
  ) as { readonly [N in (typeof INSTRUCTIONS | typeof LATER)[number][1]]: number },
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
 * A name of an exit code as the kernel's tools print it: without the prefix that all have in common.
 *
 * @param name KVM's name, or another, which stays as it is.
 * @returns The rest of it.
 * @example
 * ```ts
 * import { exitCodeName, shortExitName } from "@vmtape/vmtape/engine";
 * if (shortExitName(exitCodeName(0x400n)) !== "NPF") throw new Error();
 * ```
 */
export function shortExitName(name: string): string {
  return name.startsWith(COMMON) ? name.slice(COMMON.length) : name;
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

function svm(code: number, name: string, trace?: string, apm = `VMEXIT_${name}`): ExitCode {
  return { code, name: `${COMMON}${name}`, apm, ...(trace === undefined ? {} : { trace }) };
}

function listed(row: Listed): ExitCode {
  return svm(...row);
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
