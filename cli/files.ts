/**
 * Input and output files of the commands: `-` is standard input or output, and
 * whatever the system refuses becomes one clear line.
 *
 * @module
 */
import { toText } from "@std/streams/to-text";
import { FileError, systemReason } from "./errors.ts";

/** Name that stands for standard input and output. */
export const STANDARD = "-";

/** What to call a file in a message. */
export function shown(path: string): string {
  return path === STANDARD ? "the standard stream" : path;
}

/**
 * Turns what the system threw into a {@linkcode FileError}; anything else stays
 * what it is.
 *
 * @param path The file.
 * @param doing What failed, such as `read`.
 * @param error What was thrown.
 * @returns What to throw.
 */
export function fileError(path: string, doing: string, error: unknown): unknown {
  const reason = systemReason(error);
  if (reason === undefined) return error;
  return new FileError(path, `Cannot ${doing} ${shown(path)}: ${reason}`, { cause: error });
}

/**
 * Opens a file for reading.
 *
 * @param path The file, or `-`.
 * @returns Its bytes.
 * @throws {FileError} When there is none, it is a directory, or it cannot be read.
 */
export async function openInput(path: string): Promise<ReadableStream<Uint8Array>> {
  if (path === STANDARD) return Deno.stdin.readable;
  try {
    const file = await Deno.open(path);
    if (!(await file.stat()).isDirectory) return file.readable;
    file.close();
  } catch (error) {
    throw fileError(path, "read", error);
  }
  throw new FileError(path, `Cannot read ${path}: It is a directory`);
}

/** The largest text that is read as a whole, in bytes: scenarios, parts of runs, lists. */
const MOST_TEXT = 64 << 20;

/** Lets so many bytes through, and refuses more: some files have no end. */
function bounded(path: string): TransformStream<Uint8Array, Uint8Array> {
  let size = 0;
  return new TransformStream({
    transform(chunk, controller) {
      size += chunk.length;
      if (size <= MOST_TEXT) return controller.enqueue(chunk);
      const most = `${MOST_TEXT >> 20} MiB`;
      throw new FileError(path, `Cannot read ${shown(path)}: It is a text of more than ${most}`);
    },
  });
}

/**
 * Reads a text file to its end.
 *
 * @param path The file, or `-`.
 * @returns Its text.
 * @throws {FileError} When it cannot be read, or is larger than any text that is wanted.
 */
export async function readText(path: string): Promise<string> {
  const stream = await openInput(path);
  try {
    return await toText(stream.pipeThrough(bounded(path)));
  } catch (error) {
    throw fileError(path, "read", error);
  }
}
