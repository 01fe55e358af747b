/**
 * A short digest of all modelled state, to tell two replays apart.
 *
 * @module
 */
import { crc32 } from "node:zlib";
import { type CrcShift, crcShift, joinCrc, shiftCrc } from "./crc.ts";
import { type Machine, STATE_SIZE } from "./machine.ts";
import { type GuestMemory, PAGE_SIZE } from "./memory.ts";

/**
 * Digest of a vCPU and its guest memory, folded into an earlier one.
 *
 * @param v The vCPU.
 * @param seed The earlier digest, 0 for none.
 * @returns 32 bits.
 * @example
 * ```ts
 * import { stateDigest, UPSTREAM, V, Vcpu } from "@vmtape/vmtape/engine";
 * const v = new Vcpu({ physicalBits: 40, npt: true, memory: 1 << 24 }, UPSTREAM);
 * const before = stateDigest(v);
 * v.set64(V.rip, 0x1000n);
 * if (stateDigest(v) === before || stateDigest(v.fork(UPSTREAM)) !== stateDigest(v)) throw new Error();
 * ```
 */
export function stateDigest(v: Machine, seed = 0): number {
  return crc32(v.bytes.subarray(0, STATE_SIZE), seed);
}

/**
 * Digest of guest memory: every page that was written, with its number.
 *
 * @param v The vCPU.
 * @param seed The earlier digest, 0 for none.
 * @returns 32 bits.
 * @example
 * ```ts
 * import { memoryDigest, UPSTREAM, Vcpu } from "@vmtape/vmtape/engine";
 * const v = new Vcpu({ physicalBits: 40, npt: true, memory: 1 << 24 }, UPSTREAM);
 * const copy = v.fork(UPSTREAM);
 * copy.memory.write8(0x1000, 0xf4);
 * if (memoryDigest(v) !== 0 || memoryDigest(copy) === 0) throw new Error();
 * ```
 */
export function memoryDigest(v: Machine, seed = 0): number {
  const number = new Uint32Array(1);
  const bytes = new Uint8Array(number.buffer);
  let digest = seed;
  for (const page of v.memory.pages()) {
    number[0] = page;
    digest = crc32(v.memory.page(page * PAGE_SIZE), crc32(bytes, digest));
  }
  return digest;
}

/** Bytes that a page of memory adds: its number and itself. */
const PAGE_BYTES = 4 + PAGE_SIZE;

/** What 1, 2, 4, ... pages that follow do to a CRC-32, as far as that was asked for. */
const behind: CrcShift[] = [];

/** What pages that follow do to a CRC-32, signed. */
function shiftByPages(pages: number, crc: number): number {
  let shifted = crc;
  for (let power = 0, rest = pages; rest !== 0; power++, rest >>>= 1) {
    if ((rest & 1) === 0) continue;
    const shift = behind[power] ??= crcShift(PAGE_BYTES * 2 ** power);
    shifted = shiftCrc(shift, shifted);
  }
  return shifted;
}

/**
 * The digest of a sequence of states: that of {@linkcode stateDigest} and
 * {@linkcode memoryDigest} of one after the other. Of a page that nobody wrote since the
 * state before, the CRC-32 is known.
 *
 * @example
 * ```ts
 * import { Driver, memoryDigest, RunningDigest, stateDigest, UPSTREAM, type Vcpu } from "@vmtape/vmtape/engine";
 * const driver = new Driver(UPSTREAM);
 * driver.feed({ kind: "memory", vcpu: 0, gpa: 0n, data: { bytes: new Uint8Array(4096) } }, 0);
 * const v = driver.vcpu as Vcpu;
 * const digest = new RunningDigest();
 * digest.add(v);
 * if (digest.value !== memoryDigest(v, stateDigest(v))) throw new Error();
 * ```
 */
export class RunningDigest {
  /** The digest so far. */
  value = 0;
  /** Bytes it is over. */
  length = 0;
  #memory: GuestMemory | undefined;
  #versions = new Float64Array(0);
  #crcs = new Int32Array(0);
  /** Numbers of what pages held, where they are known; 0 where they are not. */
  #contents = new Float64Array(0);
  /** The pages that there were, how many, and the CRC-32 of them all. */
  #pages: readonly number[] | undefined;
  #count = 0;
  #all = 0;
  /** For each page the CRC-32 of its number, where it is known; 0 where it is not. */
  #numbers = new Uint32Array(0);
  /** The state that was added last: its buffer, and the part of it that counts. */
  #buffer: Uint8Array | undefined;
  #state: Uint8Array = new Uint8Array(0);

  /**
   * Adds the state of a vCPU and its guest memory.
   *
   * @param v The vCPU.
   */
  add(v: Machine): void {
    const { memory } = v;
    if (memory !== this.#memory) this.#begin(memory);
    if (v.bytes !== this.#buffer) {
      this.#buffer = v.bytes;
      this.#state = v.bytes.subarray(0, STATE_SIZE);
    }
    const digest = crc32(this.#state, this.value);
    const pages = memory.pages();
    if (pages !== this.#pages || pages.length !== this.#count) this.#list(pages);
    const { length } = pages, versions = this.#versions;
    for (let i = 0; i < length; i++) {
      const page = pages[i] as number;
      const version = memory.versions[page] as number;
      if (versions[page] === version) continue;
      versions[page] = version;
      if (this.#same(page)) continue;
      const crc = crc32(memory.page(page * PAGE_SIZE), this.#numberOf(page)) | 0;
      // CRC-32 is linear: what one page adds can be changed by itself.
      this.#all ^= shiftByPages(length - 1 - i, crc ^ (this.#crcs[page] as number));
      this.#crcs[page] = crc;
    }
    this.value = (shiftByPages(length, digest) ^ this.#all) >>> 0;
    this.length += STATE_SIZE + length * PAGE_BYTES;
  }

  /** Whether a page is known to hold what it held when it was looked at last. */
  #same(page: number): boolean {
    const content = (this.#memory as GuestMemory).contentOf(page);
    const same = content !== 0 && this.#contents[page] === content;
    this.#contents[page] = content;
    return same;
  }

  /** Takes up the pages that there are, as they were when they were looked at last. */
  #list(pages: readonly number[]): void {
    this.#pages = pages;
    this.#count = pages.length;
    this.#all = 0;
    for (const page of pages) {
      this.#all = shiftByPages(1, this.#all) ^ (this.#crcs[page] as number);
    }
  }

  /** CRC-32 of a page's number. */
  #numberOf(page: number): number {
    const known = this.#numbers[page] as number;
    return known !== 0
      ? known
      : this.#numbers[page] = crc32(new Uint8Array(Uint32Array.of(page).buffer));
  }

  #begin(memory: GuestMemory): void {
    this.#memory = memory;
    this.#pages = undefined;
    this.#contents = new Float64Array(memory.versions.length);
    // -1: not looked at yet.
    this.#versions = new Float64Array(memory.versions.length).fill(-1);
    this.#crcs = new Int32Array(memory.versions.length);
    this.#numbers = new Uint32Array(memory.versions.length);
  }
}

/**
 * The digest of two sequences of states, one after the other.
 *
 * @param a Digest of the first.
 * @param b Digest of the second.
 * @param length Bytes that the second is over.
 * @returns Their digest.
 */
export function joinDigests(a: number, b: number, length: number): number {
  return joinCrc(a, b, length);
}
