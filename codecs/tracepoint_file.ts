/**
 * Tracepoint logs in files.
 *
 * @module
 */
import { fileChunks, type FileSource, fileSource } from "./file.ts";
import type { Spool, TracepointSource } from "./tracepoint_source.ts";

/**
 * A log in a file, as {@linkcode importTracepoints} takes it: a regular file to
 * be read from any place; all else (`-`, pipes, the files of tracefs, which
 * have no size) as a stream.
 *
 * @param path Name of the file; `-` is standard input.
 * @returns The source; a `Disposable` where it is a file.
 * @throws {TraceError} `missing` or `input`.
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
 * @throws {TraceError} `output` when it cannot be written.
 */
export function fileSpool(dir?: string): Spool {
  const path = Deno.makeTempFileSync({ ...(dir === undefined ? {} : { dir }), prefix: "vmtape-" });
  const file = Deno.openSync(path, { write: true });
  let source: FileSource | undefined;
  let open = true;
  return {
    write(bytes) {
      for (let rest = bytes; rest.length > 0;) rest = rest.subarray(file.writeSync(rest));
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
