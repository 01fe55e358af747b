/**
 * The error of a failed assertion.
 *
 * @module
 */
/** Error thrown when an assertion does not hold. */
export class AssertionError extends Error {
  /**
   * @param message What did not hold.
   * @param options Cause of the error.
   */
  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = "AssertionError";
  }
}

/**
 * Ends a message the way the published package does: `: text` when the caller
 * gave one, a full stop otherwise.
 */
export function suffix(msg: string | undefined): string {
  return msg ? `: ${msg}` : ".";
}
