/**
 * The policy `linux-6.1`.
 *
 * @module
 */
import { KERNEL_6_1 } from "../kernels/linux_6_1.ts";
import { kernelPolicy, type Policy } from "../policy.ts";

/** What Linux 6.1 ships: the early exit clears GIF and leaves EVENTINJ; RSM checks nothing. */
export const LINUX_6_1: Policy = {
  ...kernelPolicy(KERNEL_6_1),
  doc:
    "Linux 6.1: the early exit clears GIF, EVENTINJ is written back, and RSM does not check vmcb12",
};
