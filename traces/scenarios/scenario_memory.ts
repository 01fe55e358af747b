/**
 * Guest memory as a scenario sets it up.
 *
 * @module
 */
import { type MemoryWriter, writeBase, writeRsmCode } from "./base.ts";
import type { Scenario } from "./scenario.ts";

/**
 * The bytes that a change writes.
 *
 * @param change A change, early or late.
 * @returns `size` bytes, little-endian.
 * @example
 * ```ts
 * import { bytesOf } from "@vmtape/vmtape/traces";
 * if (bytesOf({ size: 2, value: 0xc9bn }).join() !== `${0x9b},${0x0c}`) throw new Error();
 * ```
 */
export function bytesOf(change: { readonly size: number; readonly value: bigint }): Uint8Array {
  return fleetingBytes(change).slice();
}

const word = new DataView(new ArrayBuffer(8));
const bySize = Array.from({ length: 9 }, (_, size) => new Uint8Array(word.buffer, 0, size));

/** The same, only valid until the next call. */
export function fleetingBytes(
  { size, value }: { readonly size: number; readonly value: bigint },
): Uint8Array {
  word.setBigUint64(0, value, true);
  return bySize[size] as Uint8Array;
}

/**
 * Sets guest memory up for a scenario: the base (unless `keepmem`), the code
 * of an L2 that stops on its way, and the changes in order.
 *
 * @param scenario The scenario.
 * @param memory Where to write.
 * @param zeroed Whether memory is all zeroes, as in a new virtual machine.
 * @example
 * ```ts
 * import { parseScenario, setUpMemory } from "@vmtape/vmtape/traces";
 * const memory = new Uint8Array(16 << 20);
 * setUpMemory(parseScenario("a m.9000.1=f4"), { write: (gpa, b) => memory.set(b, gpa) }, true);
 * if (memory[0x9000] !== 0xf4 || memory[0x9001] !== 0x01) throw new Error();
 * ```
 */
export function setUpMemory(scenario: Scenario, memory: MemoryWriter, zeroed = false): void {
  if (!scenario.keepmem) writeBase(memory, zeroed);
  writeChanges(scenario, memory);
}

/**
 * Writes what a scenario writes on top of the base: the code of an L2 that stops on its way, and the
 * changes in order.
 *
 * @param scenario The scenario.
 * @param memory Where to.
 */
export function writeChanges(scenario: Scenario, memory: MemoryWriter): void {
  const { entry } = scenario;
  if (entry === "rsm" || entry === "mid" || entry === "migrate") writeRsmCode(memory);
  for (const change of scenario.changes) memory.write(change.gpa, fleetingBytes(change));
}
