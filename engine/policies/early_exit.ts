/**
 * The policy `early-exit`.
 *
 * @module
 */
import { withFixes } from "../kernels/linux_6_12.ts";
import { kernelPolicy, type Policy } from "../policy.ts";

/**
 * KVM before the fixes: consistency checks end VMRUN early, without a #VMEXIT;
 * what fails later is a full #VMEXIT from vmcb02.
 */
export const EARLY_EXIT: Policy = {
  ...kernelPolicy(withFixes([])),
  name: "early-exit",
  doc: "KVM before the fixes: failed checks end VMRUN early and leave GIF and EVENTINJ as they are",
};
