/**
 * Replay and diff that carry out every run once.
 *
 * @module
 */
export { MemoizedDiffer } from "./differ.ts";
export { MemoizedReplayer } from "./replayer.ts";
