/**
 * Input that comes through a pipe and has to be read from any place.
 *
 * @module
 */
import { type FileSource, fileSource, streamSink } from "../codecs/mod.ts";
import { fileError, openInput, STANDARD } from "./files.ts";
import { openSource } from "./inputs.ts";
import { untilAborted } from "./until_aborted.ts";

/** Whether a file can only be read once, from its beginning to its end. */
async function isStream(path: string): Promise<boolean> {
  if (path === STANDARD) return true;
  const info = await Deno.stat(path).catch(() => undefined);
  return info !== undefined && !info.isFile && !info.isDirectory;
}

/** The folder of a file that is written; the system's for temporary files when it is none. */
function folderOf(output: string): string | undefined {
  if (output === STANDARD || output.startsWith("/dev/")) return undefined;
  return /^(.*\/)[^/]*$/.exec(output)?.[1] ?? ".";
}

/**
 * Opens a file that a command has to go back and forth in, also one that can only be read once: what
 * comes out of a pipe is first written to a file without a name beside the output.
 *
 * @param path The file, or `-`.
 * @param output What is written in the end.
 * @param signal Ends it, and leaves nothing behind.
 * @returns Its bytes.
 * @throws {FileError} When it cannot be read, or not be kept.
 */
export async function openSpooled(
  path: string,
  output: string,
  signal: AbortSignal,
): Promise<FileSource> {
  if (!await isStream(path)) return await openSource(path);
  const stream = await openInput(path);
  const dir = folderOf(output);
  try {
    const name = await Deno.makeTempFile({ prefix: ".vmtape-", ...(dir && { dir }) });
    try {
      using file = await Deno.open(name, { write: true });
      const sink = streamSink(file);
      for await (const chunk of untilAborted(stream, signal)) sink.write(chunk);
      return fileSource(name);
    } finally {
      await Deno.remove(name);
    }
  } catch (error) {
    throw fileError(path, "keep a copy of", error);
  }
}
