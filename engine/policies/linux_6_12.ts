/**
 * The policy `linux-6.12`.
 *
 * @module
 */
import { KERNEL_6_12 } from "../kernels/linux_6_12.ts";
import { kernelPolicy, type Policy } from "../policy.ts";

/** What Linux 6.12 ships: the early exit is kept, and clears GIF and EVENTINJ; RSM checks vmcb12. */
export const LINUX_6_12: Policy = {
  ...kernelPolicy(KERNEL_6_12),
  doc: "Linux 6.12: the early exit also clears GIF and EVENTINJ, and RSM checks vmcb12",
};
