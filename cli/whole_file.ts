/**
 * Writing a file that is there whole or not at all.
 *
 * @module
 */
import type { Context } from "./context.ts";
import { FileError } from "./errors.ts";
import { fileError, STANDARD } from "./files.ts";
import { writeAll } from "../codecs/container/file_guard.ts";
import { giveName, isSpecial, isThere, openPart } from "../codecs/container/output_file.ts";

/** A file that gets its name when it is complete. */
export interface WholeFile extends Disposable {
  /** Writes text. @throws {FileError} When it cannot be written. */
  write(text: string): void;
  /** Writes bytes. @throws {FileError} When they cannot be written. */
  bytes(bytes: Uint8Array): void;
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
export function wholeFile(
  context: Context,
  target: { readonly output: string; readonly force: boolean },
): WholeFile {
  const { output: path, force } = target;
  if (path === STANDARD) {
    return {
      write: (text) => context.out.text(text),
      bytes: (bytes) => context.out.bytes(bytes),
      done() {},
      [Symbol.dispose]() {},
    };
  }
  const guard = <T>(act: () => T): T => {
    try {
      return act();
    } catch (error) {
      throw fileError(path, "write", error);
    }
  };
  const taken = () => {
    throw new FileError(path, `Cannot write ${path}: It exists; --force overwrites it`);
  };
  const special = guard(() => isSpecial(path));
  if (!special && !force && guard(() => isThere(path))) taken();
  const [part, file] = guard(() =>
    special ? [path, Deno.openSync(path, { write: true })] : openPart(path)
  );
  const encoder = new TextEncoder();
  let pending = "";
  let finished = special;
  const flush = () => {
    const bytes = encoder.encode(pending);
    pending = "";
    writeAll(file, bytes);
  };
  return {
    write(text) {
      pending += text;
      if (pending.length >= CHUNK) guard(flush);
    },
    bytes(bytes) {
      guard(() => {
        flush();
        writeAll(file, bytes);
      });
    },
    done() {
      guard(flush);
      if (special) return;
      if (!guard(() => giveName(part, path, force))) taken();
      finished = true;
    },
    [Symbol.dispose]() {
      file.close();
      if (!finished) Deno.removeSync(part);
    },
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
export function writeWhole(
  context: Context,
  target: { readonly output: string; readonly force: boolean },
  text: string,
): void {
  using file = wholeFile(context, target);
  file.write(text);
  file.done();
}
