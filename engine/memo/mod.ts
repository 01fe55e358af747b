/**
 * Replay and diff that carry out every run once.
 *
 * @module
 */
export { MemoizedDiffer, type MemoizedRunOptions } from "./differ.ts";
export { MemoizedReplayer } from "./replayer.ts";
