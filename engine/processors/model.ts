/**
 * What the machine beneath the hypervisor does where processors and emulators part.
 *
 * @module
 */

/**
 * A processor: its name, and one switch for each deviation from the AMD manual. All off is the
 * manual's own.
 *
 * @example
 * ```ts
 * import { AMD, type ProcessorModel } from "@vmtape/vmtape/engine";
 * const sloppy: ProcessorModel = { ...AMD, name: "sloppy", cplFromSs: true };
 * if (AMD.cplFromSs || !sloppy.cplFromSs) throw new Error();
 * ```
 */
export interface ProcessorModel {
  /** Name on the command line and in a session. */
  readonly name: string;
  /** What it is, in one line. */
  readonly doc: string;
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
  /** The exit code has 64 bits, of which a refusal sets only the low 32. */
  readonly invalidExitCode32: boolean;
  /** The bits of DR6 that are always 1 are taken from the VMCB, and written back as they were. */
  readonly debugBitsAsGiven: boolean;
  /** A refused VMRUN saves the running state, which is the host's, and copies EVENTINJ to EXITINTINFO. */
  readonly savesOnRefusal: boolean;
}
