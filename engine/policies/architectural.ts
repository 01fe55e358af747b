/**
 * The policy `architectural`.
 *
 * @module
 */
import { HARDWARE } from "../kernels/hardware.ts";
import type { Policy } from "../policy.ts";
import { AMD } from "../processors/amd.ts";

/** What the AMD manual says that hardware does, on the processor that it describes. */
export const ARCHITECTURAL: Policy = {
  name: "architectural",
  doc: HARDWARE.doc,
  kernel: HARDWARE,
  processor: AMD,
  ways: HARDWARE.ways,
};
