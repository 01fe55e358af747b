/**
 * Pieces of memory, each kept once however often it is met.
 *
 * @module
 */
import { Buffer } from "node:buffer";
import { crc32 } from "node:zlib";

/** Bytes that are asked for at once. */
const SLAB = 1 << 20;
/** Copies begin where a line of the cache does: comparing them takes fewer lines then. */
const ALIGN = 64;

/** Keeps copies of byte arrays; equal ones have one number. */
export class PageStore {
  /** Bytes that are kept. */
  size = 0;
  // Memory for the copies, used again after all were forgotten: returning it to the garbage
  // collector and asking for it anew would cost more than what is put there.
  readonly #slabs: Uint8Array[] = [];
  #slab = 0;
  #at = 0;
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
    this.#pages.push(this.#copy(bytes));
    this.#next.push(first);
    this.#first.set(sum, id);
    this.size += bytes.length;
    return id;
  }

  #copy(bytes: Uint8Array): Uint8Array {
    if (bytes.length > SLAB) return bytes.slice();
    if (this.#at + bytes.length > SLAB) {
      this.#slab++;
      this.#at = 0;
    }
    const slab = this.#slabs[this.#slab] ??= new Uint8Array(SLAB);
    const copy = slab.subarray(this.#at, this.#at + bytes.length);
    this.#at += (bytes.length + ALIGN - 1) & -ALIGN;
    copy.set(bytes);
    return copy;
  }

  /** The piece with a number; not to be changed, and valid until all are forgotten. */
  get(id: number): Uint8Array {
    return this.#pages[id] as Uint8Array;
  }

  /** Forgets everything; numbers and pieces given out before mean nothing any more. */
  clear(): void {
    this.#slab = this.#at = 0;
    this.#pages.length = 1;
    this.#next.length = 1;
    this.#first.clear();
    this.size = 0;
  }
}
