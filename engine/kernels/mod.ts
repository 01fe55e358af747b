/**
 * The kernels that are modelled. A new one is a file of its own and a row here: its checks, its
 * policy and its documentation follow.
 *
 * @module
 */
import { HARDWARE } from "./hardware.ts";
import type { Kernel } from "./kernel.ts";
import { KERNEL_6_1 } from "./linux_6_1.ts";
import { KERNEL_6_12 } from "./linux_6_12.ts";
import { KERNEL_7_3 } from "./linux_7_3.ts";

export { HARDWARE, KERNEL_6_1, KERNEL_6_12, KERNEL_7_3 };

/** Linux, the oldest first. */
export const KERNELS: readonly Kernel[] = [KERNEL_6_1, KERNEL_6_12, KERNEL_7_3];
