/**
 * Bytes as they come, taken in pieces of a wanted size.
 *
 * @module
 */
import { TraceError } from "../errors.ts";

/** Chunks of bytes from a file, a pipe or memory. */
export type Chunks = AsyncIterable<Uint8Array> | Iterable<Uint8Array>;

/** Collects chunks until enough is there. It holds no more than what was asked for and one chunk. */
export class ByteQueue {
  readonly #chunks: AsyncIterator<Uint8Array> | Iterator<Uint8Array>;
  #buffer: Uint8Array = new Uint8Array(0);
  /** Whether the buffer is a chunk as it came, which is not ours to write to. */
  #borrowed = true;
  #start = 0;
  #end = 0;
  #offset = 0;
  #ended = false;

  constructor(chunks: Chunks) {
    this.#chunks = Symbol.asyncIterator in chunks
      ? chunks[Symbol.asyncIterator]()
      : chunks[Symbol.iterator]();
  }

  /** How many bytes were taken. */
  get offset(): number {
    return this.#offset;
  }

  /**
   * The next bytes, without taking them; fewer at the end.
   *
   * @param size How many are wanted.
   * @returns A view, valid until the next call.
   */
  async peek(size: number): Promise<Uint8Array> {
    while (this.#end - this.#start < size && !this.#ended) {
      const { done, value } = await this.#chunks.next();
      if (done) this.#ended = true;
      else if (!(value instanceof Uint8Array)) {
        throw new TraceError(
          "input",
          "A trace's bytes come as a list or stream of Uint8Array; put one alone into a list: [bytes]",
        );
      } else this.#add(value);
    }
    return this.#buffer.subarray(this.#start, Math.min(this.#end, this.#start + size));
  }

  /** Takes bytes that were peeked at. */
  skip(size: number): void {
    this.#start += size;
    this.#offset += size;
  }

  /** Lets go of the source. */
  async close(): Promise<void> {
    this.#ended = true;
    await this.#chunks.return?.();
  }

  #add(chunk: Uint8Array): void {
    const held = this.#end - this.#start;
    if (held === 0) {
      this.#buffer = chunk;
      this.#borrowed = true;
      this.#start = 0;
      this.#end = chunk.length;
      return;
    }
    if (this.#borrowed || this.#end + chunk.length > this.#buffer.length) {
      const size = held + chunk.length;
      const target = this.#borrowed || size > this.#buffer.length || this.#buffer.length > 4 * size
        ? new Uint8Array(Math.max(65_536, 2 * size))
        : this.#buffer;
      this.#borrowed = false;
      target.set(this.#buffer.subarray(this.#start, this.#end));
      this.#buffer = target;
      this.#start = 0;
      this.#end = held;
    }
    this.#buffer.set(chunk, this.#end);
    this.#end += chunk.length;
  }
}
