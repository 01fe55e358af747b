/**
 * How much of two streams is kept while they are compared.
 *
 * @module
 */
import { VmtapeError } from "../../engine/error.ts";

/** What may be kept at once, in bytes. */
const MOST_BYTES = 96 << 20;

/**
 * Streams of which too much has to be kept to compare them.
 *
 * @example
 * ```ts
 * import { CompareLimitError } from "@vmtape/vmtape/traces";
 * if (!new CompareLimitError().message.includes("in the same order")) throw new Error();
 * ```
 */
export class CompareLimitError extends VmtapeError {
  /** `CompareLimitError`. */
  override readonly name = "CompareLimitError";

  /** Says how much it may be, and what to do. */
  constructor() {
    super(
      `More than ${MOST_BYTES >> 20} MiB would have to be kept of cases that have no partner or ` +
        "differ: give both recordings in the same order, or compare them in parts",
    );
  }
}

/** Counts what is kept, in bytes. */
export class Holding {
  #bytes = 0;

  /**
   * Counts what is kept from now on.
   *
   * @param bytes About how much it takes.
   * @throws {CompareLimitError} When that is too much.
   */
  take(bytes: number): void {
    this.#bytes += bytes;
    if (this.#bytes > MOST_BYTES) throw new CompareLimitError();
  }

  /**
   * Counts what is kept no longer.
   *
   * @param bytes How much was counted for it.
   */
  give(bytes: number): void {
    this.#bytes -= bytes;
  }
}
