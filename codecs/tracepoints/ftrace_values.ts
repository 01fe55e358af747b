/**
 * Reads the values out of a tracepoint's text, byte by byte: `key value` pairs
 * in whatever order and spelling the kernel or libtraceevent prints them.
 *
 * @module
 */
import { EXIT_REASON_CODES } from "./kvm_exit_reasons.ts";
import type { KvmRecord } from "./kvm_record.ts";
import {
  ISA_VMX,
  type Padded,
  SLOT,
  type Slot,
  type SlotKey,
  type SlotKind,
  SLOTS,
  tellRoots,
} from "./kvm_tracepoints.ts";

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

/** What a word before a value says of it. */
interface Key {
  readonly slot: number;
  readonly kind: SlotKind;
  /** Digits of a padded number; 0 where it has its own length. */
  readonly digits: number;
  readonly when: Padded;
  /** Whether the word is the value, and what. */
  readonly itself: number | undefined;
}

const KEYS = new Words(
  SLOTS.flatMap((row: Slot, slot) =>
    row.keys.map((key: SlotKey): readonly [string, Key] => {
      const { word, digits = 0, when = "always", kind = row.kind } = key;
      const itself = kind === "smm" ? Number(word === "entering") : undefined;
      return [word, { slot, kind, digits, when, itself }];
    })
  ),
);
const reasonNamed = wordLookup(EXIT_REASON_CODES);
const flagNamed = wordLookup([["y", 1], ["on", 1], ["1", 1], ["n", 0], ["off", 0], ["0", 0]]);
const BIT_ISA = 1 << SLOT.isa;
const ROOTS = 1 << SLOT.nested_cr3 | 1 << SLOT.guest_cr3;

const SPACE = 0x20, COLON = 0x3a, EQUALS = 0x3d, COMMA = 0x2c, LESS = 0x3c, MORE = 0x3e;
const ZERO = 0x30, BRACKET = 0x5b;

/** Value of a hexadecimal digit by character, 255 for others. */
const DIGIT = new Uint8Array(256).fill(255);
for (let i = 0; i < 10; i++) DIGIT[0x30 + i] = i;
for (let i = 0; i < 6; i++) DIGIT[0x61 + i] = DIGIT[0x41 + i] = 10 + i;

/** Why a text could not be read, for messages. */
export type ValueFault = string | undefined;

/** Whether a value ends before a character; kernels print `[immediate exit]` without a space. */
function ends(c: number): boolean {
  return c === SPACE || c === COMMA || c === LESS || c === COLON || c === BRACKET;
}

/**
 * Fills a record's slots from the text after the tracepoint's name.
 *
 * Words that are no key are passed over (symbols that a plugin adds). When
 * libtraceevent's plugin gives up in the middle, it leaves `<CANT FIND FIELD
 * x>` and starts again in the kernel's own format: so does this. A number with
 * fewer digits than the kernel pads it to was cut, and is not believed.
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
  let rooted = false;
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
    if (c === BRACKET) {
      at = bracket(bytes, at, end, into);
      continue;
    }
    const word = at;
    let hash = 0;
    for (; at < end; at++) {
      const c = bytes[at]!;
      if (c === SPACE || c === COLON || c === EQUALS || c === COMMA || c === LESS) break;
      hash = Math.imul(hash, 31) + c | 0;
    }
    const key = KEYS.find(bytes, word, at, hash);
    const mark = at < end ? bytes[at] : 0;
    if (mark === COLON || mark === EQUALS) at++;
    if (key === undefined) continue;
    const { slot } = key;
    if (key.itself !== undefined) {
      put(into, slot, key.itself, 0);
      continue;
    }
    while (at < end && bytes[at] === SPACE) at++;
    switch (key.kind) {
      case "hex":
        at = hexValue(bytes, at, end, slot, into, digitsOf(key, bytes, at, mark));
        break;
      case "dec":
        at = decValue(bytes, at, end, slot, into);
        break;
      case "reason":
        at = reasonValue(bytes, at, end, into);
        break;
      case "flag":
        at = flagValue(bytes, at, end, slot, into);
        rooted ||= mark === EQUALS;
        break;
      case "intercepts":
        at = interceptsValue(bytes, at, end, into);
        break;
      case "pair":
        at = hexValue(bytes, at, end, SLOT.exit_info_1, into, 0);
        if (at >= 0) at = hexValue(bytes, skip(bytes, at, end), end, SLOT.exit_info_2, into, 0);
        break;
      case "vmx":
        put(into, SLOT.isa, ISA_VMX, 0);
        at = wordEnd(bytes, at, end);
    }
    if (at === SHORT) return `a number of \`${SLOTS[slot]!.name}\` shorter than the kernel prints`;
    if (at < 0) return `no value of \`${SLOTS[slot]!.name}\` that can be read`;
  }
  if (rooted) tellRoots(into);
  // Where the kernel prints `nested_npt=`, a root follows.
  return rooted && (into.present & ROOTS) === 0 && (into.present & BIT_ISA) === 0
    ? "no root of paging after `nested_npt=`"
    : undefined;
}

/** What functions that read a value return instead of its end: there is none, or its number was cut. */
const NONE = -1, SHORT = -2;

