/**
 * What a replay cannot carry out.
 *
 * @module
 */
import { VmtapeError } from "../error.ts";

/**
 * An input that the engine cannot carry out, with the place and what to do.
 *
 * @example
 * ```ts
 * import { Driver, ReplayError, UPSTREAM } from "@vmtape/vmtape/engine";
 * const meta = { capabilities: { physical_bits: 99 } };
 * let caught: unknown;
 * try {
 *   new Driver(UPSTREAM).feed({ kind: "session", vcpu: 0, meta }, 7);
 * } catch (error) {
 *   caught = error;
 * }
 * if (!(caught instanceof ReplayError) || caught.event !== 7) throw new Error();
 * ```
 */
export class ReplayError extends VmtapeError {
  /** Name of the class, for those who cannot use instanceof. */
  override readonly name = "ReplayError";
  /** Number of the event in the trace, from 0. */
  readonly event: number;

  /**
   * Names the event.
   *
   * @param message What is wrong and what to do.
   * @param event Number of the event in the trace.
   */
  constructor(message: string, event: number) {
    super(message);
    this.event = event;
  }
}

/** Outcomes that follow each other at most: recorded runs have a few dozen. */
export const MOST_OUTCOMES = 1024;

/** The error of outcomes that are more than a run has. */
export function tooManyOutcomes(index: number): ReplayError {
  return new ReplayError(
    `More than ${MOST_OUTCOMES} outcomes follow each other, which no run has`,
    index,
  );
}
