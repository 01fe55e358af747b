/**
 * QEMU 7.2's software emulation of an AMD processor.
 *
 * @module
 */
import { type ProcessorModel, processorModel } from "./model.ts";
import { QEMU_QUIRKS } from "./qemu_quirks.ts";

/** The processor of most recordings: `qemu-system-x86_64 -cpu max` of version 7.2, without KVM. */
export const QEMU_7_2: ProcessorModel = processorModel(
  "qemu-7.2",
  "QEMU 7.2's software emulation",
  [
    ...QEMU_QUIRKS,
    "ignoresInterruptShadow",
    "invalidExitCode32",
    "icebpUndefined",
    "invdIsWbinvd",
    "noXsetbvIntercept",
    "gateErrorInBytes",
    "popsAnyReg",
  ],
);
