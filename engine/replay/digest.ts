/**
 * A short digest of all modelled state, to tell two replays apart.
 *
 * @module
 */
import { crc32 } from "node:zlib";
import { STATE_SIZE } from "../svm/machine.ts";
import { PAGE_SIZE } from "../svm/memory.ts";
import type { Vcpu } from "../kvm/vcpu.ts";

/**
 * Digest of a vCPU and its guest memory, folded into an earlier one.
 *
 * @param v The vCPU.
 * @param seed The earlier digest, 0 for none.
 * @returns 32 bits.
 */
export function stateDigest(v: Vcpu, seed = 0): number {
  return crc32(v.bytes.subarray(0, STATE_SIZE), seed);
}

/**
 * Digest of guest memory: every page that was written, with its number.
 *
 * @param v The vCPU.
 * @param seed The earlier digest, 0 for none.
 * @returns 32 bits.
 */
export function memoryDigest(v: Vcpu, seed = 0): number {
  const number = new Uint32Array(1);
  const bytes = new Uint8Array(number.buffer);
  let digest = seed;
  for (const page of v.memory.pages()) {
    number[0] = page;
    digest = crc32(v.memory.page(page * PAGE_SIZE), crc32(bytes, digest));
  }
  return digest;
}

/** Eight hexadecimal digits each for registers and memory. */
export function formatDigest(state: number, memory: number): string {
  return state.toString(16).padStart(8, "0") + memory.toString(16).padStart(8, "0");
}
