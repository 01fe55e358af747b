/**
 * Whether a policy is made of built-in parts alone.
 *
 * @module
 */
import { CHECK_SETS } from "../checks/sets.ts";
import type { Policy, StepEntry } from "../policy.ts";
import * as steps from "./mod.ts";

const BUILT_IN: ReadonlySet<unknown> = new Set(Object.values(steps));

/** Whether a policy is made of built-in steps and checks only: what they do depends on the vCPU alone. */
export function builtIn(policy: Policy): boolean {
  const known = (entries: readonly StepEntry[]): boolean =>
    entries.every(({ step, onFail }) =>
      BUILT_IN.has(step) && (onFail === undefined || known(onFail))
    );
  return CHECK_SETS.includes(policy.kernel.checks) && Object.values(policy.ways).every(known);
}
