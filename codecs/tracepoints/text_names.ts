/**
 * Names in a line, and what is around a record's text.
 *
 * @module
 */
import type { Buffer } from "node:buffer";

const SPACE = 0x20, LESS = 0x3c, MORE = 0x3e;

/** Whether a record's text goes on with another one, of which the end of the line got lost. */
export function holdsAnother(bytes: Buffer, start: number, end: number): boolean {
  return /[\s:]kvm_\w+: /.test(bytes.toString("latin1", start, end));
}

/** A name before a colon, as it stands in a cleaned line. */
export const NAMED = /(?<=^|[\s:])([A-Za-z_]\w*):/g;

/** The tracepoint whose text is no list of values. */
export const FREE = /(?:^|[\s:])kvm_nested_vmenter_failed:/;

/** Where the next byte that is no blank is. */
export function skipBlanks(bytes: Uint8Array, at: number, end: number): number {
  while (at < end && bytes[at] === SPACE) at++;
  return at;
}

/** Whether a byte may be in a name. */
export function isName(c: number): boolean {
  return c === 0x5f || (c >= 0x61 && c <= 0x7a) || (c >= 0x30 && c <= 0x39) ||
    (c >= 0x41 && c <= 0x5a);
}

/** Where a name ends. */
export function endOfName(bytes: Uint8Array, at: number, end: number): number {
  while (at < end && isName(bytes[at]!)) at++;
  return at;
}

/** Length of what libtraceevent's plugin leaves behind when it gives up on a record. */
export function missingFields(bytes: Buffer, at: number, end: number): number {
  if (bytes[at] !== LESS || bytes.toString("latin1", at, at + 16) !== "<CANT FIND FIELD") return 0;
  let from = at;
  while (from < end && bytes[from] === LESS) {
    const close = bytes.indexOf(MORE, from);
    if (close < 0 || close >= end) break;
    from = skipBlanks(bytes, close + 1, end);
  }
  return from - at;
}
