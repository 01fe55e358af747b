/**
 * Finds a guest's VMRUN instructions: the opcode in its memory, and the linear
 * addresses at which its page tables make it executable.
 *
 * @module
 */
import { Buffer } from "node:buffer";
import type { GdbClient } from "./gdb_client.ts";
import type { GdbRegisters } from "./gdb_registers.ts";
import { findMappings } from "./page_walk.ts";
import { VMRUN_OPCODE } from "./vmrun.ts";

/** A run of guest memory: RAM or ROM. */
export interface MemoryRegion {
  /** Physical address of the first byte. */
  readonly start: bigint;
  /** Physical address behind the last byte. */
  readonly end: bigint;
}

/** A place that may be a VMRUN; only a stop there shows that it is. */
export interface Candidate {
  /** Linear address. */
  readonly linear: bigint;
  /** Physical address of the opcode. */
  readonly physical: bigint;
}

const PAGE_MASK = ~0xfffn;
/** Memory read at once while scanning. */
const CHUNK = 16 << 20;

/**
 * Reads where memory is from the monitor's `info mtree -f`.
 *
 * @param text Its output.
 * @returns The regions in order of address; adjacent ones are joined.
 * @example
 * ```ts
 * import { parseMemoryMap } from "@vmtape/vmtape/traces";
 * const text = `FlatView #0
 *  AS "memory", root: system
 *   0000000000000000-000000000009ffff (prio 0, ram): pc.ram
 *   00000000fee00000-00000000feefffff (prio 4096, i/o): apic-msi
 * `;
 * if (parseMemoryMap(text)[0]?.end !== 0xa0000n || parseMemoryMap(text).length !== 1) throw new Error();
 * ```
 */
export function parseMemoryMap(text: string): MemoryRegion[] {
  const regions: { start: bigint; end: bigint }[] = [];
  for (const view of text.split(/^FlatView /m)) {
    if (!/^ AS "(memory|cpu-memory-0)"/m.test(view)) continue;
    for (const [, from, to] of view.matchAll(/^ +(\w{16})-(\w{16}) \(prio -?\d+, r[ao]m\)/gm)) {
      const start = BigInt(`0x${from}`);
      const end = BigInt(`0x${to}`) + 1n;
      const last = regions.at(-1);
      if (last?.end === start) last.end = end;
      else regions.push({ start, end });
    }
    break;
  }
  return regions;
}

/**
 * Whether a range is all memory: reading elsewhere could disturb a device.
 *
 * @param memory The regions.
 * @param start First byte.
 * @param length Number of bytes.
 * @returns True when all of it is memory.
 * @example
 * ```ts
 * import { inMemory } from "@vmtape/vmtape/traces";
 * if (inMemory([{ start: 0n, end: 0x1000n }], 0x800n, 0x1000)) throw new Error();
 * ```
 */
export function inMemory(memory: readonly MemoryRegion[], start: bigint, length: number): boolean {
  return memory.some((region) => start >= region.start && start + BigInt(length) <= region.end);
}

/**
 * Looks for the opcode of VMRUN in memory: through a file where QEMU runs on this machine and
 * can write one (100 MB/s), else through the stub (25 MB/s).
 *
 * @param gdb Client of a stopped guest.
 * @param memory Where to look.
 * @param signal Gives up early.
 * @returns Physical addresses of the opcode, in order.
 */
export async function scanForVmrun(
  gdb: GdbClient,
  memory: readonly MemoryRegion[],
  signal?: AbortSignal,
): Promise<bigint[]> {
  const found: bigint[] = [];
  const opcode = Buffer.from(VMRUN_OPCODE);
  await using source = await MemorySource.open(gdb);
  for (const { start, end } of memory) {
    for (let at = start; at < end; at += BigInt(CHUNK)) {
      if (signal?.aborted) return found;
      // Two bytes more than a chunk, for an opcode that crosses its end.
      const length = Math.min(Number(end - at), CHUNK + 2);
      const bytes = await source.read(at, length);
      if (bytes === undefined) continue;
      const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
      for (let i = buffer.indexOf(opcode); i >= 0; i = buffer.indexOf(opcode, i + 1)) {
        if (i < CHUNK) found.push(at + BigInt(i));
      }
    }
  }
  return found;
}

/** Guest memory in large pieces. */
class MemorySource {
  readonly #gdb: GdbClient;
  #folder: string | undefined;

  private constructor(gdb: GdbClient, folder: string | undefined) {
    this.#gdb = gdb;
    this.#folder = folder;
  }

  static async open(gdb: GdbClient): Promise<MemorySource> {
    if (!gdb.local) return new MemorySource(gdb, undefined);
    try {
      return new MemorySource(gdb, await Deno.makeTempDir({ prefix: "vmtape-scan-" }));
    } catch {
      // Without leave to write files the stub serves as well, only slower.
      return new MemorySource(gdb, undefined);
    }
  }

  async read(at: bigint, length: number): Promise<Uint8Array | undefined> {
    if (this.#folder === undefined) return await this.#gdb.readMemory(at, length);
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

  async [Symbol.asyncDispose](): Promise<void> {
    const folder = this.#folder;
    this.#folder = undefined;
    if (folder !== undefined) await Deno.remove(folder, { recursive: true });
  }
}

/**
 * The linear addresses at which one vCPU can execute what was found.
 *
 * @param gdb Client of a stopped guest.
 * @param registers The vCPU's registers.
 * @param memory Where memory is.
 * @param physical Physical addresses of opcodes.
 * @returns The candidates.
 */
export async function locate(
  gdb: GdbClient,
  registers: GdbRegisters,
  memory: readonly MemoryRegion[],
  physical: readonly bigint[],
): Promise<Candidate[]> {
  const [cr0, cr3, cr4, efer] = ["cr0", "cr3", "cr4", "efer"].map((n) => registers.need(n));
  const pages = new Set(physical.map((address) => address & PAGE_MASK));
  const mappings = await findMappings(
    { cr0: cr0!, cr3: cr3!, cr4: cr4!, efer: efer! },
    pages,
    (address, length) =>
      inMemory(memory, address, length)
        ? gdb.readMemory(address, length)
        : Promise.resolve(undefined),
  );
  return mappings.flatMap((mapping) =>
    physical.filter((address) => (address & PAGE_MASK) === mapping.physical)
      .map((address) => ({
        physical: address,
        linear: mapping.linear + address - mapping.physical,
      }))
  );
}
