/**
 * Where the emulated processor of QEMU 7.2 and the AMD manual part.
 *
 * @module
 */

/**
 * Deviations from the architecture, one switch each; all on is the processor
 * that the recordings were made on ({@linkcode QEMU}).
 */
export interface Quirks {
  /** VMRUN ignores the interrupt shadow in the VMCB (int_state). */
  readonly ignoresInterruptShadow: boolean;
  /** CPL comes from SS.DPL at VMRUN, never from the VMCB's CPL field. */
  readonly cplFromSs: boolean;
  /** Intercepts are checked for the exception that was raised, not for the double fault it becomes. */
  readonly doubleFaultNotIntercepted: boolean;
  /** EXITINTINFO repeats EVENTINJ after delivery too, with the valid bit clear. */
  readonly keepsEventBits: boolean;
  /** A virtual interrupt whose delivery faults is reported as an exception in EXITINTINFO. */
  readonly virqReportedAsException: boolean;
  /** A virtual interrupt is taken when its priority equals the task priority. */
  readonly virqAtEqualPriority: boolean;
  /** RF stays set until the translated block ends (a jump, a page boundary, a state change). */
  readonly resumeFlagLingers: boolean;
  /** A VMRUN that is refused after the guest state was loaded leaves the host's RIP bits 11:0 in the saved RIP. */
  readonly leaksHostRip: boolean;
  /** Those bits: the address of the kernel's VMRUN within its page. */
  readonly hostRipLow: number;
  /** The exit code has 64 bits, of which a refusal sets only the low 32. */
  readonly invalidExitCode32: boolean;
}

/**
 * The processor of the recordings: QEMU 7.2's software emulation.
 *
 * @example
 * ```ts
 * import { QEMU, type Quirks } from "@vmtape/vmtape/engine";
 * // The same processor under a kernel whose VMRUN lies elsewhere.
 * const other: Quirks = { ...QEMU, hostRipLow: 0x4ac };
 * if (!other.leaksHostRip) throw new Error();
 * ```
 */
export const QEMU: Quirks = {
  ignoresInterruptShadow: true,
  cplFromSs: true,
  doubleFaultNotIntercepted: true,
  keepsEventBits: true,
  virqReportedAsException: true,
  virqAtEqualPriority: true,
  resumeFlagLingers: true,
  leaksHostRip: true,
  hostRipLow: 0x42c,
  invalidExitCode32: true,
};

/**
 * Without those deviations (APM vol. 2, chapter 15). What QEMU does not do at
 * all stays undone: segment limits, hardware breakpoints, the I/O intercept's
 * address size and segment bits.
 */
export const ARCHITECTURAL: Quirks = {
  ignoresInterruptShadow: false,
  cplFromSs: false,
  doubleFaultNotIntercepted: false,
  keepsEventBits: false,
  virqReportedAsException: false,
  virqAtEqualPriority: false,
  resumeFlagLingers: false,
  leaksHostRip: false,
  hostRipLow: 0,
  invalidExitCode32: false,
};
