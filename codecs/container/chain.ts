/**
 * What comes before a place in a trace, in few bytes: checkpoints are bound to it.
 *
 * @module
 */
import { createHash } from "node:crypto";
import { Buffer } from "node:buffer";
import type { BlockHead } from "./block.ts";
import { BLOCK, CHAIN_SIZE } from "./format.ts";

/** The digest over the events blocks from the first on, by what their headers say of their content. */
export class BlockChain {
  readonly #hash = createHash("sha256");
  readonly #words = new Uint32Array(4);

  /** Goes on behind the next block; blocks without events do not count. */
  add({ type, contentCrc, storedSize, rawSize, events }: BlockHead): void {
    if (type !== BLOCK.events) return;
    const bytes = new DataView(this.#words.buffer);
    [contentCrc, storedSize, rawSize, events].forEach((word, i) =>
      bytes.setUint32(4 * i, word, true)
    );
    this.#hash.update(new Uint8Array(this.#words.buffer));
  }

  /** The digest of what comes before this place. */
  get digest(): Uint8Array {
    return new Uint8Array(this.#hash.copy().digest().subarray(0, CHAIN_SIZE));
  }
}

/** Whether two digests are the same. */
export function sameDigest(a: Uint8Array, b: Uint8Array): boolean {
  return Buffer.compare(a, b) === 0;
}
