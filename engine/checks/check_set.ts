/**
 * A set of consistency checks, and who makes it.
 *
 * @module
 */
import type { Check, CheckGroup } from "./check.ts";

/** Consistency checks of VMRUN; the order of the rows is the order of evaluation. */
export interface CheckSet {
  /** Name, shown in documentation and answers. */
  readonly name: string;
  /** Who makes the checks: KVM, or hardware as the AMD manual describes it. */
  readonly maker: "kvm" | "apm";
  /** The checks; evaluation stops at the first that fails. */
  readonly checks: readonly Check[];
}

const grouped: WeakMap<CheckSet, Readonly<Record<CheckGroup, readonly Check[]>>> = new WeakMap();

/**
 * The checks of one group of a set.
 *
 * @param set The set.
 * @param group Which.
 * @returns The checks, in order.
 * @example
 * ```ts
 * import { CHECKS_6_12, checksOf } from "@vmtape/vmtape/engine";
 * if (checksOf(CHECKS_6_12, "control")[0]?.id !== "vmrun-intercept") throw new Error();
 * ```
 */
export function checksOf(set: CheckSet, group: CheckGroup): readonly Check[] {
  let groups = grouped.get(set);
  if (groups === undefined) {
    const of = (name: CheckGroup) => set.checks.filter((row) => row.group === name);
    grouped.set(set, groups = { save: of("save"), control: of("control"), cr3: of("cr3") });
  }
  return groups[group];
}
