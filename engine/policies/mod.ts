/**
 * The built-in policies.
 *
 * @module
 */
import { frozen } from "../frozen.ts";
import { KERNEL_6_1, KERNEL_6_12, KERNEL_7_3, KERNELS } from "../kernels/mod.ts";
import { kernelPolicy, type Policy } from "../policy.ts";
import { ARCHITECTURAL } from "./architectural.ts";
import { EARLY_EXIT } from "./early_exit.ts";
import { UNIFIED } from "./unified.ts";

export { ARCHITECTURAL, EARLY_EXIT, UNIFIED };

/** Policies of the kernels as they are, the oldest first. */
const KERNEL_POLICIES: readonly Policy[] = KERNELS.map(kernelPolicy);

/** The built-in policies by name. */
export const POLICIES: Readonly<Record<string, Policy>> = frozen(Object.fromEntries(
  [EARLY_EXIT, UNIFIED, ...KERNEL_POLICIES, ARCHITECTURAL].map((policy) => [policy.name, policy]),
));

/** Linux 6.1 as it is. */
export const LINUX_6_1: Policy = POLICIES[KERNEL_6_1.name]!;
/** Linux 6.12 as it is. */
export const LINUX_6_12: Policy = POLICIES[KERNEL_6_12.name]!;
/** Linux 7.3 as it is. */
export const LINUX_7_3: Policy = POLICIES[KERNEL_7_3.name]!;

/** What `upstream` stands for: the policy of the newest kernel modelled. */
export const UPSTREAM: Policy = KERNEL_POLICIES.at(-1)!;

/** Other names of built-in policies, and what each stands for. */
export const ALIASES: Readonly<Record<string, Policy>> = { upstream: UPSTREAM };
