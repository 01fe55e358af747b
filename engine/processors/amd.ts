/**
 * The processor that the AMD manual describes.
 *
 * @module
 */
import type { ProcessorModel } from "./model.ts";

/**
 * What APM vol. 2, chapter 15 says: the default wherever nothing says otherwise. What QEMU does
 * not do at all stays undone: segment limits, hardware breakpoints, the I/O intercept's address
 * size and segment bits.
 */
export const AMD: ProcessorModel = {
  name: "amd",
  doc: "What the AMD manual says",
  ignoresInterruptShadow: false,
  cplFromSs: false,
  doubleFaultNotIntercepted: false,
  keepsEventBits: false,
  virqReportedAsException: false,
  virqAtEqualPriority: false,
  resumeFlagLingers: false,
  leaksHostRip: false,
  invalidExitCode32: false,
  debugBitsAsGiven: false,
  savesOnRefusal: false,
};
