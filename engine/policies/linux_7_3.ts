/**
 * The policy `linux-7.3`.
 *
 * @module
 */
import { KERNEL_7_3 } from "../kernels/linux_7_3.ts";
import { kernelPolicy, type Policy } from "../policy.ts";

/** What Linux 7.3 does: vmcb12 is cached whole and cut to L1's processor before anything is checked. */
export const LINUX_7_3: Policy = {
  ...kernelPolicy(KERNEL_7_3),
  doc:
    "Linux 7.3: vmcb12 is cached whole, cut to what L1's processor has, and checked from the cache",
};
