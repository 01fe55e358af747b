/**
 * Doing things with files, with failures told as errors of a trace.
 *
 * @module
 */
import { TraceError } from "../errors.ts";

/** Writes all of some bytes. */
export function writeAll(out: { writeSync(bytes: Uint8Array): number }, chunk: Uint8Array): void {
  let rest = chunk;
  while (rest.length > 0) rest = rest.subarray(out.writeSync(rest));
}

/**
 * Does something with a file, and tells its failure as a {@linkcode TraceError}.
 *
 * @param code Code of the error.
 * @param what What cannot be done, as the error's text begins.
 * @param act What to do.
 * @returns What it gives.
 */
export function guard<T>(code: "input" | "output", what: string, act: () => T): T {
  try {
    return act();
  } catch (cause) {
    throw wrap(code, what, cause);
  }
}

/** The same of something that takes time. */
export async function guardAsync<T>(
  code: "input" | "output",
  what: string,
  act: () => Promise<T>,
): Promise<T> {
  try {
    return await act();
  } catch (cause) {
    throw wrap(code, what, cause);
  }
}

function wrap(code: "input" | "output", what: string, cause: unknown): TraceError {
  if (cause instanceof TraceError) return cause;
  return new TraceError(code, `${what}: ${(cause as Error).message}`, { cause });
}
