/**
 * QEMU 7.2's software emulation of an AMD processor.
 *
 * @module
 */
import type { ProcessorModel } from "./model.ts";

/** The processor of most recordings: `qemu-system-x86_64 -cpu max` of version 7.2, without KVM. */
export const QEMU_7_2: ProcessorModel = {
  name: "qemu-7.2",
  doc: "QEMU 7.2's software emulation",
  ignoresInterruptShadow: true,
  cplFromSs: true,
  doubleFaultNotIntercepted: true,
  keepsEventBits: true,
  virqReportedAsException: true,
  virqAtEqualPriority: true,
  resumeFlagLingers: true,
  leaksHostRip: true,
  invalidExitCode32: true,
  debugBitsAsGiven: true,
  savesOnRefusal: true,
};
