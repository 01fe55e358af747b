/**
 * Stand-in for `jsr:@std/streams` where its registry cannot be reached: the
 * part in use, with the published names, signatures and behaviour.
 *
 * @module
 */
export * from "./text_line_stream.ts";
export * from "./to_bytes.ts";
export * from "./to_text.ts";
