/**
 * What can be wrong with a tracepoint log.
 *
 * @module
 */
import { VmtapeError } from "../../engine/error.ts";

/** Kinds of failure of {@linkcode TracepointError}. */
export type TracepointErrorCode =
  /** The bytes are no tracepoint log of any known form. */
  | "not-a-trace"
  /** The input ends in the middle of something. */
  | "truncated"
  /** The header and the data disagree about the byte order. */
  | "endianness"
  /** Compressed in a way that cannot be undone here. */
  | "compression"
  /** A version or a layout that this reader does not know. */
  | "unsupported"
  /** A length, an offset or a record that cannot be. */
  | "corrupt"
  /** More would have to be held in memory than allowed. */
  | "limit";

/** Where a {@linkcode TracepointError} happened. */
export interface TracepointErrorPlace {
  /** Byte offset from the start of the input, decompressed when that is .gz. */
  readonly offset?: number;
  /** Line number, counted from 1. */
  readonly line?: number;
  /** What made it fail. */
  readonly cause?: unknown;
}

/**
 * A tracepoint log cannot be read, or not further. Everything before it was
 * already handed out.
 *
 * @example
 * ```ts
 * import { TracepointError } from "@vmtape/vmtape/codecs";
 * const error = new TracepointError("truncated", "The file ends early", { offset: 12 });
 * if (error.code !== "truncated" || error.offset !== 12) throw new Error();
 * ```
 */
export class TracepointError extends VmtapeError {
  /** Always `TracepointError`. */
  override readonly name = "TracepointError";
  /** What kind of failure it is. */
  readonly code: TracepointErrorCode;
  /** Byte offset from the start of the input, where it has one. */
  readonly offset?: number;
  /** Line number, counted from 1, where it has one. */
  readonly line?: number;

  /**
   * Makes the error; its message ends with the place.
   *
   * @param code What kind of failure it is.
   * @param message What is wrong, and what to do next.
   * @param place Where.
   */
  constructor(code: TracepointErrorCode, message: string, place: TracepointErrorPlace = {}) {
    const where = place.line !== undefined
      ? ` (line ${place.line})`
      : place.offset !== undefined
      ? ` (byte ${place.offset})`
      : "";
    super(message + where, place.cause === undefined ? undefined : { cause: place.cause });
    this.code = code;
    if (place.offset !== undefined) this.offset = place.offset;
    if (place.line !== undefined) this.line = place.line;
  }
}
