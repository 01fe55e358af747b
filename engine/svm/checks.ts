/**
 * The consistency checks of VMRUN, as tables: the order of the rows is the
 * order of evaluation, and evaluation stops at the first failure.
 *
 * @module
 */
import type { Check } from "./check.ts";
import { APM } from "./checks_apm.ts";
import { LINUX_6_12 } from "./checks_linux.ts";

export type { Check, CheckGroup } from "./check.ts";
export { APM, LINUX_6_12 };

/** Check sets by name. */
export const CHECK_SETS: Readonly<Record<string, readonly Check[]>> = {
  "linux-6.12": LINUX_6_12,
  apm: APM,
};

/**
 * The check that a kernel's text stands for.
 *
 * @param text The text, as a tracepoint prints it.
 * @returns The check, or undefined when no set knows the text.
 * @example
 * ```ts
 * import { checkByText } from "@vmtape/vmtape/engine";
 * if (checkByText("control->asid == 0")?.id !== "asid-zero") throw new Error();
 * ```
 */
export function checkByText(text: string): Check | undefined {
  for (const set of Object.values(CHECK_SETS)) {
    for (const row of set) if (row.texts.includes(text)) return row;
  }
  return undefined;
}
