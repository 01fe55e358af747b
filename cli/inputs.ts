/**
 * Inputs that may be of several forms: which one, by their first bytes.
 *
 * @module
 */
import {
  fileChunks,
  type FileChunksOptions,
  type FileSource,
  fileSource,
  readTrace,
  TraceError,
  TraceFile,
  type TraceSource,
  type TraceStream,
} from "../codecs/mod.ts";
import { LabRecorder } from "../codecs/lab/recorder.ts";
import { type LabRecord, readLabRecords } from "../codecs/lab/record.ts";
import { MAGIC } from "../codecs/container/format.ts";
import { FileError, UsageError } from "./errors.ts";
import { openInput, shown, STANDARD } from "./files.ts";

/** Bytes whose beginning is known. */
export interface Peeked {
  /** The first bytes, fewer than asked for only when there are no more. */
  readonly head: Uint8Array;
  /** All bytes, the first ones among them. */
  readonly stream: ReadableStream<Uint8Array<ArrayBuffer>>;
}

/**
 * Looks at the beginning of a stream.
 *
 * @param stream The stream; not to be used any more.
 * @param size How many bytes to look at.
 * @returns They, and a stream to use instead.
 */
export async function peek(stream: ReadableStream<Uint8Array>, size: number): Promise<Peeked> {
  const reader = stream.getReader();
  const chunks: Uint8Array[] = [];
  let length = 0;
  while (length < size) {
    const { value, done } = await reader.read();
    if (done) break;
    chunks.push(value);
    length += value.length;
  }
  const head = new Uint8Array(length);
  let at = 0;
  for (const chunk of chunks) {
    head.set(chunk, at);
    at += chunk.length;
  }
  return {
    head,
    stream: new ReadableStream({
      start(controller) {
        if (head.length > 0) controller.enqueue(head);
      },
      async pull(controller) {
        const { value, done } = await reader.read();
        if (done) controller.close();
        else controller.enqueue(value as Uint8Array<ArrayBuffer>);
      },
      cancel: (reason) => reader.cancel(reason),
    }),
  };
}

/** Whether bytes begin a trace of this program's own format. */
export function isTrace(head: Uint8Array): boolean {
  return MAGIC.every((byte, i) => head[i] === byte);
}

/** Whether bytes begin something compressed with gzip. */
export function isGzip(head: Uint8Array): boolean {
  return head[0] === 0x1f && head[1] === 0x8b;
}

async function refuseDirectory(path: string): Promise<void> {
  const info = path === STANDARD ? undefined : await Deno.stat(path).catch(() => undefined);
  if (info?.isDirectory) throw new FileError(path, `Cannot read ${path}: It is a directory`);
}

/**
 * The bytes of a file, in order.
 *
 * @param path The file, or `-`.
 * @param options How.
 * @returns Its bytes in chunks.
 * @throws {FileError} When it is a directory.
 */
export async function openChunks(
  path: string,
  options: FileChunksOptions = {},
): Promise<AsyncIterable<Uint8Array>> {
  await refuseDirectory(path);
  return fileChunks(path, options);
}

/**
 * Opens a trace to be read from its first event to its last.
 *
 * @param path The file, or `-`.
 * @returns The trace.
 * @throws {TraceError} When it is missing, empty, foreign, damaged or of an unknown version.
 */
export async function openTrace(path: string): Promise<TraceStream> {
  return await readTrace(await openChunks(path));
}

/**
 * What is wrong with one of several traces, with its name.
 *
 * @param path The trace that was being read.
 * @param error What was thrown meanwhile.
 * @returns The error to throw; the same when it is not about what was read.
 */
export function inTrace(path: string, error: unknown): unknown {
  if (!(error instanceof TraceError) || error.offset < 0 || error.code === "output") return error;
  const { code, offset, message } = error;
  return new TraceError(code, `${shown(path)}: ${message}`, { offset, cause: error });
}

/** The records that a trace holds, whose events are not kept. */
async function* recordsOf(path: string, trace: TraceStream): AsyncGenerator<LabRecord> {
  const recorder = new LabRecorder();
  try {
    for await (const block of trace.blocks()) {
      for (const event of block.shared()) {
        const record = recorder.add(event);
        if (record !== undefined) yield record;
      }
    }
  } catch (error) {
    throw inTrace(path, error);
  }
  const last = recorder.finish();
  if (last !== undefined) yield last;
}

/** A trace to be read from any place in it. */
export interface OpenFile extends Disposable {
  /** The trace that is open until this is disposed of. */
  readonly trace: TraceFile;
  /** Its bytes. */
  readonly source: TraceSource;
}

/**
 * Opens a file that a command has to go back and forth in.
 *
 * @param path The file.
 * @returns Its bytes.
 * @throws {UsageError} When it is standard input.
 * @throws {TraceError} `missing` or `input`.
 */
export async function openSource(path: string): Promise<FileSource> {
  if (path === STANDARD) {
    throw new UsageError("This command has to go back and forth in its input: name a file, not -");
  }
  await refuseDirectory(path);
  return fileSource(path);
}

/**
 * Opens a trace to be read from any place in it.
 *
 * @param path The file.
 * @returns The trace, to be disposed of.
 * @throws {UsageError} When it is standard input.
 * @throws {TraceError} As {@linkcode openTrace}.
 */
export async function openTraceFile(path: string): Promise<OpenFile> {
  const source = await openSource(path);
  try {
    const trace = await TraceFile.open(source);
    return { trace, source, [Symbol.dispose]: () => source.close() };
  } catch (error) {
    source.close();
    throw error;
  }
}

/**
 * How many events a trace has, where somebody is looking at the progress and its index tells.
 *
 * @param context Whether anybody is.
 * @param path The file, or `-`.
 * @returns The number; undefined when nobody looks, or it is not known.
 */
export async function eventTotal(
  context: { readonly watched: boolean },
  path: string,
): Promise<number | undefined> {
  if (!context.watched || path === STANDARD) return undefined;
  try {
    using file = await openTraceFile(path);
    return file.trace.finished ? file.trace.eventCount : undefined;
  } catch {
    // Whatever is wrong with it is said by who reads it.
    return undefined;
  }
}

/**
 * How many events a trace says that it has, without reading them.
 *
 * @param path The file, or `-`.
 * @returns The number; 0 when that cannot be told.
 */
export async function declaredEvents(path: string): Promise<number> {
  if (path === STANDARD) return 0;
  try {
    using file = await openTraceFile(path);
    return file.trace.eventCount;
  } catch {
    // Whatever is wrong with it is said by who reads it.
    return 0;
  }
}

/**
 * Opens what holds records of the lab's kind: NDJSON, plain or compressed, or a
 * trace.
 *
 * @param path The file, or `-`.
 * @returns The records in order.
 * @throws {UsageError} When it is neither.
 */
export async function openRecords(path: string): Promise<AsyncIterable<LabRecord>> {
  const { head, stream } = await peek(await openInput(path), 16);
  if (isTrace(head)) {
    const trace = await readTrace(stream).catch((error) => Promise.reject(inTrace(path, error)));
    return recordsOf(path, trace);
  }
  const text = new TextDecoder().decode(head).trimStart();
  if (isGzip(head) || text.startsWith("{") || head.length === 0) {
    return readLabRecords(stream, { file: shown(path) });
  }
  await stream.cancel();
  throw new UsageError(`${shown(path)} holds neither records (NDJSON) nor a trace`);
}
