/**
 * Stand-in for `jsr:@std/cli` where its registry cannot be reached: the part
 * in use, with the published names, signatures and behaviour.
 *
 * @module
 */
export * from "./unicode_width.ts";
