/**
 * Traces as bytes: writing, reading, checking and mending them.
 *
 * {@linkcode TraceWriter} takes events, {@linkcode readTrace} gives them back from a file or a pipe,
 * {@linkcode TraceFile} from any place of a file.
 *
 * @module
 */
export { TraceError, type TraceErrorCode, type TraceErrorPlace } from "./errors.ts";
export type { Meta } from "./msgpack.ts";
export type { FieldPlan, KindPlan } from "./schema.ts";
export type { BlockHead, RawBlock } from "./block.ts";
export type { IndexEntry } from "./block_index.ts";
export type { Checkpoint } from "./checkpoint.ts";
export type { Chunks } from "./byte_queue.ts";
export type { EventDecoder } from "./decoder.ts";
export { copyEvent, EventBlock } from "./event_block.ts";
export { headerSize, readHeader, type TraceHeader } from "./header.ts";
export * from "./writer.ts";
export { type ReadOptions, readTrace, TraceStream } from "./reader.ts";
export * from "./trace_file.ts";
export * from "./file.ts";
export * from "./verify.ts";
export * from "./edit.ts";
export { formatEvent } from "./text.ts";
export * from "./lab_record.ts";
export * from "./lab_views.ts";
export * from "./lab.ts";
export * from "./tracepoint_error.ts";
export * from "./tracepoint_import.ts";
export {
  type InputKind,
  memorySpool,
  SNIFF,
  sniffTracepoints,
  type Spool,
  type TracepointSource,
} from "./tracepoint_source.ts";
export { fileSpool, tracepointFile } from "./tracepoint_file.ts";
export {
  emptyTracepointStats,
  MOST_ISSUES,
  type TracepointForm,
  type TracepointIssue,
  type TracepointStats,
} from "./tracepoint_stats.ts";
export type { TracepointRecord } from "./kvm_record.ts";
export type { KvmEventOptions } from "./kvm_events.ts";
export { exitReasonName } from "./kvm_exit_reasons.ts";
export { type EventFormat, type FormatField, parseEventFormat } from "./trace_dat_format.ts";
export { type PerfettoEvent, PerfettoExport, perfettoText } from "./perfetto.ts";
