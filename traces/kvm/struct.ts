/**
 * Reading and writing the structures of KVM's ioctls by their tables.
 *
 * @module
 */
import type { Field, Layout } from "../../engine/layout.ts";

/** A structure of the kernel's: bytes, and their fields by name. */
export class Struct<T extends readonly Field[] = readonly Field[]> {
  /** The bytes, and what follows the structure in memory. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly #view: DataView;
  readonly #fields = new Map<string, Field>();

  /**
   * @param layout Its table.
   * @param where Bytes that hold it, or how many to make: more than the table's where more follows.
   */
  constructor(
    layout: Layout & { readonly fields: T },
    where: number | Uint8Array<ArrayBuffer> = layout.size,
  ) {
    this.bytes = typeof where === "number" ? new Uint8Array(where) : where;
    const { buffer, byteOffset, length } = this.bytes;
    this.#view = new DataView(buffer, byteOffset, length);
    for (const field of layout.fields) this.#fields.set(field.name, field);
  }

  /** Value of a field of up to 8 bytes. */
  get(name: T[number]["name"]): bigint {
    const { offset, size } = this.#fields.get(name)!;
    return size === 8 ? this.#view.getBigUint64(offset, true) : BigInt(this.number(name));
  }

  /**
   * Value of a field of up to 4 bytes.
   *
   * @throws {RangeError} When it has more.
   */
  number(name: T[number]["name"]): number {
    const { offset, size } = this.#fields.get(name)!;
    switch (size) {
      case 1:
        return this.#view.getUint8(offset);
      case 2:
        return this.#view.getUint16(offset, true);
      case 4:
        return this.#view.getUint32(offset, true);
      default:
        throw new RangeError(`${name} does not fit a number`);
    }
  }

  /** Sets a field, whose size takes as much of the value as it holds. */
  set(name: T[number]["name"], value: bigint | number): void {
    const { offset, size } = this.#fields.get(name)!;
    if (size === 8) this.#view.setBigUint64(offset, BigInt.asUintN(64, BigInt(value)), true);
    else if (size === 4) this.#view.setUint32(offset, Number(value), true);
    else if (size === 2) this.#view.setUint16(offset, Number(value), true);
    else this.#view.setUint8(offset, Number(value));
  }

  /** The bytes of a field that is a structure itself. */
  part(name: T[number]["name"]): Uint8Array<ArrayBuffer> {
    const { offset, size } = this.#fields.get(name)!;
    return this.bytes.subarray(offset, offset + size);
  }
}
