/**
 * Bytes as hexadecimal digits, in runtimes that have no `Uint8Array.prototype.toHex` too: Node
 * before 25.
 *
 * @module
 */
import { Buffer } from "node:buffer";

/**
 * Bytes as text, two digits a byte.
 *
 * @param bytes The bytes.
 * @returns Their digits.
 * @example
 * ```ts
 * import { hexOf } from "@vmtape/vmtape/engine";
 * if (hexOf(Uint8Array.of(0x0f, 0x01, 0xd8)) !== "0f01d8") throw new Error();
 * ```
 */
export function hexOf(bytes: Uint8Array): string {
  if (typeof bytes.toHex === "function") return bytes.toHex();
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("hex");
}

/**
 * What {@linkcode hexOf} was given.
 *
 * @param text Pairs of digits.
 * @returns The bytes.
 * @throws {SyntaxError} When it is anything else.
 * @example
 * ```ts
 * import { bytesOfHex } from "@vmtape/vmtape/engine";
 * if (bytesOfHex("0f01d8")[2] !== 0xd8) throw new Error();
 * ```
 */
export function bytesOfHex(text: string): Uint8Array<ArrayBuffer> {
  if (!/^(?:[0-9a-f]{2})*$/i.test(text)) throw new SyntaxError("These are no pairs of digits");
  return Uint8Array.from(Buffer.from(text, "hex"));
}
