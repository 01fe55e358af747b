/**
 * The built-in policies.
 *
 * @module
 */
import type { Policy } from "../policy.ts";
import { ARCHITECTURAL } from "./architectural.ts";
import { EARLY_EXIT } from "./early_exit.ts";
import { LINUX_6_1 } from "./linux_6_1.ts";
import { LINUX_6_12 } from "./linux_6_12.ts";
import { LINUX_7_3 } from "./linux_7_3.ts";
import { UNIFIED } from "./unified.ts";

export { ARCHITECTURAL, EARLY_EXIT, LINUX_6_1, LINUX_6_12, LINUX_7_3, UNIFIED };

/** The built-in policies by name. */
export const POLICIES: Readonly<Record<string, Policy>> = {
  [EARLY_EXIT.name]: EARLY_EXIT,
  [UNIFIED.name]: UNIFIED,
  [LINUX_6_1.name]: LINUX_6_1,
  [LINUX_6_12.name]: LINUX_6_12,
  [LINUX_7_3.name]: LINUX_7_3,
  [ARCHITECTURAL.name]: ARCHITECTURAL,
};

/** What `upstream` stands for: the policy of the newest kernel modelled. */
export const UPSTREAM: Policy = LINUX_6_12;

/** Other names of built-in policies, and what each stands for. */
export const ALIASES: Readonly<Record<string, Policy>> = { upstream: UPSTREAM };
