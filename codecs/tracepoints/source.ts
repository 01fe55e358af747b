/**
 * Where the bytes of a tracepoint log come from, and what they are.
 *
 * @module
 */
import { Buffer } from "node:buffer";
import { PassThrough, Readable } from "node:stream";
import { createGunzip } from "node:zlib";
import { memorySource, type TraceSource } from "../container/trace_file.ts";
import { TracepointError } from "./error.ts";

/** An input: all of it at once, piece by piece, or a file. */
export type TracepointSource =
  | Uint8Array
  | ReadableStream<Uint8Array>
  | AsyncIterable<Uint8Array>
  | TraceSource;

/** A place to keep a trace.dat that comes as a stream, since reading it means going back and forth. */
export interface Spool {
  /** Adds bytes at the end. */
  write(bytes: Uint8Array): void | Promise<void>;
  /** No more bytes come: gives all of them back. */
  finish(): TraceSource | Promise<TraceSource>;
  /** Frees the place. */
  discard(): void | Promise<void>;
}

/** What the first bytes of an input are. */
export type InputKind =
  /** A trace.dat file. */
  | "trace.dat"
  /** Something in gzip. */
  | "gzip"
  /** Text. */
  | "text"
  /** None of these; the message names it. */
  | { readonly foreign: string; readonly compressed: boolean };

/** How many of its first bytes an input is recognized by. */
export const SNIFF = 512;

const GZIP = [0x1f, 0x8b];
const TRACE_DAT = [0x17, 0x08, 0x44, ...new TextEncoder().encode("tracing")];
const FOREIGN: readonly (readonly [number[], string, boolean])[] = [
  [[0x28, 0xb5, 0x2f, 0xfd], "compressed with zstd: pass it through `zstd -dc`", true],
  [[0xfd, 0x37, 0x7a, 0x58, 0x5a], "compressed with xz: pass it through `xz -dc`", true],
  [[0x42, 0x5a, 0x68], "compressed with bzip2: pass it through `bzip2 -dc`", true],
  [[0x04, 0x22, 0x4d, 0x18], "compressed with lz4: pass it through `lz4 -dc`", true],
  [[0x50, 0x4b, 0x03, 0x04], "a zip archive: unpack it", true],
  [
    [...new TextEncoder().encode("PERFILE2")],
    "a perf.data file: pass it through `perf script`",
    false,
  ],
  [[0x7f, 0x45, 0x4c, 0x46], "an ELF file", false],
];

function begins(bytes: Uint8Array, magic: readonly number[]): boolean {
  return bytes.length >= magic.length && magic.every((byte, i) => bytes[i] === byte);
}

/**
 * Says what an input is by its first bytes.
 *
 * @param bytes Its first {@linkcode SNIFF} bytes, or all of it when it is shorter.
 * @returns What it is. Text may still be none of a tracepoint log.
 * @example
 * ```ts
 * import { sniffTracepoints } from "@vmtape/vmtape/codecs";
 * if (sniffTracepoints(Uint8Array.of(0x1f, 0x8b, 8)) !== "gzip") throw new Error();
 * if (sniffTracepoints(new TextEncoder().encode("# tracer: nop\n")) !== "text") throw new Error();
 * ```
 */
export function sniffTracepoints(bytes: Uint8Array): InputKind {
  if (begins(bytes, GZIP)) return "gzip";
  if (begins(bytes, TRACE_DAT)) return "trace.dat";
  for (const [magic, foreign, compressed] of FOREIGN) {
    if (begins(bytes, magic)) return { foreign, compressed };
  }
  if (bytes.subarray(0, SNIFF).includes(0)) {
    return { foreign: "binary, and begins like no file that is known here", compressed: false };
  }
  return "text";
}

/** Whether a source can be read at any place. */
export function hasAnyPlace(source: TracepointSource): source is TraceSource {
  return "readAt" in source;
}

/**
 * What is said of a stream that is longer than a spool may be.
 *
 * @param limit How many bytes that are.
 * @param size How many there are so far.
 */
