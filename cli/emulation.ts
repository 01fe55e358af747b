import type { Policy } from "../engine/policy.ts";
import type { Option } from "./command.ts";
import { loadPolicy, OWN_POLICY, POLICY_NAMES } from "./policy_input.ts";

/** The policy that is meant when none is named: what stable kernels do now. */
export const DEFAULT_POLICY = "upstream";

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

/** The option that chooses the hypervisor's own paging. */
export const MMU = {
  name: "npt",
  kind: "text",
  value: "MODE",
  choices: ["on", "off"],
  doc: "Whether the hypervisor uses nested paging itself, or shadow paging (on)",
} as const satisfies Option;

/** The policy that options name. */
export async function policyOf(options: { readonly policy: string | undefined }): Promise<Policy> {
  return await loadPolicy(options.policy ?? DEFAULT_POLICY);
}
