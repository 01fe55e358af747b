/**
 * Traces as bytes: writing, reading, checking and mending them.
 *
 * {@linkcode TraceWriter} takes events, {@linkcode readTrace} gives them back from a file or a pipe,
 * {@linkcode TraceFile} from any place of a file.
 *
 * @module
 */
export * from "./errors.ts";
export type { Meta } from "./msgpack.ts";
export type { FieldPlan, KindPlan } from "./schema.ts";
export type { BlockHead, RawBlock } from "./block.ts";
export type { IndexEntry } from "./block_index.ts";
export type { Checkpoint } from "./checkpoint.ts";
export type { Chunks } from "./byte_queue.ts";
export { copyEvent, EventBlock } from "./event_block.ts";
export { headerSize, readHeader, type TraceHeader } from "./header.ts";
export * from "./writer.ts";
export { type ReadOptions, readTrace, TraceStream } from "./reader.ts";
export * from "./trace_file.ts";
export * from "./file.ts";
