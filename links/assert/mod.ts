/**
 * Stand-in for `jsr:@std/assert` where its registry cannot be reached: the
 * assertions in use, with the published names, signatures and errors.
 *
 * @module
 */
export * from "./assertion_error.ts";
export * from "./equal.ts";
export * from "./equals.ts";
export * from "./truth.ts";
export * from "./compare.ts";
export * from "./contain.ts";
export * from "./throws.ts";
