import { FileError } from "./errors.ts";
import { fileError, STANDARD } from "./files.ts";
import type { Context } from "./context.ts";

/**
 * Writes a file as a whole: under another name first, so that what is there
 * under its own name is always complete.
 *
 * @param context Where `-` goes.
 * @param output Name of the file, or `-`; and whether a file that exists is replaced.
 * @param text What to write.
 * @throws {FileError} When it exists, or cannot be written.
 */
export async function writeWhole(
  context: Context,
  output: { readonly output: string; readonly force: boolean },
  text: string,
): Promise<void> {
  const { output: path, force } = output;
  if (path === STANDARD) return context.out.text(text);
  const info = await Deno.stat(path).catch(() => undefined);
  if (info?.isDirectory) throw new FileError(path, `Cannot write ${path}: It is a directory`);
  if (info?.isFile && !force) {
    throw new FileError(path, `Cannot write ${path}: It exists; --force overwrites it`);
  }
  const part = info === undefined || info.isFile ? `${path}.part` : path;
  try {
    await Deno.writeTextFile(part, text);
    if (part !== path) await Deno.rename(part, path);
  } catch (error) {
    throw fileError(path, "write", error);
  }
}
