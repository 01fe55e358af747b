/**
 * Options that name policies, and the policies that they name.
 *
 * @module
 */
import { UPSTREAM } from "../engine/policies/mod.ts";
import type { Policy } from "../engine/policy.ts";
import type { Option } from "./command.ts";
import { UsageError } from "./errors.ts";
import { PROCESSORS } from "../engine/processors/mod.ts";
import { loadPolicies, loadPolicy, OWN_POLICY, POLICY_NAMES } from "./policy_input.ts";

/** The policy that is meant when none is named: the newest kernel modelled. */
export const DEFAULT_POLICY: string = UPSTREAM.name;

/** The option that names a policy. */
export const POLICY = {
  name: "policy",
  short: "p",
  kind: "text",
  value: "POLICY",
  choices: POLICY_NAMES,
  open: true,
  doc: `How failures are handled (${DEFAULT_POLICY}): ${OWN_POLICY}`,
} as const satisfies Option;

/** The option that chooses the processor beneath, for what reads a recording. */
export const PROCESSOR = {
  name: "processor",
  kind: "text",
  value: "NAME",
  choices: Object.keys(PROCESSORS),
  doc: "The processor beneath, for policies that bring none (the recording's, else amd)",
} as const satisfies Option;

/** The option that chooses the hypervisor's own paging. */
export const MMU = {
  name: "npt",
  kind: "text",
  value: "MODE",
  choices: ["on", "off"],
  doc: "Whether the hypervisor uses nested paging itself, or shadow paging (on)",
} as const satisfies Option;

/** The policy that options name. */
export async function policyOf(
  options: { readonly policy: string | undefined; readonly processor?: string | undefined },
): Promise<Policy> {
  return await loadPolicy(options.policy ?? DEFAULT_POLICY, options.processor);
}

/** The option that picks a run. */
export const EVENT = {
  name: "event",
  short: "e",
  kind: "number",
  value: "N",
  required: true,
  doc: "Number of an event of the VMRUN, as dump and diff print it",
} as const satisfies Option;

/** The option that names several policies. */
export const POLICIES_OPTION = {
  name: "policies",
  short: "p",
  kind: "list",
  value: "A,B…",
  choices: POLICY_NAMES,
  open: true,
  doc: `Policies, separated by commas: each ${OWN_POLICY}`,
} as const satisfies Option;

/**
 * The policies that an option names.
 *
 * @param names Their names.
 * @param fewest How many there have to be.
 * @param processor The processor for policies that bring none, if one is chosen.
 * @returns The policies.
 * @throws {UsageError} When there are too few, or one is named twice.
 */
export async function policiesOf(
  names: readonly string[],
  fewest: number,
  processor?: string,
): Promise<Policy[]> {
  if (names.length < fewest) {
    throw new UsageError(`Option --policies needs ${fewest} names, such as early-exit,unified`);
  }
  return await loadPolicies(names, processor);
}
