/**
 * Assertions about what a text, list or object contains.
 *
 * @module
 */
import { AssertionError, suffix } from "./assertion_error.ts";
import { equal } from "./equal.ts";
import { diffLines, format } from "./equals.ts";

/** Asserts that a text matches a pattern. */
export function assertMatch(actual: string, expected: RegExp, msg?: string): void {
  if (expected.test(actual)) return;
  throw new AssertionError(`Expected actual: "${actual}" to match: "${expected}"${suffix(msg)}`);
}

/** Asserts that a text does not match a pattern. */
export function assertNotMatch(actual: string, expected: RegExp, msg?: string): void {
  if (!expected.test(actual)) return;
  throw new AssertionError(
    `Expected actual: "${actual}" to not match: "${expected}"${suffix(msg)}`,
  );
}

/** Asserts that a text contains another. */
export function assertStringIncludes(actual: string, expected: string, msg?: string): void {
  if (actual.includes(expected)) return;
  throw new AssertionError(
    `Expected actual: "${actual}" to contain: "${expected}"${suffix(msg)}`,
  );
}

/** Anything with elements by number, save text. */
export type ArrayLikeArg<T> = ArrayLike<T> & object;

/** Asserts that an array contains every element of another, by deep equality. */
export function assertArrayIncludes<T>(
  actual: ArrayLikeArg<T>,
  expected: ArrayLikeArg<T>,
  msg?: string,
): void {
  const all = Array.from(actual);
  const missing = Array.from(expected).filter((want) => !all.some((have) => equal(want, have)));
  if (missing.length === 0) return;
  throw new AssertionError(
    `Expected actual: "${format(actual)}" to include: "${format(expected)}"${
      suffix(msg)
    }\nmissing: ${format(missing)}`,
  );
}

/** The part of `actual` that `expected` speaks of. */
function project(actual: unknown, expected: unknown): unknown {
  if (
    actual === null || typeof actual !== "object" || expected === null ||
    typeof expected !== "object" || ArrayBuffer.isView(expected) || expected instanceof Date ||
    expected instanceof RegExp || expected instanceof Map || expected instanceof Set
  ) return actual;
  const out: Record<PropertyKey, unknown> | unknown[] = Array.isArray(actual) ? [] : {};
  for (const key of Reflect.ownKeys(expected)) {
    if (key === "length" && Array.isArray(expected)) continue;
    if (!(key in actual)) continue;
    Reflect.set(out, key, project(Reflect.get(actual, key), Reflect.get(expected, key)));
  }
  return out;
}

/** Asserts that an object has every property of another, however deep. */
export function assertObjectMatch(
  actual: Record<PropertyKey, unknown>,
  expected: Record<PropertyKey, unknown>,
  msg?: string,
): void {
  const part = project(actual, expected);
  if (equal(part, project(expected, expected))) return;
  throw new AssertionError(
    `Values are not equal${suffix(msg)}\n\n\n    [Diff] Actual / Expected\n\n\n${
      diffLines(format(part), format(expected))
    }\n\n`,
  );
}