export function spoolLimit(limit: number, size: number): TracepointError {
  return new TracepointError(
    "limit",
    `A trace.dat that comes as a stream or in gzip is kept up to ${limit} bytes while it is ` +
      "read; save it to a file, uncompressed, and import that",
    { offset: size },
  );
}

/**
 * A spool in memory.
 *
 * @param limit How many bytes it takes.
 * @returns The spool.
 * @throws {TracepointError} From `write`: `limit` beyond that.
 * @example
 * ```ts
 * import { memorySpool } from "@vmtape/vmtape/codecs";
 * const spool = memorySpool(1024);
 * await spool.write(Uint8Array.of(1));
 * if ((await spool.finish()).size !== 1) throw new Error();
 * ```
 */
export function memorySpool(limit: number): Spool {
  let parts: Uint8Array[] = [];
  let size = 0;
  return {
    write(bytes) {
      size += bytes.length;
      if (size > limit) throw spoolLimit(limit, size);
      parts.push(bytes.slice());
    },
    finish() {
      const bytes = new Uint8Array(size);
      let at = 0;
      for (const part of parts) {
        bytes.set(part, at);
        at += part.length;
      }
      parts = [];
      return memorySource(bytes);
    },
    discard() {
      parts = [];
    },
  };
}

/** How much of a file is read at once. */
const PIECE = 1 << 20;

/** The bytes of a source in order. */
export async function* piecesOf(source: TracepointSource): AsyncGenerator<Uint8Array> {
  if (source instanceof Uint8Array) {
    for (let at = 0; at < source.length; at += PIECE) yield source.subarray(at, at + PIECE);
    return;
  }
  if (!hasAnyPlace(source)) {
    yield* source;
    return;
  }
  for (let at = 0; at < source.size;) {
    const piece = await source.readAt(at, Math.min(PIECE, source.size - at));
    if (piece.length === 0) return;
    at += piece.length;
    yield piece;
  }
}

/** The first bytes of a stream, and the stream with them still in it. */
export async function peek(
  pieces: AsyncGenerator<Uint8Array>,
): Promise<{ first: Uint8Array; pieces: AsyncGenerator<Uint8Array> }> {
  let first = new Uint8Array(0);
  while (first.length < SNIFF) {
    const next = await pieces.next();
    if (next.done) break;
    const joined = new Uint8Array(first.length + next.value.length);
    joined.set(first);
    joined.set(next.value, first.length);
    first = joined;
    // A live pipe may give one line and then nothing for hours.
    if (first.includes(0x0a)) break;
  }
  async function* all() {
    try {
      if (first.length > 0) yield first;
      yield* pieces;
    } finally {
      await pieces.return(undefined);
    }
  }
  return { first, pieces: all() };
}

/**
 * Undoes gzip, several members after one another included.
 *
 * @throws {TracepointError} While iterating: `truncated` or `corrupt`, after all bytes that could
 * be had.
 */
export async function* gunzip(pieces: AsyncGenerator<Uint8Array>): AsyncGenerator<Uint8Array> {
  const source = Readable.from(
    (async function* () {
      for await (const piece of pieces) yield Buffer.from(piece);
    })(),
    { objectMode: false },
  );
  const unzip = createGunzip({ chunkSize: 256 * 1024 });
  const out = new PassThrough({ highWaterMark: 1 << 20 });
  let fault: Error | undefined;
  unzip.on("error", (error: Error) => {
    fault = error;
    out.end();
  });
  source.on("error", (error: Error) => {
    fault = error;
    out.end();
  });
  source.pipe(unzip).pipe(out);
  let produced = 0;
  try {
    for await (const piece of out) {
      const bytes = piece as Uint8Array;
      produced += bytes.length;
      yield bytes;
    }
  } finally {
    source.destroy();
    unzip.destroy();
    out.destroy();
  }
  if (fault === undefined) return;
  if (fault instanceof TracepointError) throw fault;
  const cut = /unexpected end/.test(fault.message);
  throw new TracepointError(
    cut ? "truncated" : "corrupt",
    cut
      ? "The .gz input ends early; all that was in it before is imported"
      : `The .gz input cannot be decompressed further: ${fault.message}`,
    { offset: produced, cause: fault },
  );
}
