/**
 * Framing of the GDB remote serial protocol: `$data#checksum`, its escapes and
 * its run-length compression. Pure; the connection is the client's.
 *
 * @module
 */
import { VmtapeError } from "../../engine/error.ts";

import { Buffer } from "node:buffer";

const DOLLAR = 0x24, HASH = 0x23, ESCAPE = 0x7d, REPEAT = 0x2a, PLUS = 0x2b, MINUS = 0x2d;

/** Longest packet accepted, as sent and with its repetitions undone: far above QEMU's, so that only garbage exceeds it. */
const MAX_PACKET = 1 << 20;

/** What can be wrong when talking to a GDB stub. */
export type GdbErrorCode =
  /** Nobody listens at the address. */
  | "refused"
  /** The other side hung up. */
  | "closed"
  /** No answer in time. */
  | "timeout"
  /** What came back is not the GDB remote protocol. */
  | "protocol"
  /** The stub answered with an error or does not know the request. */
  | "remote";

/**
 * A conversation with a GDB stub went wrong; `code` says how.
 *
 * @example
 * ```ts
 * import { GdbError } from "@vmtape/vmtape/traces";
 * const error = new GdbError("closed", "The GDB stub closed the connection");
 * if (error.code !== "closed" || error.name !== "GdbError") throw error;
 * ```
 */
export class GdbError extends VmtapeError {
  /** Name of the class. */
  override readonly name = "GdbError";
  /** What kind of trouble it is. */
  readonly code: GdbErrorCode;

