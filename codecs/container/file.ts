/**
 * Traces in files: the only part of the codecs that touches any.
 *
 * @module
 */
import { TraceError } from "../errors.ts";
import { guard, guardAsync, writeAll } from "./file_guard.ts";
import { giveName, isThere, openPart, PART, partNames } from "./output_file.ts";

export { PART };
import type { TraceSink } from "./writer.ts";
import type { TraceSource } from "./trace_file.ts";

const CHUNK = 1 << 18;

/** A sink that is a file, or will be. */
export interface FileSink extends TraceSink, Disposable {
  /** Name of the file while it is written. */
  readonly part: string;
  /** Syncs the bytes to the disk, gives the file its name and lets go of it. */
  close(): void;
  /** Lets go of the file; it keeps its temporary name. Does nothing after a close. */
  [Symbol.dispose](): void;
}

/**
 * Writes a trace to a file, under a temporary name until it is whole. What a killed recorder left
 * under that name is kept: it can be recovered.
 *
 * @param path Name of the trace.
 * @param options `force` to replace a file that is there.
 * @returns The sink.
 * @throws {TraceError} `exists` or `output`.
 * @example
 * ```ts
 * import { fileSink, TraceWriter } from "@vmtape/vmtape/codecs";
 * const folder = await Deno.makeTempDir();
 * const writer = new TraceWriter(fileSink(`${folder}/t.vmtape`));
 * writer.close();
 * if ((await Deno.stat(`${folder}/t.vmtape`)).size === 0) throw new Error("Not written");
 * await Deno.remove(folder, { recursive: true });
 * ```
 */
export function fileSink(path: string, options: { readonly force?: boolean } = {}): FileSink {
  if (!options.force && guard("output", `${path} cannot be written`, () => isThere(path))) {
    throw new TraceError("exists", `${path} is there already; use another name or --force`);
  }
  const [part, file] = guard("output", `${path} cannot be written`, () => openPart(path));
  let open = true;
  return {
    part,
    write: (chunk) => guard("output", `${part} cannot be written`, () => writeAll(file, chunk)),
    close: () =>
      guard("output", `${path} cannot be written`, () => {
        file.syncSync();
        file.close();
        open = false;
        if (!giveName(part, path, options.force === true)) {
          throw new TraceError("exists", `${path} came to be meanwhile; the trace is in ${part}`);
        }
      }),
    [Symbol.dispose]: () => {
      if (open) file.close();
      open = false;
    },
  };
}

/**
 * Writes a trace to something that is open, such as standard output.
 *
 * @param out Where to.
 * @returns The sink.
 * @throws {TraceError} `output`, on writing.
 * @example
 * ```ts
 * import { streamSink, TraceWriter } from "@vmtape/vmtape/codecs";
 * let size = 0;
 * const out = { writeSync: (bytes: Uint8Array) => (size += bytes.length, bytes.length) };
 * new TraceWriter(streamSink(out)).close();
 * if (size === 0) throw new Error("Not written");
 * ```
 */
export function streamSink(out: { writeSync(bytes: Uint8Array): number }): TraceSink {
  return {
    write: (chunk) => guard("output", "The output cannot be written", () => writeAll(out, chunk)),
  };
}

/** A source that is a file. */
export interface FileSource extends TraceSource, Disposable {
  /** Lets go of the file. */
  close(): void;
}

/**
 * A trace in a file, to be read from any place.
 *
 * @param path Name of the file.
 * @returns The source, to be closed.
 * @throws {TraceError} `missing` or `input`.
 * @example
 * ```ts
 * import { fileSource, TraceError } from "@vmtape/vmtape/codecs";
 * try {
 *   using source = fileSource("/nonexistent");
 *   throw new Error(`${source.size} bytes of nothing`);
 * } catch (error) {
 *   if (!(error instanceof TraceError) || error.code !== "missing") throw error;
 * }
 * ```
 */
export function fileSource(path: string): FileSource {
  const file = openInput(path);
  const close = () => file.close();
  return {
    size: guard("input", `${path} cannot be read`, () => file.statSync().size),
    readAt: (offset, length) =>
      guard("input", `${path} cannot be read`, () => {
        const bytes = new Uint8Array(length);
        file.seekSync(offset, Deno.SeekMode.Start);
        let got = 0;
        while (got < length) {
          const more = file.readSync(bytes.subarray(got));
          if (more === null) break;
          got += more;
        }
        return bytes.subarray(0, got);
      }),
    close,
    [Symbol.dispose]: close,
  };
}

