/**
 * Checksums of states, to see that one comes again.
 *
 * @module
 */
import { crc32 } from "node:zlib";
import { type Machine, STATE_SIZE } from "../svm/machine.ts";
import { type GuestMemory, PAGE_SIZE } from "../svm/memory.ts";

/** States that are remembered at most. */
const MOST = 1 << 12;

/** CRC-32 of a page of zeros. */
const ZEROS = crc32(new Uint8Array(PAGE_SIZE));

/**
 * What of a state was seen before: nothing; what it was given to begin with, while what is left of runs
 * before is something else; or all.
 */
export type Seen = "nothing" | "inputs" | "all";

/** States that were seen, each by a checksum. */
export class StateSums {
  readonly #states = new Set<number>();
  readonly #inputs = new Set<number>();
  #memory: GuestMemory | undefined;
  /** By number of the page: its version when it was summed up, and its checksum. */
  #versions = new Float64Array(0);
  #sums = new Int32Array(0);

  /**
   * What of a state was seen before; all of it is seen now.
   *
   * @param m The machine; what is neither in its bytes nor in those pages does not count.
   * @param given How many bytes of the work area it is given to begin with.
   * @param pages Numbers of the pages that count, which it is given, too.
   * @returns What was seen; never inputs alone where no bytes are given.
   */
  seen(m: Machine, given: number, pages: readonly number[]): Seen {
    const { memory, bytes } = m;
    if (memory !== this.#memory) this.#begin(memory);
    let inputs = crc32(bytes.subarray(STATE_SIZE, STATE_SIZE + given)) | 0;
    // Pages that were not set yet are as those that were set to zeros.
    for (let i = 0; i < pages.length; i++) {
      inputs = inputs + this.#sumOf(memory, pages[i] as number) | 0;
    }
    const state = crc32(bytes.subarray(0, STATE_SIZE), inputs >>> 0);
    const known = given !== 0 && wasIn(this.#inputs, inputs);
    if (wasIn(this.#states, state)) return "all";
    return known ? "inputs" : "nothing";
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

/** Whether a sum was among others; it is now. */
function wasIn(sums: Set<number>, sum: number): boolean {
  if (sums.has(sum)) return true;
  if (sums.size === MOST) sums.clear();
  sums.add(sum);
  return false;
}
