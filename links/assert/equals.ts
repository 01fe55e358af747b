/**
 * Assertions about equality, and the difference they show.
 *
 * @module
 */
import { inspect } from "node:util";
import { AssertionError, suffix } from "./assertion_error.ts";
import { equal } from "./equal.ts";

/** Text of a value for a message. */
export function format(value: unknown): string {
  return typeof value === "string" ? JSON.stringify(value) : inspect(value, {
    depth: Infinity,
    sorted: true,
    maxArrayLength: Infinity,
    maxStringLength: Infinity,
    compact: false,
    breakLength: Infinity,
  });
}

const MAX_DIFF_CELLS = 4_000_000;

/** Lines of both texts, those only in `a` marked `-`, those only in `b` marked `+`. */
export function diffLines(a: string, b: string): string {
  const left = a.split("\n"), right = b.split("\n");
  let head = 0;
  while (head < left.length && head < right.length && left[head] === right[head]) head++;
  let tail = 0;
  while (
    tail < left.length - head && tail < right.length - head &&
    left[left.length - 1 - tail] === right[right.length - 1 - tail]
  ) tail++;
  const l = left.slice(head, left.length - tail), r = right.slice(head, right.length - tail);
  const out = left.slice(0, head).map((s) => `    ${s}`);
  if (l.length * r.length > MAX_DIFF_CELLS) {
    out.push(...l.map((s) => `-   ${s}`), ...r.map((s) => `+   ${s}`));
  } else {
    out.push(...longestCommon(l, r));
  }
  out.push(...left.slice(left.length - tail).map((s) => `    ${s}`));
  return out.join("\n");
}

function longestCommon(l: readonly string[], r: readonly string[]): string[] {
  const width = r.length + 1;
  const best = new Uint32Array((l.length + 1) * width);
  const at = (i: number, j: number) => best[i * width + j] ?? 0;
  for (let i = l.length - 1; i >= 0; i--) {
    for (let j = r.length - 1; j >= 0; j--) {
      best[i * width + j] = l[i] === r[j]
        ? at(i + 1, j + 1) + 1
        : Math.max(at(i + 1, j), at(i, j + 1));
    }
  }
  const out: string[] = [];
  let i = 0, j = 0;
  while (i < l.length || j < r.length) {
    if (i < l.length && j < r.length && l[i] === r[j]) {
      out.push(`    ${l[i]}`);
      i++, j++;
    } else if (j >= r.length || (i < l.length && at(i + 1, j) >= at(i, j + 1))) {
      out.push(`-   ${l[i++]}`);
    } else {
      out.push(`+   ${r[j++]}`);
    }
  }
  return out;
}

function differ(headline: string, actual: unknown, expected: unknown): string {
  const both = typeof actual === "string" && typeof expected === "string";
  const a = both && actual.includes("\n") ? actual : format(actual);
  const b = both && actual.includes("\n") ? expected : format(expected);
  return `${headline}\n\n\n    [Diff] Actual / Expected\n\n\n${diffLines(a, b)}\n\n`;
}

/**
 * Asserts deep equality.
 *
 * @throws {AssertionError} When they differ, with the lines that do.
 */
export function assertEquals<T>(actual: T, expected: T, msg?: string): void {
  if (equal(actual, expected)) return;
  throw new AssertionError(differ(`Values are not equal${suffix(msg)}`, actual, expected));
}

/** Asserts that two values are not deeply equal. */
export function assertNotEquals<T>(actual: T, expected: T, msg?: string): void {
  if (!equal(actual, expected)) return;
  throw new AssertionError(
    `Expected actual: ${format(actual)} not to be: ${format(expected)}${suffix(msg)}`,
  );
}

/** Asserts identity, by `Object.is`. */
export function assertStrictEquals<T>(
  actual: unknown,
  expected: T,
  msg?: string,
): asserts actual is T {
  if (Object.is(actual, expected)) return;
  const a = format(actual), b = format(expected);
  if (a === b) {
    const lines = a.split("\n").map((line) => `    ${line}`).join("\n");
    throw new AssertionError(
      `Values have the same structure but are not reference-equal${suffix(msg)}\n\n${lines}\n`,
    );
  }
  throw new AssertionError(differ(`Values are not strictly equal${suffix(msg)}`, actual, expected));
}

/** Asserts that two values are not identical, by `Object.is`. */
export function assertNotStrictEquals<T>(actual: T, expected: T, msg?: string): void {
  if (!Object.is(actual, expected)) return;
  throw new AssertionError(
    `Expected "actual" to not be strictly equal to: ${format(actual)}${suffix(msg)}\n`,
  );
}
