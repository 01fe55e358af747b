/**
 * Recording where the words of an image come from while it is made of a state.
 *
 * @module
 */
import { ImageBuffer } from "../svm/image_buffer.ts";
import type { PathWriter } from "./path_writer.ts";
import { Program } from "./program.ts";
import type { Shadow } from "./shadow.ts";
import { FOLLOWS, type Words } from "./words.ts";

/** Follows one image at a time. */
export class ImageRecorder {
  /** Memory that the image is being made in, and where each word comes from. */
  #image: Uint32Array | undefined;
  #origin: Int32Array = new Int32Array(0);
  readonly #origins = new Map<number, Int32Array>();
  readonly #copies = new Program();
  readonly #buffers = new Map<number, ImageBuffer>();

  /** There is no image. */
  clear(): void {
    this.#image = undefined;
  }

  /** Memory for an image of a size. */
  buffer(size: number): ImageBuffer {
    let buffer = this.#buffers.get(size);
    if (buffer === undefined) this.#buffers.set(size, buffer = new ImageBuffer(size));
    return buffer;
  }

  /** Words of an image become copies of words of the state, all by their numbers. */
  copy(to: Uint32Array, at: number, state: Words, from: number, count: number): void {
    const origin = this.#originsIn(to);
    for (let i = 0; i < count; i++) origin[at + i] = state.from(from + i);
  }

  /** A word of an image becomes something that follows from guards. */
  set(to: Uint32Array, at: number): void {
    this.#originsIn(to)[at] = FOLLOWS;
  }

  /**
   * Takes the image that was made.
   *
   * @param shadow What is known of the words that it comes from.
   * @param writer Who numbers those that are carried.
   * @returns Where the writer has put it down; -1 where none was made.
   */
  take(shadow: Shadow, writer: PathWriter): number {
    const image = this.#image, origin = this.#origin, copies = this.#copies;
    if (image === undefined) return -1;
    this.#image = undefined;
    copies.clear();
    for (let word = 0; word < origin.length; word++) {
      const from = origin[word] as number;
      if (from === FOLLOWS || shadow.guarded(from) !== undefined) continue;
      copies.push(word);
      copies.push(writer.slot(from));
    }
    return writer.image(image, copies);
  }

  /** Where the words of an image come from; it is the only one that is being made. */
  #originsIn(to: Uint32Array): Int32Array {
    if (this.#image !== to) {
      this.#image = to;
      const { length } = to;
      let origin = this.#origins.get(length);
      if (origin === undefined) this.#origins.set(length, origin = new Int32Array(length));
      this.#origin = origin.fill(FOLLOWS);
    }
    return this.#origin;
  }
}
