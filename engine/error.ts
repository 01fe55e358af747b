/**
 * What every error of this library is.
 *
 * @module
 */

/**
 * An error of this library's: bad input, or what cannot be done with it. The classes that extend it
 * say what is wrong in fields of their own.
 *
 * @example
 * ```ts
 * import { checkPolicy, VmtapeError } from "@vmtape/vmtape/engine";
 * try {
 *   checkPolicy({ name: "mine" });
 * } catch (error) {
 *   if (!(error instanceof VmtapeError)) throw error;
 * }
 * ```
 */
export class VmtapeError extends Error {
  /** Name of the class, for those who cannot use instanceof. */
  override readonly name: string = "VmtapeError";
}
