/**
 * Traces as bytes: writing, reading, checking and mending them.
 *
 * {@linkcode TraceWriter} takes events, {@linkcode readTrace} gives them back from a file or a pipe,
 * {@linkcode TraceFile} from any place of a file.
 *
 * @module
 */
export { TraceError, type TraceErrorCode, type TraceErrorPlace } from "./errors.ts";
export type { Meta } from "./container/msgpack.ts";
export type { FieldPlan, KindPlan } from "./container/schema.ts";
export type { BlockHead, RawBlock } from "./container/block.ts";
export type { IndexEntry } from "./container/block_index.ts";
export type { Checkpoint } from "./container/checkpoint.ts";
export type { Chunks } from "./container/byte_queue.ts";
export type { EventDecoder } from "./container/decoder.ts";
export { copyEvent } from "../engine/image/fields.ts";
export { EventBlock } from "./container/event_block.ts";
export { headerSize, readHeader, type TraceHeader } from "./container/header.ts";
export * from "./container/writer.ts";
export { type ReadOptions, readTrace, TraceStream } from "./container/reader.ts";
export * from "./container/trace_file.ts";
export * from "./container/file.ts";
export { type OpenTrace, openTrace, writeTrace, type WriteTraceOptions } from "./open.ts";
export * from "./container/verify.ts";
export * from "./container/edit.ts";
export { formatEvent } from "./text.ts";
export { visible } from "./visible.ts";
export * from "./lab/record.ts";
export * from "./lab/views.ts";
export {
  labEvent,
  type LabOutcome,
  labOutcome,
  migrationFields,
  outcomeEvents,
  regsEvent,
  regsState,
} from "./lab/events.ts";
export * from "./lab/recorder.ts";
export * from "./tracepoints/error.ts";
export * from "./tracepoints/import.ts";
export {
  type InputKind,
  memorySpool,
  SNIFF,
  sniffTracepoints,
  type Spool,
  type TracepointSource,
} from "./tracepoints/source.ts";
export { fileSpool, tracepointFile } from "./tracepoints/file.ts";
export {
  emptyTracepointStats,
  MOST_ISSUES,
  type TracepointForm,
  type TracepointIssue,
  type TracepointStats,
} from "./tracepoints/stats.ts";
export type { TracepointRecord } from "./tracepoints/kvm_record.ts";
export type { KvmEventOptions } from "./tracepoints/kvm_events.ts";
export { exitReasonName } from "./tracepoints/kvm_exit_reasons.ts";
export {
  type EventFormat,
  type FormatField,
  parseEventFormat,
} from "./tracepoints/trace_dat_format.ts";
export { type PerfettoEvent, PerfettoExport, type PerfettoNotes } from "./perfetto/rows.ts";
export { perfettoText } from "./perfetto/json.ts";
export { perfettoPackets } from "./perfetto/packets.ts";
