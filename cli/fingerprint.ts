/**
 * Telling files apart by their content, without reading all of a large one.
 *
 * @module
 */
import { createHash } from "node:crypto";
import { closeSync, fstatSync, openSync, readSync, statSync } from "node:fs";
import { STANDARD } from "./files.ts";

/** Bytes of each sample, and how many samples are taken at most. */
const SAMPLE = 1 << 16, SAMPLES = 64;

/** File descriptor of the standard input. */
const STDIN = 0;

/**
 * Sixteen bytes that depend on a file's content and size alone.
 *
 * @param path The file, or `-`.
 * @returns They; undefined of what is no regular file, such as a pipe, and of what cannot be read.
 */
export function fingerprint(path: string): Uint8Array | undefined {
  let file: number | undefined;
  try {
    // Opening a pipe would wait for its writer, and then take away from it.
    const stat = path === STANDARD ? fstatSync(STDIN) : statSync(path);
    // The files of tracefs have no size, and another content each time.
    if (!stat.isFile() || stat.size === 0) return undefined;
    file = path === STANDARD ? STDIN : openSync(path, "r");
    return digest(file, stat.size);
  } catch {
    // Whoever reads it says why it cannot be read.
    return undefined;
  } finally {
    if (file !== undefined && file !== STDIN) closeSync(file);
  }
}

function digest(file: number, size: number): Uint8Array {
  const hash = createHash("sha256").update(`${size}\n`);
  const count = Math.min(SAMPLES, Math.ceil(size / SAMPLE));
  const sample = new Uint8Array(SAMPLE);
  for (let i = 0; i < count; i++) {
    // From the first bytes to the last ones, at equal distances.
    const at = count === 1 ? 0 : Math.floor((size - SAMPLE) * i / (count - 1));
    const got = readSync(file, sample, 0, SAMPLE, at);
    hash.update(sample.subarray(0, got));
  }
  return Uint8Array.from(hash.digest().subarray(0, 16));
}
