/**
 * The check sets there are, and looking a check up in them.
 *
 * @module
 */
import { HARDWARE, KERNELS } from "../kernels/mod.ts";
import type { Check, CheckGroup } from "./check.ts";
import type { CheckSet } from "./check_set.ts";

export type { Check, CheckGroup } from "./check.ts";
export { type CheckSet, checksOf } from "./check_set.ts";

/** The check sets, the newest kernel's first and the manual's last. */
export const CHECK_SETS: readonly CheckSet[] = [
  ...new Set([...KERNELS.toReversed(), HARDWARE].map(({ checks }) => checks)),
];

const byText = new Map<string, Check>();
const byId = new Map<string, Check>();
for (const { checks } of CHECK_SETS) {
  for (const row of checks) {
    if (!byId.has(row.id)) byId.set(row.id, row);
    for (const text of row.texts) if (!byText.has(text)) byText.set(text, row);
  }
}

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
  return byText.get(text);
}

/**
 * The check of an id.
 *
 * @param id Its stable id.
 * @returns The check, or undefined when no set has it.
 * @example
 * ```ts
 * import { checkById } from "@vmtape/vmtape/engine";
 * if (checkById("asid-zero")?.group !== "control") throw new Error();
 * ```
 */
export function checkById(id: string): Check | undefined {
  return byId.get(id);
}

/** Where a check belongs, by its id; `cr3` for one that no set has, which is made where CR3 is loaded. */
export function checkGroupOf(id: string): CheckGroup {
  return byId.get(id)?.group ?? "cr3";
}
