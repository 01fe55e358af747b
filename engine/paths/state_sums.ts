/**
 * Checksums of states, to see that one comes again.
 *
 * @module
 */
import { crc32 } from "node:zlib";
import { type Machine, MACHINE_SIZE, STATE_SIZE } from "../svm/machine.ts";
import { type GuestMemory, PAGE_SIZE } from "../svm/memory.ts";

/** States that are remembered at most. */
const MOST = 1 << 12;

/** CRC-32 of a page of zeros. */
const ZEROS = crc32(new Uint8Array(PAGE_SIZE));

/** States that were seen, each by a checksum. */
export class StateSums {
  readonly #seen = new Set<number>();
  #memory: GuestMemory | undefined;
  /** By number of the page: its version when it was summed up, and its checksum. */
  #versions = new Float64Array(0);
  #sums = new Int32Array(0);

  /**
   * Whether a state was seen before; it is seen now.
   *
   * @param m The machine; what is neither in its bytes nor in those pages does not count.
   * @param given Whether the work area belongs to its state.
   * @param pages Numbers of the pages that count.
   */
  seen(m: Machine, given: boolean, pages: readonly number[]): boolean {
    const { memory } = m, seen = this.#seen;
    if (memory !== this.#memory) this.#begin(memory);
    let sum = crc32(m.bytes.subarray(0, given ? MACHINE_SIZE : STATE_SIZE)) | 0;
    // Pages that were not set yet are as those that were set to zeros.
    for (let i = 0; i < pages.length; i++) sum = sum + this.#sumOf(memory, pages[i] as number) | 0;
    if (seen.has(sum)) return true;
    if (seen.size === MOST) seen.clear();
    seen.add(sum);
    return false;
  }

  #sumOf(memory: GuestMemory, page: number): number {
    const version = memory.versions[page] as number;
    if (this.#versions[page] === version) return this.#sums[page] as number;
    this.#versions[page] = version;
    const crc = (crc32(memory.page(page * PAGE_SIZE)) ^ ZEROS) | 0;
    return this.#sums[page] = Math.imul(crc, 2 * page + 1);
  }

  #begin(memory: GuestMemory): void {
    this.#memory = memory;
    // -1: not looked at yet.
    this.#versions = new Float64Array(memory.versions.length).fill(-1);
    this.#sums = new Int32Array(memory.versions.length);
  }
}
