/**
 * Pieces of memory, each kept once however often it is met.
 *
 * @module
 */
import { Buffer } from "node:buffer";
import { crc32 } from "node:zlib";

/** Keeps copies of byte arrays; equal ones have one number. */
export class PageStore {
  /** Bytes that are kept. */
  size = 0;
  readonly #pages: Uint8Array[] = [new Uint8Array(0)];
  /** For each piece, another one with the same checksum, or 0. */
  readonly #next: number[] = [0];
  readonly #first = new Map<number, number>();

  /**
   * The number of a piece; a copy is kept when there is none like it.
   *
   * @param bytes The piece.
   * @returns Its number, from 1: the same for the same bytes, and only for them.
   */
  intern(bytes: Uint8Array): number {
    const sum = crc32(bytes);
    const first = this.#first.get(sum) ?? 0;
    for (let id = first; id !== 0; id = this.#next[id] as number) {
      // The checksum only finds it: what counts is that the bytes are the same.
      if (Buffer.compare(this.#pages[id] as Uint8Array, bytes) === 0) return id;
    }
    const id = this.#pages.length;
    this.#pages.push(bytes.slice());
    this.#next.push(first);
    this.#first.set(sum, id);
    this.size += bytes.length;
    return id;
  }

  /** The piece with a number; not to be changed. */
  get(id: number): Uint8Array {
    return this.#pages[id] as Uint8Array;
  }

  /** Forgets everything; numbers given out before mean nothing any more. */
  clear(): void {
    this.#pages.length = 1;
    this.#next.length = 1;
    this.#first.clear();
    this.size = 0;
  }
}
