/**
 * Checksums of states, to see that one comes again.
 *
 * @module
 */
import { crc32 } from "node:zlib";
import { RunningDigest } from "../svm/digest.ts";
import { type Machine, MACHINE_SIZE, MAPPED_AT } from "../svm/machine.ts";

/** States that are remembered at most. */
const MOST = 1 << 12;

/** States that were seen, each by its digest. */
export class StateSums {
  readonly #seen = new Set<number>();
  readonly #digest = new RunningDigest();

  /**
   * Whether a state was seen before; it is seen now.
   *
   * @param m The machine; what is neither in its bytes nor in memory does not count.
   * @param given Whether the work area belongs to its state.
   */
  seen(m: Machine, given: boolean): boolean {
    const seen = this.#seen, digest = this.#digest;
    digest.value = given ? crc32(m.bytes.subarray(MAPPED_AT, MACHINE_SIZE)) : 0;
    digest.add(m);
    if (seen.has(digest.value)) return true;
    if (seen.size === MOST) seen.clear();
    seen.add(digest.value);
    return false;
  }
}
