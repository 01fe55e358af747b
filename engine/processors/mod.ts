/**
 * The processors that are modelled, by name.
 *
 * @module
 */
import { AMD } from "./amd.ts";
import { type ProcessorModel, processorModel } from "./model.ts";
import { QEMU_11_1 } from "./qemu_11_1.ts";
import { QEMU_7_2 } from "./qemu_7_2.ts";

export { AMD, type ProcessorModel, processorModel, QEMU_11_1, QEMU_7_2 };
export { type Quirk, type QuirkId, QUIRKS } from "./quirks.ts";

/** The processors by name. */
export const PROCESSORS: Readonly<Record<string, ProcessorModel>> = Object.fromEntries(
  [AMD, QEMU_7_2, QEMU_11_1].map((model) => [model.name, model]),
);
