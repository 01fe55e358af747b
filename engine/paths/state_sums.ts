/**
 * Checksums of states, to see that one comes again.
 *
 * @module
 */
import { crc32 } from "node:zlib";
import { type Machine, MACHINE_SIZE, MAPPED_AT } from "../svm/machine.ts";
import { type GuestMemory, PAGE_SIZE } from "../svm/memory.ts";

/** States that are remembered at most. */
const MOST = 1 << 12;

/** States that were seen, each by a checksum: of its bytes, and of all pages of guest memory. */
export class StateSums {
  readonly #seen = new Set<number>();
  #memory: GuestMemory | undefined;
  /** Of each page which version was looked at last, and its sum. */
  #versions = new Float64Array(0);
  #sums = new Int32Array(0);

  /**
   * Whether a state was seen before; it is seen now.
   *
   * @param m The machine; what is neither in its bytes nor in memory does not count.
   * @param given Whether the work area belongs to its state.
   */
  seen(m: Machine, given: boolean): boolean {
    const seen = this.#seen, sum = this.#sumOf(m, given);
    if (seen.has(sum)) return true;
    if (seen.size === MOST) seen.clear();
    seen.add(sum);
    return false;
  }

  #sumOf({ bytes, memory }: Machine, given: boolean): number {
    if (memory !== this.#memory) this.#begin(memory);
    const pages = memory.pages(), versions = this.#versions, sums = this.#sums;
    let sum = crc32(bytes.subarray(0, given ? MACHINE_SIZE : MAPPED_AT)) | 0;
    for (let i = 0; i < pages.length; i++) {
      const page = pages[i] as number, version = memory.versions[page] as number;
      if (versions[page] !== version) {
        versions[page] = version;
        sums[page] = crc32(memory.page(page * PAGE_SIZE), page);
      }
      sum = Math.imul(sum, 0x9e3779b1) + (sums[page] as number) | 0;
    }
    return sum;
  }

  #begin(memory: GuestMemory): void {
    this.#memory = memory;
    // -1: not looked at yet.
    this.#versions = new Float64Array(memory.versions.length).fill(-1);
    this.#sums = new Int32Array(memory.versions.length);
  }
}
