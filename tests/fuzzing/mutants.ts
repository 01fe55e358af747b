/**
 * Values, texts and bytes with something else at a few places, and what trying them found.
 *
 * @module
 */
import type { Random } from "../../traces/generate/random.ts";

/** A mutant did what none may do. */
export class FuzzFailure extends Error {
  override name = "FuzzFailure";
}

/** What a run of one kind found. */
export interface FuzzReport {
  /** Number of mutants. */
  inputs: number;
  /** How many were taken to the end without complaint. */
  accepted: number;
  /** How many ended in an error, by its code. */
  errors: Record<string, number>;
  /** Longest time that one mutant took to compute, in milliseconds. */
  slowest: number;
}

/** Text that no terminal may get. */
export const CONTROL = "\x1b]0;PWN\x07\x9b31m\u202e\u2066</script>\r\n| x | `y`";

const VALUES: readonly unknown[] = [
  null,
  undefined,
  true,
  0,
  -1,
  0.5,
  1e300,
  NaN,
  2 ** 31,
  2 ** 32,
  2 ** 53,
  -(2n ** 63n),
  2n ** 64n - 1n,
  "",
  "0x",
  "upstream",
  "__proto__",
  CONTROL,
  "x".repeat(5000),
  [],
  [[]],
  {},
  { toJSON: 1, then: 2, constructor: null },
];

/** A value that hardly anything expects. */
export function strange(random: Random): unknown {
  return random.pick(VALUES);
}

/** A copy of a JSON-like value with something else at one place in it. */
export function changed(value: unknown, random: Random, depth = 0): unknown {
  if (typeof value !== "object" || value === null || random.once(depth === 0 ? 40 : 4)) {
    if (typeof value === "number" && random.once(2)) return value + random.pick([1, -1, 1e9, 0.5]);
    if (typeof value === "string" && random.once(2)) return changedText(value, random);
    return strange(random);
  }
  if (Array.isArray(value)) {
    if (value.length === 0 || random.once(6)) {
      return random.once(2) ? [...value, ...value.slice(0, 3)] : value.slice(1);
    }
    const at = random.below(value.length);
    return value.with(at, changed(value[at], random, depth + 1));
  }
  const entries = Object.entries(value);
  if (entries.length === 0 || random.once(8)) {
    const name = random.pick(["vcpu", "toJSON", "x", "kind", "constructor", "__proto__", CONTROL]);
    return Object.fromEntries([...entries, [name, strange(random)]]);
  }
  const at = random.below(entries.length);
  const [name, item] = entries[at]!;
  if (random.once(8)) return Object.fromEntries(entries.toSpliced(at, 1));
  return Object.fromEntries(entries.with(at, [name, changed(item, random, depth + 1)]));
}

const PIECES = [
  "\0",
  "\n",
  "\x1b[2J",
  "\u202e",
  "\ud800",
  "9".repeat(40),
  "0x",
  "-1",
  ".",
  " ",
  "ffffffffffffffffff",
];

/** A text with something else at one place in it. */
export function changedText(text: string, random: Random): string {
  const at = random.below(text.length + 1), size = random.below(random.once(4) ? 200 : 4);
  switch (random.below(5)) {
    case 0:
      return text.slice(0, at) + random.pick(PIECES) + text.slice(at);
    case 1:
      return text.slice(0, at) + text.slice(at + size);
    case 2:
      return text.slice(0, at) + text.slice(Math.max(0, at - size));
    case 3:
      return text.slice(0, at) + String.fromCharCode(random.below(256)) + text.slice(at + 1);
    default:
      return text.slice(0, at);
  }
}

/** Bytes with something else at a few places. */
export function changedBytes(bytes: Uint8Array, random: Random): Uint8Array {
  const copy = bytes.slice();
  for (let i = random.below(4); i >= 0; i--) {
    copy[random.below(copy.length)] = random.pick([0, 0xff, 0x80, random.below(256)]);
  }
  return copy;
}