  /**
   * A trouble of one kind.
   *
   * @param code What kind of trouble it is.
   * @param message What happened, where, and what to do next.
   * @param options The error behind it, where there is one.
   */
  constructor(code: GdbErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

/**
 * Text of a packet, one character a byte.
 *
 * @param bytes Payload of a packet.
 * @returns The same as text.
 * @example
 * ```ts
 * import { gdbText } from "@vmtape/vmtape/traces";
 * if (gdbText(Uint8Array.of(0x4f, 0x4b)) !== "OK") throw new Error();
 * ```
 */
export function gdbText(bytes: Uint8Array): string {
  // TextDecoder takes latin1 for windows-1252, which changes 27 bytes.
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("latin1");
}

/**
 * What a stub said, for a message: in quotation marks, short, and harmless to a terminal.
 *
 * @param text What it said, one character a byte.
 * @returns The quotation.
 * @example
 * ```ts
 * import { quoted } from "@vmtape/vmtape/traces";
 * if (quoted("a\x1b[0m") !== `"a\\u001b[0m"`) throw new Error();
 * ```
 */
export function quoted(text: string): string {
  const short = text.length > 40 ? text.slice(0, 40) + "..." : text;
  return JSON.stringify(short).replace(
    /[\x7f-\x9f]/g,
    (c) => `\\x${c.charCodeAt(0).toString(16)}`,
  );
}

/**
 * A packet ready to send.
 *
 * @param payload ASCII text; `$`, `#`, `}` and `*` are escaped.
 * @returns `$payload#checksum`.
 * @example
 * ```ts
 * import { gdbPacket, gdbText } from "@vmtape/vmtape/traces";
 * if (gdbText(gdbPacket("g")) !== "$g#67") throw new Error();
 * ```
 */
export function gdbPacket(payload: string): Uint8Array {
  const escaped = payload.replace(
    /[$#}*]/g,
    (c) => "}" + String.fromCharCode(c.charCodeAt(0) ^ 0x20),
  );
  const out = new Uint8Array(escaped.length + 4);
  let sum = 0;
  out[0] = DOLLAR;
  for (let i = 0; i < escaped.length; i++) sum += out[i + 1] = escaped.charCodeAt(i);
  out[escaped.length + 1] = HASH;
  const hex = (sum & 0xff).toString(16).padStart(2, "0");
  out[escaped.length + 2] = hex.charCodeAt(0);
  out[escaped.length + 3] = hex.charCodeAt(1);
  return out;
}

/**
 * Takes the payload of a packet apart: `}` escapes a byte, `*` repeats the one
 * before it.
 *
 * @param raw Bytes between `$` and `#`.
 * @returns The payload.
 * @throws {GdbError} `protocol`, when an escape or a repetition has nothing to act on, or the payload is longer than a megabyte.
 * @example
 * ```ts
 * import { gdbText, gdbUnescape } from "@vmtape/vmtape/traces";
 * const raw = new TextEncoder().encode("0* ");
 * if (gdbText(gdbUnescape(raw)) !== "0000") throw new Error();
 * ```
 */
export function gdbUnescape(raw: Uint8Array): Uint8Array {
  if (!raw.includes(ESCAPE) && !raw.includes(REPEAT)) return raw;
  const out = new Uint8Array(unescapedLength(raw));
  let length = 0;
  for (let i = 0; i < raw.length; i++) {
    const byte = raw[i]!;
    if (byte === ESCAPE) {
      out[length++] = raw[++i]! ^ 0x20;
    } else if (byte === REPEAT) {
      const end = length + raw[++i]! - 29;
      out.fill(out[length - 1]!, length, end);
      length = end;
    } else {
      out[length++] = byte;
    }
  }
  return out;
}

/** Length of a payload with its escapes undone: known, and bounded, before anything is put anywhere. */
function unescapedLength(raw: Uint8Array): number {
  let length = 0;
  for (let i = 0; i < raw.length; i++) {
    const byte = raw[i]!;
    const next = byte === ESCAPE || byte === REPEAT ? raw[++i] : byte;
    if (next === undefined || (byte === REPEAT && (length === 0 || next < 29))) {
      throw new GdbError("protocol", "A packet of the GDB stub ends inside an escape");
    }
    length += byte === REPEAT ? next - 29 : 1;
    if (length > MAX_PACKET) {
      throw new GdbError("protocol", "Not a GDB stub: a packet of it is longer than a megabyte");
    }
  }
  return length;
}

/** What {@linkcode GdbFramer.next} finds. */
export interface GdbFrame {
  /** Payload, escapes undone. */
  readonly payload: Uint8Array;
  /** Whether the checksum is right. */
  readonly intact: boolean;
}

/**
 * Cuts the bytes of a connection into packets.
 *
 * @example
 * ```ts
 * import { GdbFramer, gdbText } from "@vmtape/vmtape/traces";
 * const framer = new GdbFramer();
 * framer.push(new TextEncoder().encode("+$OK#9"));
 * if (framer.next() !== undefined) throw new Error();
 * framer.push(new TextEncoder().encode("a"));
 * if (gdbText(framer.next()!.payload) !== "OK") throw new Error();
 * ```
 */
export class GdbFramer {
  #bytes = new Uint8Array(8192);
  #start = 0;
  #end = 0;

  /**
   * Adds bytes as they arrived.
   *
   * @param chunk The bytes; they are copied.
   */
  push(chunk: Uint8Array): void {
    if (this.#end + chunk.length > this.#bytes.length) {
      const held = this.#bytes.subarray(this.#start, this.#end);
      const need = held.length + chunk.length;
      const room = need > this.#bytes.length ? new Uint8Array(need * 2) : this.#bytes;
      room.set(held);
      this.#bytes = room;
      this.#end = held.length;
      this.#start = 0;
    }
    this.#bytes.set(chunk, this.#end);
    this.#end += chunk.length;
  }

  /**
   * The next packet; acknowledgements are passed over.
   *
   * @returns The packet, or undefined until more bytes arrive.
   * @throws {GdbError} `protocol`, at anything that is neither.
   */
  next(): GdbFrame | undefined {
    const bytes = this.#bytes;
    while (this.#start < this.#end) {
      const first = bytes[this.#start]!;
      if (first === PLUS || first === MINUS) {
        this.#start++;
        continue;
      }
      if (first !== DOLLAR) {
        const seen = gdbText(bytes.subarray(this.#start, Math.min(this.#end, this.#start + 24)));
        throw new GdbError(
          "protocol",
          `Not a GDB stub: it says ${quoted(seen)}; give the address of QEMU's -gdb option`,
        );
      }
      const hash = bytes.subarray(0, this.#end).indexOf(HASH, this.#start);
      if (hash < 0 && this.#end - this.#start > MAX_PACKET) {
        throw new GdbError("protocol", "Not a GDB stub: a packet of it does not end");
      }
      if (hash < 0 || hash + 2 >= this.#end) return undefined;
      const raw = bytes.slice(this.#start + 1, hash);
      this.#start = hash + 3;
      let sum = 0;
      for (const byte of raw) sum += byte;
      const said = parseInt(gdbText(bytes.subarray(hash + 1, hash + 3)), 16);
      const intact = said === (sum & 0xff);
      return { payload: intact ? gdbUnescape(raw) : raw, intact };
    }
    return undefined;
  }
}
