/**
 * Reads the values out of a tracepoint's text, byte by byte: `key value` pairs
 * in whatever order and spelling the kernel or libtraceevent prints them.
 *
 * @module
 */
import { EXIT_REASON_CODES } from "./kvm_exit_reasons.ts";
import type { KvmRecord } from "./kvm_record.ts";
import { ISA_VMX, SLOT, type Slot, type SlotKind, SLOTS } from "./kvm_tracepoints.ts";

/** A set of words, looked up by their bytes. */
class Words<T> {
  readonly #mask: number;
  readonly #words: (Uint8Array | undefined)[];
  readonly #values: T[];

  constructor(words: Iterable<readonly [string, T]>) {
    const all = [...words];
    let size = 64;
    while (size < all.length * 4) size *= 2;
    this.#mask = size - 1;
    this.#words = new Array(size).fill(undefined);
    this.#values = new Array(size);
    for (const [word, value] of all) {
      const bytes = new TextEncoder().encode(word);
      let at = hashOf(bytes, 0, bytes.length) & this.#mask;
      while (this.#words[at] !== undefined) at = at + 1 & this.#mask;
      this.#words[at] = bytes;
      this.#values[at] = value;
    }
  }

  /** The value of a word, given its bytes and their hash. */
  find(bytes: Uint8Array, start: number, end: number, hash: number): T | undefined {
    for (let at = hash & this.#mask;; at = at + 1 & this.#mask) {
      const word = this.#words[at];
      if (word === undefined) return undefined;
      if (word.length !== end - start) continue;
      let i = 0;
      while (i < word.length && word[i] === bytes[start + i]) i++;
      if (i === word.length) return this.#values[at];
    }
  }
}

/** Hash of some bytes, as {@linkcode Words} wants it. */
function hashOf(bytes: Uint8Array, start: number, end: number): number {
  let hash = 0;
  for (let i = start; i < end; i++) hash = Math.imul(hash, 31) + bytes[i]! | 0;
  return hash;
}

/** A lookup by bytes, from a table by text. */
export function wordLookup<T>(
  words: Iterable<readonly [string, T]>,
): (bytes: Uint8Array, start: number, end: number) => T | undefined {
  const set = new Words(words);
  return (bytes, start, end) => set.find(bytes, start, end, hashOf(bytes, start, end));
}

const KEYS = new Words(
  SLOTS.flatMap((slot: Slot, index) => slot.keys.map((key) => [key, index] as const)),
);
const KINDS: readonly SlotKind[] = SLOTS.map((slot) => slot.kind);
const reasonNamed = wordLookup(EXIT_REASON_CODES);
const flagNamed = wordLookup([["y", 1], ["on", 1], ["n", 0], ["off", 0]]);
const BIT_ISA = 1 << SLOT.isa;

const SPACE = 0x20, COLON = 0x3a, EQUALS = 0x3d, COMMA = 0x2c, LESS = 0x3c, MORE = 0x3e;

/** Value of a hexadecimal digit by character, 255 for others. */
const DIGIT = new Uint8Array(256).fill(255);
for (let i = 0; i < 10; i++) DIGIT[0x30 + i] = i;
for (let i = 0; i < 6; i++) DIGIT[0x61 + i] = DIGIT[0x41 + i] = 10 + i;

/** Why a text could not be read, for messages. */
export type ValueFault = string | undefined;

/**
 * Fills a record's slots from the text after the tracepoint's name.
 *
 * Words that are no key are passed over (symbols that a plugin adds). When
 * libtraceevent's plugin gives up in the middle, it leaves `<CANT FIND FIELD
 * x>` and starts again in the kernel's own format: so does this.
 *
 * @param bytes The line, or more than it.
 * @param start Where the text begins.
 * @param end Where it ends.
 * @param into The record; its slots are cleared first.
 * @returns What is wrong with it, or nothing.
 */
export function readValues(
  bytes: Uint8Array,
  start: number,
  end: number,
  into: KvmRecord,
): ValueFault {
  into.present = 0;
  into.wide = 0;
  let at = start;
  while (at < end) {
    const c = bytes[at]!;
    if (c === SPACE || c === COMMA) {
      at++;
      continue;
    }
    if (c === LESS) {
      const close = bytes.indexOf(MORE, at);
      if (close < 0 || close >= end) return "an unclosed `<`";
      at = close + 1;
      into.present = 0;
      continue;
    }
    const word = at;
    let hash = 0;
    for (; at < end; at++) {
      const c = bytes[at]!;
      if (c === SPACE || c === COLON || c === EQUALS || c === COMMA || c === LESS) break;
      hash = Math.imul(hash, 31) + c | 0;
    }
    const slot = KEYS.find(bytes, word, at, hash);
    if (at < end && (bytes[at] === COLON || bytes[at] === EQUALS)) at++;
    if (slot === undefined) continue;
    while (at < end && bytes[at] === SPACE) at++;
    switch (KINDS[slot]) {
      case "hex":
        at = hexValue(bytes, at, end, slot, into);
        break;
      case "dec":
        at = decValue(bytes, at, end, slot, into);
        break;
      case "reason":
        at = reasonValue(bytes, at, end, into);
        break;
      case "flag":
        at = flagValue(bytes, at, end, slot, into);
        break;
      case "intercepts":
        at = interceptsValue(bytes, at, end, into);
        break;
      case "pair":
        at = hexValue(bytes, at, end, SLOT.exit_info_1, into);
        if (at >= 0) at = hexValue(bytes, skip(bytes, at, end), end, SLOT.exit_info_2, into);
        break;
      case "vmx":
        into.lo[SLOT.isa] = ISA_VMX;
        into.hi[SLOT.isa] = 0;
        into.present |= BIT_ISA;
        at = wordEnd(bytes, at, end);
    }
    if (at < 0) return `no value of \`${SLOTS[slot]!.name}\` that can be read`;
  }
  return undefined;
}

function skip(bytes: Uint8Array, at: number, end: number): number {
  while (at < end && bytes[at] === SPACE) at++;
  return at;
}

function wordEnd(bytes: Uint8Array, at: number, end: number): number {
  while (at < end && bytes[at] !== SPACE && bytes[at] !== COMMA && bytes[at] !== LESS) at++;
  return at;
}

function hexValue(
  bytes: Uint8Array,
  at: number,
  end: number,
  slot: number,
  into: KvmRecord,
): number {
  if (at + 1 < end && bytes[at] === 0x30 && (bytes[at + 1]! | 0x20) === 0x78) at += 2;
  const first = at;
  let lo = 0, hi = 0;
  for (; at < end; at++) {
    const digit = DIGIT[bytes[at]!]!;
    if (digit === 255) break;
    hi = hi << 4 | lo >>> 28;
    lo = lo << 4 | digit;
  }
  const digits = at - first;
  if (digits === 0 || digits > 16) return -1;
  if (at < end && bytes[at] !== SPACE && bytes[at] !== COMMA && bytes[at] !== LESS) return -1;
  into.lo[slot] = lo;
  into.hi[slot] = hi;
  into.present |= 1 << slot;
  if (digits > 8) into.wide |= 1 << slot;
  return at;
}

function decValue(
  bytes: Uint8Array,
  at: number,
  end: number,
  slot: number,
  into: KvmRecord,
): number {
  const first = at;
  let value = 0;
  for (; at < end; at++) {
    const digit = bytes[at]! - 0x30;
    if (digit < 0 || digit > 9) break;
    value = value * 10 + digit;
  }
  if (at === first || value > 0xffffffff) return -1;
  if (at < end && bytes[at] !== SPACE && bytes[at] !== COMMA && bytes[at] !== LESS) return -1;
  into.lo[slot] = value;
  into.hi[slot] = 0;
  into.present |= 1 << slot;
  return at;
}

function reasonValue(bytes: Uint8Array, at: number, end: number, into: KvmRecord): number {
  const slot = SLOT.exit_code;
  if (at < end && bytes[at] === 0x30) return hexValue(bytes, at, end, slot, into);
  const first = at;
  at = wordEnd(bytes, at, end);
  if (at === first) return -1;
  // "DB excp": the only names of two words.
  if (at + 5 <= end && bytes[at + 1] === 0x65 && bytes[at + 2] === 0x78 && bytes[at + 4] === 0x70) {
    at += 5;
  }
  const code = reasonNamed(bytes, first, at);
  if (code === undefined) return plainReason(bytes, first, at, end, into);
  into.lo[slot] = code;
  into.hi[slot] = code < 0 ? 0xffffffff : 0;
  into.present |= 1 << slot;
  if (code < 0) into.wide |= 1 << slot;
  return at;
}

/** `UNKNOWN (123)` of the plugin; a name of VMX leaves the slot empty and marks the record. */
function plainReason(
  bytes: Uint8Array,
  first: number,
  at: number,
  end: number,
  into: KvmRecord,
): number {
  const open = skip(bytes, at, end);
  if (open < end && bytes[open] === 0x28) {
    const close = bytes.indexOf(0x29, open);
    const text = new TextDecoder().decode(bytes.subarray(open + 1, Math.min(close, end)));
    if (close < 0 || close >= end || !/^\d{1,20}$/.test(text)) return -1;
    const value = BigInt.asUintN(64, BigInt(text));
    into.lo[SLOT.exit_code] = Number(value & 0xffffffffn);
    into.hi[SLOT.exit_code] = Number(value >> 32n);
    into.present |= 1 << SLOT.exit_code;
    return close + 1;
  }
  for (let i = first; i < at; i++) {
    const c = bytes[i]!;
    if (c !== 0x5f && (c < 0x41 || c > 0x5a) && (c < 0x30 || c > 0x39)) return -1;
  }
  into.lo[SLOT.isa] = ISA_VMX;
  into.hi[SLOT.isa] = 0;
  into.lo[SLOT.exit_code] = into.hi[SLOT.exit_code] = 0;
  into.present |= BIT_ISA | 1 << SLOT.exit_code;
  return at;
}

function flagValue(
  bytes: Uint8Array,
  at: number,
  end: number,
  slot: number,
  into: KvmRecord,
): number {
  const first = at;
  at = wordEnd(bytes, at, end);
  const value = flagNamed(bytes, first, at);
  if (value === undefined) return -1;
  into.lo[slot] = value;
  into.hi[slot] = 0;
  into.present |= 1 << slot;
  return at;
}

function interceptsValue(bytes: Uint8Array, at: number, end: number, into: KvmRecord): number {
  const first = SLOT.intercept1;
  at = hexValue(bytes, at, end, first, into);
  if (at < 0 || (into.wide >>> first & 1) !== 0) return at;
  for (let slot = first + 1; slot < first + 3 && at >= 0; slot++) {
    at = hexValue(bytes, skip(bytes, at, end), end, slot, into);
  }
  return at;
}
