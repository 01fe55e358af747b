/**
 * Stand-in for `jsr:@std/assert` where its registry cannot be reached: the
 * assertions in use, with the published names, signatures and errors.
 *
 * @module
 */
export { AssertionError } from "./assertion_error.ts";
export * from "./equal.ts";
export {
  assertEquals,
  assertNotEquals,
  assertNotStrictEquals,
  assertStrictEquals,
} from "./equals.ts";
export * from "./truth.ts";
export * from "./compare.ts";
export * from "./contain.ts";
export * from "./throws.ts";
