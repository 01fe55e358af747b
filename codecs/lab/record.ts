/**
 * The lab's records: one JSON object a line, what a real kernel did with one
 * case. A validating reader and a printer in the lab's key order.
 *
 * @module
 */
import { type Bad, checkRecord, isMap, type Json } from "./check.ts";
import {
  AREA_KEYS,
  CPU_KEYS,
  INNER_KEYS,
  MIGRATE_KEYS,
  NESTED_KEYS,
  PHASES,
  RECORD_KEYS,
  STATE_KEYS,
  STATE_WORD_KEYS,
} from "./keys.ts";
import { type LabRecord, LabRecordError } from "./types.ts";

export {
  AREA_KEYS,
  CPU_KEYS,
  NESTED_KEYS,
  PHASES,
  RESTORE_ERRNO_KEYS,
  STATE_FLAG_KEYS,
  STATE_HEX_KEYS,
} from "./keys.ts";
export * from "./types.ts";

/** Where a line comes from, for messages. */
export interface LabSource {
  /** Name of the file. */
  readonly file?: string;
  /** Line in it, from 1. */
  readonly line?: number;
}

/**
 * Reads one record.
 *
 * Fields that the lab does not print are kept as they are.
 *
 * @param text One line of NDJSON.
 * @param source Where it comes from, for messages.
 * @returns The record.
 * @throws {LabRecordError} When the line is not JSON, a field is missing or has the wrong form.
 * @example
 * ```ts
 * import { parseLabRecord } from "@vmtape/vmtape/codecs";
 * const record = parseLabRecord('{"case":"ok","spec":"","kernel":"unified","npt":1,"events":[]}');
 * if (record.kernel !== "unified") throw new Error();
 * ```
 */
export function parseLabRecord(text: string, source: LabSource = {}): LabRecord {
  const where = { file: source.file, line: source.line ?? 1 };
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new LabRecordError(`Not JSON (${why}); expected one of the lab's records a line`, where, {
      cause,
    });
  }
  const bad: Bad = (field, expected) => {
    throw new LabRecordError(
      field === ""
        ? `Not a record of the lab; expected ${expected}`
        : `Field ${field}: expected ${expected}`,
      { ...where, field },
    );
  };
  checkRecord(value, bad);
  const record = value as LabRecord;
  sources.set(record, where);
  return record;
}

const sources = new WeakMap<LabRecord, { file: string | undefined; line: number }>();

/**
 * Where a record was read from.
 *
 * @param record A record.
 * @returns Its file and line; `undefined` when it was not read by {@linkcode parseLabRecord}.
 * @example
 * ```ts
 * import { parseLabRecord, sourceOf } from "@vmtape/vmtape/codecs";
 * const text = '{"case":"ok","spec":"","kernel":"unified","npt":1,"events":[]}';
 * if (sourceOf(parseLabRecord(text, { line: 7 }))?.line !== 7) throw new Error();
 * ```
 */
export function sourceOf(
  record: LabRecord,
): { readonly file: string | undefined; readonly line: number } | undefined {
  return sources.get(record);
}

/**
 * Prints a record as one line, keys in the lab's order.
 *
 * @param record The record.
 * @returns JSON without a line break.
 * @example
 * ```ts
 * import { formatLabRecord } from "@vmtape/vmtape/codecs";
 * const line = formatLabRecord({ events: [], npt: 1, kernel: "unified", spec: "", case: "ok" });
 * if (!line.startsWith('{"case":"ok"')) throw new Error();
 * ```
 */
export function formatLabRecord(record: LabRecord): string {
  const out = inOrder(record, RECORD_KEYS);
  out.events = record.events.map((event) => {
    if (!("at" in event)) return event;
    const inner = inOrder(event, INNER_KEYS);
    inner.nested = inOrder(event.nested, NESTED_KEYS);
    if (event.cpu) inner.cpu = inOrder(event.cpu, CPU_KEYS);
    return inner;
  });
  for (const phase of PHASES) {
    if (record[phase]) out[phase] = inOrder(record[phase], STATE_KEYS);
  }
  if (record.migrate) out.migrate = inOrder(record.migrate, MIGRATE_KEYS);
  return print(out, "");
}