/** How a file is read as chunks. */
export interface FileChunksOptions {
  /** Wait for more at the end, until the file has its final name or `signal` says to stop. */
  readonly follow?: boolean;
  /** Ends the waiting. */
  readonly signal?: AbortSignal;
  /** Time between two looks, in milliseconds. */
  readonly interval?: number;
}

/**
 * The bytes of a file, in chunks. With `follow`, also of one that a recorder is still writing:
 * under its temporary name, if it does not have its final one.
 *
 * @param path Name of the file; `-` is standard input.
 * @param options How.
 * @throws {TraceError} `missing` or `input`; `truncated` when a file that is followed was cut, removed
 * or replaced by another, so that nothing more can come.
 * @example
 * ```ts
 * import { fileChunks, fileSink, readTrace, TraceWriter } from "@vmtape/vmtape/codecs";
 * const folder = await Deno.makeTempDir();
 * new TraceWriter(fileSink(`${folder}/t.vmtape`), { meta: { by: "me" } }).close();
 * const trace = await readTrace(fileChunks(`${folder}/t.vmtape`));
 * if (trace.header.meta.by !== "me") throw new Error("Not as written");
 * if ((await Array.fromAsync(trace.events())).length !== 0) throw new Error("Nothing was written");
 * await Deno.remove(folder, { recursive: true });
 * ```
 */
export async function* fileChunks(
  path: string,
  options: FileChunksOptions = {},
): AsyncGenerator<Uint8Array, void, undefined> {
  if (path === "-") {
    yield* Deno.stdin.readable;
    return;
  }
  const part = options.follow && !exists(path) ? newestPart(path) : undefined;
  const growing = part !== undefined;
  const name = part ?? path;
  const file = openInput(name);
  try {
    yield* chunksOf(file, name, path, growing, options);
  } finally {
    file.close();
  }
}

async function* chunksOf(
  file: Deno.FsFile,
  name: string,
  path: string,
  growing: boolean,
  options: FileChunksOptions,
): AsyncGenerator<Uint8Array, void, undefined> {
  let last = !options.follow;
  let offset = 0;
  for (;;) {
    const bytes = new Uint8Array(CHUNK);
    const got = await guardAsync("input", `${path} cannot be read`, () => file.read(bytes));
    if (got !== null && got > 0) {
      offset += got;
      yield bytes.subarray(0, got);
      continue;
    }
    if (last) return;
    // What was written before the renaming has to be read after it was seen.
    if (options.signal?.aborted || (growing && exists(path))) last = true;
    else {
      const trouble = guard("input", `${path} cannot be read`, () => troubleOf(file, name, offset));
      if (trouble !== undefined) throw new TraceError("truncated", trouble, { offset });
      await pause(options.interval ?? 100, options.signal);
    }
  }
}

/** What keeps more from coming in a file that is followed. */
function troubleOf(file: Deno.FsFile, name: string, offset: number): string | undefined {
  const { size, ino, dev } = file.statSync();
  const told = `(offset ${offset}); what was shown until then is right`;
  if (size < offset) return `${name} was cut to ${size} bytes while it was followed ${told}`;
  let now: Deno.FileInfo | undefined;
  try {
    now = Deno.statSync(name);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
  // Its own name gone, a recorder's trace may have got its final one since it was looked for.
  if (now === undefined) {
    return exists(name.replace(/\.part\d*$/, ""))
      ? undefined
      : `${name} was removed while it was followed ${told}`;
  }
  if (now.ino !== ino || now.dev !== dev) {
    return `Another file has the name ${name} now, while it was followed ${told}`;
  }
  return undefined;
}

/** Waits, but not beyond a signal. */
async function pause(ms: number, signal: AbortSignal | undefined): Promise<void> {
  await new Promise<void>((resolve) => {
    const end = () => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", end);
      resolve();
    };
    const timer = setTimeout(end, ms);
    signal?.addEventListener("abort", end);
  });
}

function newestPart(path: string): string | undefined {
  let newest: string | undefined;
  for (const part of partNames(path)) {
    if (!exists(part)) break;
    newest = part;
  }
  return newest;
}

function openInput(path: string): Deno.FsFile {
  try {
    return Deno.openSync(path, { read: true });
  } catch (cause) {
    if (cause instanceof Deno.errors.NotFound) {
      throw new TraceError("missing", `${path} does not exist`, { cause });
    }
    throw new TraceError("input", `${path} cannot be read: ${(cause as Error).message}`, { cause });
  }
}

function exists(path: string): boolean {
  try {
    Deno.statSync(path);
    return true;
  } catch {
    return false;
  }
}
