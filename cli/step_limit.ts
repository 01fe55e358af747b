/**
 * How long a part of a user's policy may take.
 *
 * @module
 */
import type { Option } from "./command.ts";

/** Seconds after which a step of a user's policy that has not ended is ended. */
export const STEP_SECONDS = 20;

/** The option that sets another limit. */
export const STEP_LIMIT = {
  name: "step-limit",
  kind: "number",
  value: "SECONDS",
  doc: `How long a step of a module may take before the run is ended (${STEP_SECONDS})`,
} as const satisfies Option;
