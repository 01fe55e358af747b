/**
 * Where a guest's memory is, as QEMU's monitor tells it.
 *
 * @module
 */

/** A run of guest memory: RAM or ROM. */
export interface MemoryRegion {
  /** Physical address of the first byte. */
  readonly start: bigint;
  /** Physical address behind the last byte. */
  readonly end: bigint;
}

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
