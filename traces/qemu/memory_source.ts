/**
 * Guest memory in large pieces: through a file where QEMU runs on this machine
 * and can write one (100 MB/s), else through the stub (25 MB/s).
 *
 * @module
 */
import type { GdbClient } from "./gdb_client.ts";

/** Bytes from which a file is worth its while. */
const FILE_FROM = 64 << 10;

/** Reads a stopped guest's memory. */
export class MemorySource implements AsyncDisposable {
  readonly #gdb: GdbClient;
  /** Where files go; undefined when there is no use for any. */
  #folder: string | undefined;
  #opened = false;

  /** @param gdb Client of the guest. */
  constructor(gdb: GdbClient) {
    this.#gdb = gdb;
  }

  /**
   * Reads physical memory.
   *
   * @param at First byte.
   * @param length Number of bytes.
   * @returns The bytes, or undefined where there is no memory.
   */
  async read(at: bigint, length: number): Promise<Uint8Array | undefined> {
    if (length < FILE_FROM || !await this.#hasFolder()) {
      return await this.#gdb.readMemory(at, length);
    }
    const path = `${this.#folder}/memory`;
    await this.#gdb.monitor(`pmemsave 0x${at.toString(16)} ${length} "${path}"`);
    try {
      const bytes = await Deno.readFile(path);
      await Deno.remove(path);
      if (bytes.length === length) return bytes;
    } catch { /* QEMU sees other files or runs as another user */ }
    await this[Symbol.asyncDispose]();
    return await this.#gdb.readMemory(at, length);
  }

  async #hasFolder(): Promise<boolean> {
    if (!this.#opened && this.#gdb.local) {
      // Without leave to write files the stub serves as well, only slower.
      this.#folder = await Deno.makeTempDir({ prefix: "vmtape-scan-" }).catch(() => undefined);
    }
    this.#opened = true;
    return this.#folder !== undefined;
  }

  /** Takes the files away. */
  async [Symbol.asyncDispose](): Promise<void> {
    const folder = this.#folder;
    this.#folder = undefined;
    if (folder !== undefined) await Deno.remove(folder, { recursive: true });
  }
}
