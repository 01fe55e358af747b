/**
 * Writing the wire format of protocol buffers: fields with varints and with bytes.
 *
 * @module
 */
const VARINT = 0, BYTES = 2;
const encoder = new TextEncoder();

/** A message, field by field. */
export class ProtobufMessage {
  #bytes = new Uint8Array(64);
  #length = 0;

  /** Its bytes so far; valid until it is changed. */
  get bytes(): Uint8Array<ArrayBuffer> {
    return this.#bytes.subarray(0, this.#length);
  }

  /** Empties it, to be used again. */
  clear(): void {
    this.#length = 0;
  }

  /**
   * Appends an unsigned number.
   *
   * @param field Number of the field.
   * @param value Its value, not negative, an integer.
   */
  uint(field: number, value: number | bigint): this {
    this.#varint(field * 8 + VARINT);
    this.#varint(value);
    return this;
  }

  /** Appends bytes, or a message within this one. */
  raw(field: number, bytes: Uint8Array): this {
    this.#varint(field * 8 + BYTES);
    this.#varint(bytes.length);
    this.#room(bytes.length);
    this.#bytes.set(bytes, this.#length);
    this.#length += bytes.length;
    return this;
  }

  /** Appends a text. */
  text(field: number, text: string): this {
    return this.raw(field, encoder.encode(text));
  }

  #room(bytes: number): void {
    if (this.#length + bytes <= this.#bytes.length) return;
    const more = new Uint8Array(2 * (this.#length + bytes));
    more.set(this.bytes);
    this.#bytes = more;
  }

  #varint(value: number | bigint): void {
    this.#room(10);
    // Numbers up to 2^53 are divided: shifts would cut them to 32 bits.
    if (typeof value === "bigint" && value > Number.MAX_SAFE_INTEGER) {
      for (; value > 0x7fn; value >>= 7n) {
        this.#bytes[this.#length++] = Number(value & 0x7fn) | 0x80;
      }
    }
    let rest = Number(value);
    for (; rest > 0x7f; rest = Math.floor(rest / 128)) {
      this.#bytes[this.#length++] = rest % 128 | 0x80;
    }
    this.#bytes[this.#length++] = rest;
  }
}
