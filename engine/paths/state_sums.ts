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

/** Memories of which checksums are kept at most: a diff runs two in turns for each policy. */
const MOST_MEMORIES = 2;

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
  /** Of the memories that were seen last, the last one first. */
  readonly #pages: PageSums[] = [];

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
    const sums = this.#pagesOf(memory);
    let inputs = crc32(bytes.subarray(STATE_SIZE, STATE_SIZE + given)) | 0;
    // Pages that were not set yet are as those that were set to zeros.
    for (let i = 0; i < pages.length; i++) {
      inputs = inputs + sums.of(pages[i] as number) | 0;
    }
    const state = crc32(bytes.subarray(0, STATE_SIZE), inputs >>> 0);
    const known = given !== 0 && wasIn(this.#inputs, inputs);
    if (wasIn(this.#states, state)) return "all";
    return known ? "inputs" : "nothing";
  }

  #pagesOf(memory: GuestMemory): PageSums {
    const all = this.#pages;
    let at = all.findIndex((sums) => sums.memory === memory);
    if (at < 0) {
      if (all.length === MOST_MEMORIES) all.pop();
      at = all.push(new PageSums(memory)) - 1;
    }
    const sums = all[at] as PageSums;
    if (at > 0) {
      all.splice(at, 1);
      all.unshift(sums);
    }
    return sums;
  }
}

/** Checksums of the pages of a memory. */
class PageSums {
  readonly memory: GuestMemory;
  /** By number of the page: its version when it was summed up, and its checksum. */
  readonly #versions: Float64Array;
  readonly #sums: Int32Array;

  constructor(memory: GuestMemory) {
    this.memory = memory;
    // -1: not looked at yet.
    this.#versions = new Float64Array(memory.versions.length).fill(-1);
    this.#sums = new Int32Array(memory.versions.length);
  }

  of(page: number): number {
    const version = this.memory.versions[page] as number;
    if (this.#versions[page] === version) return this.#sums[page] as number;
    this.#versions[page] = version;
    const crc = (crc32(this.memory.page(page * PAGE_SIZE)) ^ ZEROS) | 0;
    return this.#sums[page] = Math.imul(crc, 2 * page + 1);
  }
}

/** Whether a sum was among others; it is now. */
function wasIn(sums: Set<number>, sum: number): boolean {
  if (sums.has(sum)) return true;
  if (sums.size === MOST) sums.clear();
  sums.add(sum);
  return false;
}
