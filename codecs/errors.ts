/**
 * The one error that reading and writing traces throws.
 *
 * @module
 */
import { VmtapeError } from "../engine/error.ts";

/** What kind of trouble a {@linkcode TraceError} reports. */
export type TraceErrorCode =
  /** No such file. */
  | "missing"
  /** The output is there already. */
  | "exists"
  /** The input cannot be read. */
  | "input"
  /** The output cannot be written, a full disk included. */
  | "output"
  /** Nothing at all was given. */
  | "empty"
  /** Not a trace, or a block of another trace. */
  | "foreign"
  /** A format version this code does not know. */
  | "version"
  /** A required feature this code does not have. */
  | "feature"
  /** The trace stops before its end. */
  | "truncated"
  /** Bytes are not as they were written. */
  | "damaged"
  /** A declared size or count is beyond the limits of the format. */
  | "limit"
  /** An event cannot be stored: a value outside the type of its field. */
  | "event"
  /** Asked for an event or a checkpoint that the trace does not have. */
  | "range"
  /** The writer was closed, or failed before. */
  | "closed";

/** Exit statuses of the command line by code; 3, a damaged trace, for all others. */
const EXIT_STATUS: Partial<Record<TraceErrorCode, number>> = {
  missing: 2,
  exists: 2,
  input: 2,
  output: 2,
  range: 2,
  version: 4,
  feature: 4,
  event: 70,
  closed: 70,
};

/** Where a {@linkcode TraceError} found its trouble. */
export interface TraceErrorPlace {
  /** Bytes from the start of the trace. */
  readonly offset?: number | undefined;
  /** Name of the event's field. */
  readonly field?: string | undefined;
  /** The error underneath. */
  readonly cause?: unknown;
}

/**
 * A trace that cannot be read, or an event that cannot be written.
 *
 * @example
 * ```ts
 * import { readHeader, TraceError } from "@vmtape/vmtape/codecs";
 * try {
 *   readHeader(new TextEncoder().encode("not a trace, but long enough"));
 *   throw new Error("Unreachable");
 * } catch (error) {
 *   if (!(error instanceof TraceError) || error.code !== "foreign") throw error;
 * }
 * ```
 */
export class TraceError extends VmtapeError {
  /** Always `TraceError`. */
  override name = "TraceError";
  /** What kind of trouble. */
  readonly code: TraceErrorCode;
  /** Where, in bytes from the start of the trace; -1 when it has no place. */
  readonly offset: number;
  /** Name of the event's field, where it is about one. */
  readonly field: string | undefined;

  /**
   * Makes the error.
   *
   * @param code What kind of trouble.
   * @param message What, where and what to do next; upper-case, no period at the end.
   * @param place Where it is.
   */
  constructor(code: TraceErrorCode, message: string, place: TraceErrorPlace = {}) {
    super(message, place.cause === undefined ? {} : { cause: place.cause });
    this.code = code;
    this.offset = place.offset ?? -1;
    this.field = place.field;
  }

  /** Exit status that the command line gives for it. */
  get exitStatus(): number {
    return EXIT_STATUS[this.code] ?? 3;
  }
}

/**
 * The error of a damaged place.
 *
 * @param offset Bytes from the start of the trace.
 * @param what What is wrong there, upper-case, without a period.
 * @returns The error, to be thrown.
 */
export function damaged(offset: number, what: string): TraceError {
  return new TraceError(
    "damaged",
    `${what} (offset ${offset}); \`vmtape recover\` writes a file with all that is intact`,
    { offset },
  );
}

/**
 * Whether what was thrown says that bytes are not as they were written, and nothing worse: a device
 * that fails to read says nothing about them.
 *
 * @param error What was thrown.
 * @returns Whether it does.
 */
export function isDamage(error: unknown): error is TraceError {
  return error instanceof TraceError && error.code !== "input" && error.code !== "output";
}
