/**
 * Tracepoint logs in files.
 *
 * @module
 */
import { fileChunks, type FileSource, fileSource } from "../container/file.ts";
import { guard, writeAll } from "../container/file_guard.ts";
import { type Spool, spoolLimit, type TracepointSource } from "./source.ts";

/** Bytes of a trace.dat out of gzip or a pipe that are kept in a temporary file: 4 GiB. */
export const SPOOLED_IN_FILE: number = 4 * 2 ** 30;

/**
 * A log in a file, as {@linkcode importTracepoints} takes it: a regular file to
 * be read from any place; all else (`-`, pipes, the files of tracefs, which
 * have no size) as a stream.
 *
 * @param path Name of the file; `-` is standard input.
 * @returns The source; a `Disposable` where it is a file.
 * @throws {TraceError} `missing` or `input`.
 * @example
 * ```ts
 * import { importTracepoints, tracepointFile } from "@vmtape/vmtape/codecs";
 * const path = await Deno.makeTempFile();
 * await Deno.writeTextFile(
 *   path,
 *   " qemu-7  [000] .....  3.648900: kvm_nested_vmenter_failed: control->asid == 0\n",
 * );
 * const source = tracepointFile(path);
 * const events = (await Array.fromAsync(importTracepoints(source))).flat();
 * source[Symbol.dispose]?.();
 * await Deno.remove(path);
 * if (events.at(-1)?.kind !== "check") throw new Error();
 * ```
 */
export function tracepointFile(path: string): TracepointSource & Partial<Disposable> {
  if (path === "-") return fileChunks(path);
  const source = fileSource(path);
  if (source.size > 0) return source;
  source.close();
  return fileChunks(path);
}

/**
 * A spool in a temporary file, which is gone afterwards.
 *
 * @param dir Where; the system's own place when left out.
 * @param limit How many bytes it takes.
 * @returns The spool; its `write` and `finish` wait for the disk.
 * @throws {TraceError} `output` when the file cannot be made; its `write` throws it as well, and a
 * {@linkcode TracepointError} of code `limit` beyond that many bytes.
 * @example
 * ```ts
 * import { fileSpool } from "@vmtape/vmtape/codecs";
 * const spool = fileSpool();
 * await spool.write(Uint8Array.of(1, 2, 3));
 * const source = await spool.finish();
 * const bytes = await source.readAt(1, 2);
 * await spool.discard();
 * if (source.size !== 3 || bytes[0] !== 2) throw new Error();
 * ```
 */
export function fileSpool(dir?: string, limit: number = SPOOLED_IN_FILE): Spool {
  const folder = dir ?? "the folder for temporary files (TMPDIR)";
  const what = `Cannot keep the input in ${folder} while it is read`;
  const { path, file } = guard("output", what, () => {
    const path = Deno.makeTempFileSync({
      ...(dir === undefined ? {} : { dir }),
      prefix: "vmtape-",
    });
    return { path, file: Deno.openSync(path, { write: true }) };
  });
  let source: FileSource | undefined;
  let open = true;
  let size = 0;
  return {
    write(bytes) {
      size += bytes.length;
      if (size > limit) throw spoolLimit(limit, size);
      guard("output", what, () => writeAll(file, bytes));
    },
    finish() {
      file.close();
      open = false;
      source = fileSource(path);
      return source;
    },
    discard() {
      if (open) file.close();
      open = false;
      source?.close();
      Deno.removeSync(path);
    },
  };
}
