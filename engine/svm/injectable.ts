/**
 * Which exceptions can be injected (APM vol. 2, 15.20).
 *
 * @module
 */

/** Vectors of exceptions that there are, as bits: 0, 1, 3 to 8, 10 to 14, 16 to 19, #HV, #SX. */
const EXCEPTIONS = 0x500f_7dfb;
/** #CP, which only processors with shadow stacks have. */
const CONTROL_PROTECTION = 21;
/** #OF and #BR, which no instruction of 64-bit mode raises. */
const NOT_IN_64_BIT_MODE = 0x30;

/**
 * Whether a vector is one of an exception that the mode has.
 *
 * @param vector The vector.
 * @param in64Bit Whether the guest is in 64-bit mode.
 * @param shadowStacks Whether the processor has shadow stacks.
 * @returns Whether it can be injected as an exception.
 * @example
 * ```ts
 * import { injectable } from "@vmtape/vmtape/engine";
 * if (injectable(5, true, false) || !injectable(5, false, false)) throw new Error();
 * ```
 */
export function injectable(vector: number, in64Bit: boolean, shadowStacks: boolean): boolean {
  if (vector > 31) return false;
  if (vector === CONTROL_PROTECTION) return shadowStacks;
  const bits = in64Bit ? EXCEPTIONS & ~NOT_IN_64_BIT_MODE : EXCEPTIONS;
  return (bits >>> vector & 1) !== 0;
}