const WORDS_KEYS: ReadonlySet<string> = new Set([...AREA_KEYS, ...STATE_WORD_KEYS, "state"]);

/** As JSON.stringify, but words by offset: an object would put 148 before 000. */
function print(value: unknown, key: string): string {
  if (Array.isArray(value)) return `[${value.map((item) => print(item, "")).join()}]`;
  if (!isMap(value)) return JSON.stringify(value);
  const keys = Object.keys(value).filter((name) => value[name] !== undefined);
  if (WORDS_KEYS.has(key)) keys.sort();
  return `{${keys.map((name) => `${JSON.stringify(name)}:${print(value[name], name)}`).join()}}`;
}

function inOrder(map: object, keys: readonly string[]): Record<string, unknown> {
  const out: Record<string, unknown> = {};
  const from = map as Json;
  for (const key of keys) if (from[key] !== undefined) out[key] = from[key];
  return Object.assign(out, map);
}

/** Longest line a record may take, in characters. */
const MAX_LINE = 1 << 22;

/**
 * Reads records from a stream of NDJSON, plain or compressed with gzip.
 *
 * @param stream The bytes.
 * @param source Name of the file, for messages.
 * @returns The records in order. Blank lines are skipped; memory does not grow with the file.
 * @throws {LabRecordError} At the first line that is not a record, a line of more than 4 MiB, or damaged compression.
 * @example
 * ```ts
 * import { readLabRecords } from "@vmtape/vmtape/codecs";
 * const text = '{"case":"ok","spec":"","kernel":"unified","npt":1,"events":[]}\n';
 * const names = [];
 * for await (const record of readLabRecords(new Blob([text]).stream())) names.push(record.case);
 * if (names.join() !== "ok") throw new Error();
 * ```
 */
export async function* readLabRecords(
  stream: ReadableStream<Uint8Array>,
  source: { readonly file?: string } = {},
): AsyncGenerator<LabRecord> {
  let line = 0;
  let rest = "";
  const decoder = new TextDecoder();
  try {
    for await (const chunk of await plain(stream)) {
      rest += decoder.decode(chunk, { stream: true });
      const lines = rest.split("\n");
      rest = lines.pop()!;
      for (const text of lines) {
        line++;
        if (text.trim() !== "") yield parseLabRecord(text, { ...source, line });
      }
      if (rest.length > MAX_LINE) {
        throw new LabRecordError("Longer than any record of the lab; expected NDJSON", {
          ...source,
          line: line + 1,
        });
      }
    }
  } catch (cause) {
    if (!(cause instanceof TypeError)) throw cause;
    throw new LabRecordError(`Damaged after this line: ${cause.message}; copy the file again`, {
      ...source,
      line,
    }, { cause });
  }
  rest += decoder.decode();
  if (rest.trim() !== "") yield parseLabRecord(rest, { ...source, line: line + 1 });
}

/** Bytes that are decompressed at once: what is compressed well is a thousand times as large. */
const PIECE = 1 << 12;

/** The stream itself, or what it holds when it is compressed. */
async function plain(stream: ReadableStream<Uint8Array>): Promise<ReadableStream<Uint8Array>> {
  const reader = stream.getReader();
  let head: Uint8Array = new Uint8Array(0);
  while (head.length < 2) {
    const { value, done } = await reader.read();
    if (done) break;
    const joined = new Uint8Array(head.length + value.length);
    joined.set(head);
    joined.set(value, head.length);
    head = joined;
  }
  let rest = head;
  const whole = new ReadableStream<BufferSource>({
    async pull(controller) {
      if (rest.length === 0) {
        const { value, done } = await reader.read();
        if (done) return controller.close();
        rest = value;
      }
      controller.enqueue(rest.slice(0, PIECE));
      rest = rest.subarray(PIECE);
    },
    cancel: (reason) => reader.cancel(reason),
  }, { highWaterMark: 0 });
  const gzip = head[0] === 0x1f && head[1] === 0x8b;
  return gzip
    ? whole.pipeThrough(new DecompressionStream("gzip"))
    : whole as ReadableStream<Uint8Array>;
}
