/**
 * Names of SVM exit codes as logs print them: KVM's own, and those of
 * libtraceevent's kvm plugin, which `trace-cmd report` and `perf script` use.
 *
 * @module
 */
import { EXIT_CODES } from "../../engine/svm/exit_codes.ts";

/** Names that some kernel or plugin prints and the table of exit codes lacks. */
const ALIASES: readonly (readonly [string, number])[] = [
  ["EXIT_EXCP_XF", 0x53],
  ["buslock", 0xa5],
  ["idle-halt", 0xa6],
];

const NAMES = new Map<number, string>();
for (const { code, trace } of EXIT_CODES) if (trace !== undefined) NAMES.set(code, trace);

/**
 * Exit code of each name in both spellings. The code is negative where all 64
 * bits are meant; the plugin looks at 32 bits, so its names have no such code.
 */
export const EXIT_REASON_CODES: ReadonlyMap<string, number> = new Map([
  ...EXIT_CODES.flatMap(({ code, name, trace }): (readonly [string, number])[] => [
    [name.replace(/^SVM_/, ""), code >>> 0],
    ...(trace === undefined ? [] : [[trace, code] as const]),
  ]),
  ...ALIASES,
]);

/**
 * The kernel's text for an SVM exit code.
 *
 * @param lo Low half of the code.
 * @param hi High half of the code.
 * @returns A name, or the number in hexadecimal where the kernel has no name.
 * @example
 * ```ts
 * import { exitReasonName } from "@vmtape/vmtape/codecs";
 * if (exitReasonName(0x81, 0) !== "hypercall") throw new Error();
 * if (exitReasonName(0xffffffff, 0) !== "0xffffffff") throw new Error();
 * ```
 */
export function exitReasonName(lo: number, hi: number): string {
  if (hi === 0) return NAMES.get(lo) ?? `0x${lo.toString(16)}`;
  const all = hi === 0xffffffff ? NAMES.get(lo | 0) : undefined;
  return all ?? `0x${hi.toString(16)}${lo.toString(16).padStart(8, "0")}`;
}
