/**
 * What the two words of information on a #VMEXIT mean, by exit code (APM vol.
 * 2, 15.7 to 15.12, 15.25.6, 15.29.9).
 *
 * @module
 */
import type { BitField, Field } from "../layout.ts";
import { formatValue } from "../image/format.ts";
import { exitCodeName } from "./exit_codes.ts";

/** What `exit_info_1` or `exit_info_2` means for some exit codes. */
export interface ExitInfo {
  /** First exit code it holds for. */
  readonly first: number;
  /** Last exit code it holds for. */
  readonly last: number;
  /** Which word: 1 or 2. */
  readonly word: 1 | 2;
  /** Named bits, lowest first; absent when the word is one value. */
  readonly bits?: readonly BitField[];
  /** Names of the values of an enumeration. */
  readonly values?: Readonly<Record<number, string>>;
  /** What it is, in one line. */
  readonly doc: string;
}

/** Bits of a page fault's error code. */
export const PAGE_FAULT_BITS = [
  { name: "P", bit: 0 },
  { name: "W", bit: 1 },
  { name: "US", bit: 2 },
  { name: "RSVD", bit: 3 },
  { name: "FETCH", bit: 4 },
  { name: "PK", bit: 5 },
  { name: "SS", bit: 6 },
  { name: "RMP", bit: 31 },
] as const satisfies readonly BitField[];

/** Bits of a nested page fault's error code (KVM's PFERR_*). */
export const NESTED_PAGE_FAULT_BITS = [
  ...PAGE_FAULT_BITS,
  { name: "GUEST_FINAL", bit: 32 },
  { name: "GUEST_PAGE", bit: 33 },
  { name: "GUEST_ENC", bit: 34 },
  { name: "GUEST_SIZEM", bit: 35 },
  { name: "GUEST_VMPL", bit: 36 },
  { name: "SSS", bit: 37 },
] as const satisfies readonly BitField[];

/** Bits of the word that describes a port access (KVM's SVM_IOIO_*). */
export const IOIO_BITS = [
  { name: "IN", bit: 0 },
  { name: "STR", bit: 2 },
  { name: "REP", bit: 3 },
  { name: "SZ8", bit: 4 },
  { name: "SZ16", bit: 5 },
  { name: "SZ32", bit: 6 },
  { name: "A16", bit: 7 },
  { name: "A32", bit: 8 },
  { name: "A64", bit: 9 },
  { name: "SEG", bit: 10, width: 3 },
  { name: "port", bit: 16, width: 16 },
] as const satisfies readonly BitField[];

const CR_BITS = [
  { name: "GPR", bit: 0, width: 4 },
  { name: "MOV_CR", bit: 63 },
] as const satisfies readonly BitField[];
const DR_BITS = [{ name: "GPR", bit: 0, width: 4 }] as const satisfies readonly BitField[];
const TASK_SWITCH_BITS = [
  { name: "error", bit: 0, width: 32 },
  { name: "IRET", bit: 36 },
  { name: "JMP", bit: 38 },
  { name: "HAS_ERROR_CODE", bit: 44 },
  { name: "RF", bit: 48 },
] as const satisfies readonly BitField[];
const IPI_BITS = [
  { name: "index", bit: 0, width: 12 },
  {
    name: "cause",
    bit: 32,
    width: 32,
    values: {
      0: "INVALID_INT_TYPE",
      1: "TARGET_NOT_RUNNING",
      2: "INVALID_TARGET",
      3: "INVALID_BACKING_PAGE",
      4: "INVALID_IPI_VECTOR",
    },
  },
] as const satisfies readonly BitField[];
const NOACCEL_BITS = [
  { name: "offset", bit: 4, width: 8 },
  { name: "WRITE", bit: 32 },
] as const satisfies readonly BitField[];

