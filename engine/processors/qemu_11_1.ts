/**
 * QEMU 11.1's software emulation of an AMD processor.
 *
 * @module
 */
import { type ProcessorModel, processorModel } from "./model.ts";
import { QEMU_QUIRKS } from "./qemu_quirks.ts";

/** `qemu-system-x86_64 -cpu max` of version 11.1, without KVM. */
export const QEMU_11_1: ProcessorModel = processorModel(
  "qemu-11.1",
  "QEMU 11.1's software emulation",
  [...QEMU_QUIRKS, "xsetbvExitsFirst", "cr3ReadNeedsWrite"],
);
