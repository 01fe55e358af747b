/**
 * Which breakpoints the guest holds. Changes go out with the next thing that is
 * sent, and nobody waits for each of them: a round trip costs as much as a read.
 *
 * @module
 */
import type { GdbClient } from "./gdb_client.ts";

/** The breakpoints of one guest; each is by linear address, and holds for all vCPUs. */
export class Breakpoints {
  readonly #gdb: GdbClient;
  readonly #set = new Set<bigint>();
  #sent: Promise<void>[] = [];

  /** @param gdb Client of the guest. */
  constructor(gdb: GdbClient) {
    this.#gdb = gdb;
  }

  /**
   * @param linear Linear address.
   * @returns Whether a breakpoint is there.
   */
  has(linear: bigint): boolean {
    return this.#set.has(linear);
  }

  /** @param linear Linear address at which vCPUs are to stop; the guest must be stopped. */
  set(linear: bigint): void {
    if (this.#set.has(linear)) return;
    this.#set.add(linear);
    this.#send(this.#gdb.insertBreakpoint(linear));
  }

  /** @param linear Linear address at which none is to stop any more; the guest must be stopped. */
  clear(linear: bigint): void {
    if (this.#set.delete(linear)) this.#send(this.#gdb.removeBreakpoint(linear));
  }

  /**
   * Waits for the stub to have made all changes.
   *
   * @throws {GdbError} As it answered to the first that it did not make.
   */
  async settled(): Promise<void> {
    await Promise.all(this.#sent.splice(0));
  }

  #send(change: Promise<void>): void {
    // It is looked at in settled(); until then a refusal is nobody's surprise.
    change.catch(() => {});
    this.#sent.push(change);
  }
}
