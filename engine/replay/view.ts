/**
 * Filling an image from a vCPU as the rows of its layout say.
 *
 * @module
 */
import type { Vcpu } from "../kvm/vcpu.ts";
import type { ImageBuffer } from "../svm/image_buffer.ts";
import type { Getter, ViewField, Whereabouts } from "../svm/view_source.ts";

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
  /** Stretches of whole words: to, from and length of each. */
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
    this.#words = Int32Array.from(
      copies.filter(whole).flatMap(({ to, from, size }) => [to >> 2, from >> 2, size >> 2]),
    );
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
    const stretches = this.#words;
    for (let i = 0; i < stretches.length; i += 3) {
      v.copyOut(
        words,
        stretches[i] as number,
        stretches[i + 1] as number,
        stretches[i + 2] as number,
      );
    }
    const copies = this.#bytes;
    for (let i = 0; i < copies.length; i++) {
      const { to, from, size } = copies[i] as Copy;
      for (let k = 0; k < size; k++) bytes[to + k] = v.u8(from + k);
    }
    const follows = this.#follows;
    for (let i = 0; i < follows.length; i++) {
      const { to, from, size, where } = follows[i] as Follow;
      const at = where(v);
      const first = to >> 2, count = size >> 2;
      if (at >= 0) v.copyOut(words, first, (at + from) >> 2, count);
      else for (let k = 0; k < count; k++) v.setOut(words, first + k, 0);
    }
    const gets = this.#gets;
    for (let i = 0; i < gets.length; i++) {
      const { to, size, get } = gets[i] as Get;
      if (size === 4) v.setOut(words, to >> 2, get(v));
      else bytes[to] = get(v);
    }
  }
}
