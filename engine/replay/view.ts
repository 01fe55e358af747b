/**
 * Filling an image from a vCPU as the rows of its layout say.
 *
 * @module
 */
import type { Vcpu } from "../kvm/vcpu.ts";
import type { Getter, ViewField, Whereabouts } from "../svm/view_source.ts";

/** Memory for an image, to be filled again and again. */
export class ImageBuffer {
  /** The bytes. */
  readonly bytes: Uint8Array;
  /** The same as 32-bit words. */
  readonly words: Uint32Array;

  /**
   * Makes memory that is all zero.
   *
   * @param size Bytes, a multiple of 4.
   * @example
   * ```ts
   * import { ImageBuffer, INNER_SIZE, innerBytes, UPSTREAM, Vcpu } from "@vmtape/vmtape/engine";
   * const v = new Vcpu({ physicalBits: 40, npt: true, memory: 1 << 24 }, UPSTREAM);
   * const buffer = new ImageBuffer(INNER_SIZE);
   * if (innerBytes(v, 1, buffer) !== buffer.bytes || buffer.words[0] !== 1) throw new Error();
   * ```
   */
  constructor(size: number) {
    this.words = new Uint32Array(size / 4);
    this.bytes = new Uint8Array(this.words.buffer);
  }
}

/** Bytes that are copied together: offsets of whole 32-bit words where both allow it. */
interface Copy {
  readonly to: number;
  readonly from: number;
  size: number;
}

/** Bytes behind a place that depends on the state. */
interface Follow extends Copy {
  readonly what: Whereabouts;
  readonly where: (v: Vcpu) => number;
}

interface Get {
  readonly to: number;
  readonly size: number;
  readonly get: (v: Vcpu) => number;
}

/** Appends to the last stretch if it goes on there. */
function extend<T extends Copy>(list: T[], next: T, same: (last: T) => boolean): void {
  const last = list.at(-1);
  const follows = last !== undefined && same(last) && last.to + last.size === next.to &&
    last.from + last.size === next.from;
  if (follows) last.size += next.size;
  else list.push(next);
}

/** A view of a vCPU, compiled from the rows of its layout. */
export class View {
  readonly #words: Int32Array;
  readonly #bytes: readonly Copy[];
  readonly #follows: readonly Follow[];
  readonly #gets: readonly Get[];

  /**
   * Compiles a view.
   *
   * @param fields Its rows.
   * @param whereabouts What lies elsewhere depending on the state: the offset, or -1 for nowhere.
   * @param getters What is computed.
   */
  constructor(
    fields: readonly ViewField[],
    whereabouts: Readonly<Record<Whereabouts, (v: Vcpu) => number>>,
    getters: Readonly<Record<Getter, (v: Vcpu) => number>>,
  ) {
    const copies: Copy[] = [];
    const follows: Follow[] = [];
    const gets: Get[] = [];
    const follow = (to: number, size: number, what: Whereabouts, from: number) =>
      extend(
        follows,
        { to, size, what, from, where: whereabouts[what] },
        (last) => last.what === what,
      );
    for (const { offset: to, size, from } of fields) {
      switch (from.kind) {
        case "copy":
          extend(copies, { to, size, from: from.at }, () => true);
          break;
        case "follow":
          follow(to, size, from.what, from.plus);
          break;
        case "mixed":
          follow(to, size, from.what, 0);
          gets.push({ to, size: 4, get: getters[from.low] });
          break;
        case "get":
          gets.push({ to, size, get: getters[from.getter] });
          break;
      }
    }
    const whole = ({ to, from, size }: Copy) => (to | from | size) % 4 === 0;
    const words: number[] = [];
    for (const { to, from, size } of copies.filter(whole)) {
      for (let i = 0; i < size; i += 4) words.push((to + i) >> 2, (from + i) >> 2);
    }
    this.#words = Int32Array.from(words);
    this.#bytes = copies.filter((copy) => !whole(copy));
    this.#follows = follows;
    this.#gets = gets;
  }

  /**
   * Fills an image.
   *
   * @param v The vCPU.
   * @param into The image.
   */
  fill(v: Vcpu, { bytes, words }: ImageBuffer): void {
    const pairs = this.#words, from = v.words;
    for (let i = 0; i < pairs.length; i += 2) {
      words[pairs[i] as number] = from[pairs[i + 1] as number] as number;
    }
    const copies = this.#bytes;
    for (let i = 0; i < copies.length; i++) {
      const { to, from, size } = copies[i] as Copy;
      for (let k = 0; k < size; k++) bytes[to + k] = v.bytes[from + k] as number;
    }
    const follows = this.#follows;
    for (let i = 0; i < follows.length; i++) {
      const { to, from, size, where } = follows[i] as Follow;
      const at = where(v);
      const first = to >> 2, count = size >> 2, source = (at + from) >> 2;
      for (let k = 0; k < count; k++) {
        words[first + k] = at < 0 ? 0 : v.words[source + k] as number;
      }
    }
    const gets = this.#gets;
    for (let i = 0; i < gets.length; i++) {
      const { to, size, get } = gets[i] as Get;
      if (size === 4) words[to >> 2] = get(v);
      else bytes[to] = get(v);
    }
  }
}
