/**
 * The processors that are modelled, by name.
 *
 * @module
 */
import { AMD } from "./amd.ts";
import type { ProcessorModel } from "./model.ts";
import { QEMU_7_2 } from "./qemu_7_2.ts";

export { AMD, type ProcessorModel, QEMU_7_2 };

/** The processors by name. */
export const PROCESSORS: Readonly<Record<string, ProcessorModel>> = {
  [AMD.name]: AMD,
  [QEMU_7_2.name]: QEMU_7_2,
};
