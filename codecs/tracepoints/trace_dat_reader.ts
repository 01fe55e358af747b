/**
 * Reads the parts of a trace.dat: numbers in its byte order, strings, and
 * compressed parts.
 *
 * @module
 */
import { inflateSync, zstdDecompressSync } from "node:zlib";
import type { TraceSource } from "../container/trace_file.ts";
import { TracepointError } from "./error.ts";

/** How the parts of a trace.dat are compressed. */
export type TraceDatCompression = "none" | "zstd" | "zlib";

/** A part that is read as a whole is at most this long; the real ones are a few MB. */
const LARGEST_PART = 256 << 20;

/** Reads a file front to back, with jumps. */
export class DatReader {
  /** The file, read where it is asked for. */
  readonly access: TraceSource;
  /** Whether numbers have their low byte first. */
  little = true;
  /** Where the next read begins. */
  at = 0;

  /**
   * Begins at the start of a file.
   *
   * @param access The file.
   */
  constructor(access: TraceSource) {
    this.access = access;
  }

  /** The next bytes; `what` they are, for messages. */
  async bytes(length: number, what: string): Promise<Uint8Array> {
    if (length > LARGEST_PART) {
      throw new TracepointError("corrupt", `${what} of ${length} bytes cannot be`, {
        offset: this.at,
      });
    }
    if (this.at + length > this.access.size) {
      throw new TracepointError(
        "truncated",
        `The file ends within ${what}: ${length} bytes wanted, ` +
          `${Math.max(0, this.access.size - this.at)} there`,
        { offset: this.access.size },
      );
    }
    const bytes = await this.access.readAt(this.at, length);
    if (bytes.length < length) {
      throw new TracepointError("truncated", `The file ends within ${what}`, {
        offset: this.at + bytes.length,
      });
    }
    this.at += length;
    return bytes;
  }

  /** The next number. */
  async number(size: 1 | 2 | 4 | 8, what: string): Promise<number> {
    const offset = this.at;
    const bytes = await this.bytes(size, what);
    const value = numberAt(bytes, 0, size, this.little);
    if (value > Number.MAX_SAFE_INTEGER) {
      throw new TracepointError("corrupt", `${what} of ${value} cannot be`, { offset });
    }
    return value;
  }

  /** The next string, up to its zero byte. */
  async string(longest: number, what: string): Promise<string> {
    const offset = this.at;
    const bytes = await this.bytes(Math.min(longest, this.access.size - this.at), what);
    const end = bytes.indexOf(0);
    if (end < 0) {
      throw new TracepointError("corrupt", `${what} has no end within ${longest} bytes`, {
        offset,
      });
    }
    this.at = offset + end + 1;
    return new TextDecoder().decode(bytes.subarray(0, end));
  }
}

/** A number of 1 to 8 bytes. */
export function numberAt(bytes: Uint8Array, at: number, size: number, little: boolean): number {
  let value = 0;
  for (let i = 0; i < size; i++) value = value * 256 + bytes[at + (little ? size - 1 - i : i)]!;
  return value;
}

/**
 * Undoes the compression of a part.
 *
 * @param bytes The compressed bytes.
 * @param size How many they become.
 * @param how How they are compressed.
 * @param offset Where they are, for messages.
 * @throws {TracepointError} `corrupt`.
 */
export function unpack(
  bytes: Uint8Array,
  size: number,
  how: TraceDatCompression,
  offset: number,
): Uint8Array {
  if (size > LARGEST_PART) {
    throw new TracepointError("corrupt", `A part of ${size} bytes decompressed cannot be`, {
      offset,
    });
  }
  try {
    const options = { maxOutputLength: Math.max(size, 1) };
    const out = how === "zstd" ? zstdDecompressSync(bytes, options) : inflateSync(bytes, options);
    if (out.length === size) return out;
    throw new Error(`${out.length} bytes instead of ${size}`);
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new TracepointError("corrupt", `A part does not decompress (${how}): ${why}`, {
      offset,
      cause,
    });
  }
}
