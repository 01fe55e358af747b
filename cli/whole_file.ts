import type { Context } from "./context.ts";
import { FileError } from "./errors.ts";
import { fileError, STANDARD } from "./files.ts";

/** A file that gets its name when it is complete. */
export interface WholeFile extends Disposable {
  /** Writes text. @throws {FileError} When it cannot be written. */
  write(text: string): void;
  /** The file is complete. Without this it is taken away again. */
  done(): void;
}

/** How much text is written at once, in characters. */
const CHUNK = 1 << 16;

/**
 * Begins a file that is written under another name first, so that what is there
 * under its own name is always complete.
 *
 * @param context Where `-` goes.
 * @param target Name of the file, or `-`; and whether a file that exists is replaced.
 * @throws {FileError} When it exists, or cannot be written.
 */
export async function wholeFile(
  context: Context,
  target: { readonly output: string; readonly force: boolean },
): Promise<WholeFile> {
  const { output: path, force } = target;
  if (path === STANDARD) {
    return { write: (text) => context.out.text(text), done() {}, [Symbol.dispose]() {} };
  }
  const info = await Deno.stat(path).catch(() => undefined);
  if (info?.isDirectory) throw new FileError(path, `Cannot write ${path}: It is a directory`);
  if (info?.isFile && !force) {
    throw new FileError(path, `Cannot write ${path}: It exists; --force overwrites it`);
  }
  const part = info === undefined || info.isFile ? `${path}.part` : path;
  const guard = <T>(act: () => T): T => {
    try {
      return act();
    } catch (error) {
      throw fileError(path, "write", error);
    }
  };
  const file = guard(() => Deno.openSync(part, { write: true, create: true, truncate: true }));
  const encoder = new TextEncoder();
  let pending = "";
  let finished = false;
  const flush = () => {
    const bytes = encoder.encode(pending);
    pending = "";
    for (let at = 0; at < bytes.length;) at += file.writeSync(bytes.subarray(at));
  };
  const discard = () => {
    file.close();
    if (!finished && part !== path) Deno.removeSync(part);
  };
  return {
    write(text) {
      pending += text;
      if (pending.length >= CHUNK) guard(flush);
    },
    done() {
      guard(() => {
        flush();
        if (part !== path) Deno.renameSync(part, path);
      });
      finished = true;
    },
    [Symbol.dispose]: discard,
  };
}

/**
 * Writes a file as a whole; see {@linkcode wholeFile}.
 *
 * @param context Where `-` goes.
 * @param target Name of the file, or `-`; and whether a file that exists is replaced.
 * @param text What to write.
 * @throws {FileError} When it exists, or cannot be written.
 */
export async function writeWhole(
  context: Context,
  target: { readonly output: string; readonly force: boolean },
  text: string,
): Promise<void> {
  using file = await wholeFile(context, target);
  file.write(text);
  file.done();
}
