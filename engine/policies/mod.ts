/**
 * The built-in policies.
 *
 * @module
 */
import type { Policy } from "../policy.ts";
import { HARDWARE } from "./architectural.ts";
import { EARLY_EXIT } from "./early_exit.ts";
import { UNIFIED } from "./unified.ts";
import { UPSTREAM } from "./upstream.ts";

export { EARLY_EXIT, HARDWARE, UNIFIED, UPSTREAM };

/** The built-in policies by name. */
export const POLICIES: Readonly<Record<string, Policy>> = {
  [EARLY_EXIT.name]: EARLY_EXIT,
  [UNIFIED.name]: UNIFIED,
  [UPSTREAM.name]: UPSTREAM,
  [HARDWARE.name]: HARDWARE,
};