function put(into: KvmRecord, slot: number, lo: number, hi: number): void {
  into.lo[slot] = lo;
  into.hi[slot] = hi;
  into.present |= 1 << slot;
}

/** Digits that a number has to have; 0 for any. */
function digitsOf(key: Key, bytes: Uint8Array, at: number, mark: number | undefined): number {
  if (key.when === "colon") return mark === COLON ? key.digits : 0;
  if (key.when === "0x") return bytes[at] === ZERO && bytes[at + 1] === 0x78 ? key.digits : 0;
  return key.digits;
}

const IMMEDIATE = new TextEncoder().encode("[immediate exit]");

/** Something in brackets: `[immediate exit]`, or nothing that is known here. */
function bracket(bytes: Uint8Array, at: number, end: number, into: KvmRecord): number {
  if (IMMEDIATE.every((c, i) => bytes[at + i] === c)) put(into, SLOT.immediate_exit, 1, 0);
  const close = bytes.indexOf(0x5d, at);
  return close < 0 || close >= end ? at + 1 : close + 1;
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
  padded: number,
): number {
  if (at + 1 < end && bytes[at] === ZERO && (bytes[at + 1]! | 0x20) === 0x78) at += 2;
  const first = at;
  let lo = 0, hi = 0;
  for (; at < end; at++) {
    const digit = DIGIT[bytes[at]!]!;
    if (digit === 255) break;
    hi = hi << 4 | lo >>> 28;
    lo = lo << 4 | digit;
  }
  const digits = at - first;
  if (digits === 0 || digits > 16) return NONE;
  if (at < end && !ends(bytes[at]!)) return NONE;
  if (digits < padded) return SHORT;
  if (padded !== 0 && digits > padded) return NONE;
  put(into, slot, lo, hi);
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
    const digit = bytes[at]! - ZERO;
    if (digit < 0 || digit > 9) break;
    value = value * 10 + digit;
  }
  if (at === first || value > 0xffffffff) return NONE;
  if (at < end && !ends(bytes[at]!)) return NONE;
  put(into, slot, value, 0);
  return at;
}

function reasonValue(bytes: Uint8Array, at: number, end: number, into: KvmRecord): number {
  const slot = SLOT.exit_code;
  if (at < end && bytes[at] === ZERO) return hexValue(bytes, at, end, slot, into, 0);
  const first = at;
  at = wordEnd(bytes, at, end);
  if (at === first) return NONE;
  // "DB excp": the only names of two words.
  if (at + 5 <= end && bytes[at + 1] === 0x65 && bytes[at + 2] === 0x78 && bytes[at + 4] === 0x70) {
    at += 5;
  }
  const code = reasonNamed(bytes, first, at);
  if (code === undefined) return plainReason(bytes, first, at, end, into);
  put(into, slot, code, code < 0 ? 0xffffffff : 0);
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
    if (close < 0 || close >= end || !/^\d{1,20}$/.test(text)) return NONE;
    const value = BigInt(text);
    if (value >> 64n !== 0n) return NONE;
    put(into, SLOT.exit_code, Number(value & 0xffffffffn), Number(value >> 32n));
    return close + 1;
  }
  for (let i = first; i < at; i++) {
    const c = bytes[i]!;
    if (c !== 0x5f && (c < 0x41 || c > 0x5a) && (c < ZERO || c > 0x39)) return NONE;
  }
  // The plugin's names of SVM begin so; one that is not known was cut.
  if (PLUGIN.every((c, i) => bytes[first + i] === c)) return NONE;
  put(into, SLOT.isa, ISA_VMX, 0);
  put(into, SLOT.exit_code, 0, 0);
  return at;
}

const PLUGIN = new TextEncoder().encode("EXIT_");

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
  if (value === undefined) return NONE;
  put(into, slot, value, 0);
  return at;
}

/** Digits of one intercept word, and of the two that kernels before 5.10 print as one number. */
const WORD = 8, BOTH = 16;

function interceptsValue(bytes: Uint8Array, at: number, end: number, into: KvmRecord): number {
  const first = SLOT.intercept1;
  const start = at;
  at = hexValue(bytes, at, end, first, into, 0);
  if (at < 0) return at;
  if (at - start === BOTH) return at;
  if (at - start !== WORD) return SHORT;
  for (let slot = first + 1; slot < first + 3 && at >= 0; slot++) {
    at = hexValue(bytes, skip(bytes, at, end), end, slot, into, WORD);
  }
  return at;
}