/** All known meanings, in order of the exit code. Words without a row mean nothing. */
export const EXIT_INFO: readonly ExitInfo[] = [
  row(0x000, 1, "How the control register was accessed", { last: 0x01f, bits: CR_BITS }),
  row(0x020, 1, "Which register was moved", { last: 0x03f, bits: DR_BITS }),
  row(0x048, 1, "Error code", {}),
  row(0x04a, 1, "Error code", { last: 0x04d }),
  row(0x04e, 1, "Error code of the page fault", { bits: PAGE_FAULT_BITS }),
  row(0x04e, 2, "Faulting linear address", {}),
  row(0x051, 1, "Error code", {}),
  row(0x055, 1, "Error code", {}),
  row(0x075, 1, "Vector of the software interrupt", {}),
  row(0x079, 1, "Linear address", {}),
  row(0x07b, 1, "The port access", { bits: IOIO_BITS }),
  row(0x07b, 2, "Address of the instruction after it", {}),
  row(0x07c, 1, "Direction", { values: { 0: "RDMSR", 1: "WRMSR" } }),
  row(0x07d, 1, "Selector of the target's task state segment", {}),
  row(0x07d, 2, "Cause and error code", { bits: TASK_SWITCH_BITS }),
  row(0x08b, 1, "Monitor", { last: 0x08c, values: { 0: "NOT_ARMED", 1: "ARMED" } }),
  row(0x08f, 1, "Value written", { last: 0x09f }),
  row(0x400, 1, "Error code of the nested page fault", { bits: NESTED_PAGE_FAULT_BITS }),
  row(0x400, 2, "Guest physical address", {}),
  row(0x401, 1, "Interrupt command register", {}),
  row(0x401, 2, "Why the IPI was not delivered", { bits: IPI_BITS }),
  row(0x402, 1, "The register access", { bits: NOACCEL_BITS }),
  row(0x402, 2, "Vector, for a write of EOI", {}),
];

/**
 * What a word of information means for an exit code.
 *
 * @param code All 64 bits of the exit code.
 * @param word Which word: 1 or 2.
 * @returns Its row, or nothing when it means nothing.
 * @example
 * ```ts
 * import { exitInfo } from "@vmtape/vmtape/engine";
 * if (exitInfo(0x400n, 2)?.doc !== "Guest physical address") throw new Error();
 * ```
 */
export function exitInfo(code: bigint, word: 1 | 2): ExitInfo | undefined {
  return EXIT_INFO.find((row) =>
    row.word === word && BigInt(row.first) <= code && code <= BigInt(row.last)
  );
}

/**
 * A #VMEXIT in one line: the name of its exit code, and the words of
 * information that mean something for it or are not 0.
 *
 * @param code All 64 bits of the exit code.
 * @param info1 `exit_info_1`.
 * @param info2 `exit_info_2`.
 * @returns The text.
 * @example
 * ```ts
 * import { describeExit } from "@vmtape/vmtape/engine";
 * const text = describeExit(0x400n, 0x1_0000_0014n, 0x9000n);
 * if (text !== "SVM_EXIT_NPF info1 0x100000014 [GUEST_FINAL FETCH US] info2 0x9000") {
 *   throw new Error(text);
 * }
 * if (describeExit(0x81n, 0n, 0n) !== "SVM_EXIT_VMMCALL") throw new Error();
 * ```
 */
export function describeExit(code: bigint, info1: bigint, info2: bigint): string {
  return exitCodeName(code) + describeExitInfo(code, info1, info2);
}

/**
 * The words of information of a #VMEXIT that mean something for its exit code or are not 0.
 *
 * @param code All 64 bits of the exit code.
 * @param info1 `exit_info_1`.
 * @param info2 `exit_info_2`.
 * @returns The text, each word with a blank before it.
 * @example
 * ```ts
 * import { describeExitInfo } from "@vmtape/vmtape/engine";
 * if (describeExitInfo(0x81n, 0n, 5n) !== " info2 0x5") throw new Error();
 * ```
 */
export function describeExitInfo(code: bigint, info1: bigint, info2: bigint): string {
  let text = "";
  for (const [word, value] of [[1, info1], [2, info2]] as const) {
    const info = exitInfo(code, word);
    if (info === undefined && value === 0n) continue;
    const field: Field = { name: `info${word}`, offset: 0, size: 8, doc: "", ...info };
    text += ` info${word} ${formatValue(field, { value, known: 0xffff_ffff_ffff_ffffn })}`;
  }
  return text;
}

function row(
  first: number,
  word: 1 | 2,
  doc: string,
  { last = first, ...more }: Partial<Pick<ExitInfo, "last" | "bits" | "values">>,
): ExitInfo {
  return { first, last, word, ...more, doc };
}
