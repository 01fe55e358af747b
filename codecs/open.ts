/**
 * Traces by the names of their files: opening one to read, and writing one.
 *
 * @module
 */
import type { TraceEvent } from "../engine/event.ts";
import { fileSink, fileSource } from "./container/file.ts";
import type { Meta } from "./container/msgpack.ts";
import { TraceError } from "./errors.ts";
import { TraceFile } from "./container/trace_file.ts";
import { TraceWriter } from "./container/writer.ts";

/** A trace that is open for reading; to be disposed of. */
export interface OpenTrace extends Disposable {
  /** The trace: its header, its events by number. */
  readonly trace: TraceFile;
  /** All its events in order, each its own copy. */
  events(): AsyncGenerator<TraceEvent, void, undefined>;
}

/**
 * Opens a trace.
 *
 * @param path The file, as a path or a file URL.
 * @returns The trace; `using` closes it.
 * @throws {TraceError} When it is missing, no trace, damaged at its head or of an unknown version.
 * @example
 * ```ts
 * import { openTrace, writeTrace } from "@vmtape/vmtape/codecs";
 * const folder = await Deno.makeTempDir();
 * await writeTrace(`${folder}/t.vmtape`, [{ kind: "vmrun", vcpu: 0, rip: 0x8003n }]);
 * {
 *   using file = await openTrace(`${folder}/t.vmtape`);
 *   for await (const event of file.events()) {
 *     if (event.kind !== "vmrun" || event.rip !== 0x8003n) throw new Error(event.kind);
 *   }
 * }
 * await Deno.remove(folder, { recursive: true });
 * ```
 */
export async function openTrace(path: string | URL): Promise<OpenTrace> {
  needDeno("openTrace", "give readTrace a list or stream of bytes");
  const source = fileSource(nameOf(path));
  try {
    const trace = await TraceFile.open(source);
    return { trace, events: () => trace.events(), [Symbol.dispose]: () => source.close() };
  } catch (error) {
    source.close();
    throw error;
  }
}

/** How a trace is written. */
export interface WriteTraceOptions {
  /** What the trace says about itself. */
  readonly meta?: Meta;
  /** Whether a file of that name is overwritten. */
  readonly force?: boolean;
}

/**
 * Writes a trace. It has a temporary name until it is whole.
 *
 * @param path The file, as a path or a file URL.
 * @param events Its events, in order.
 * @param options How.
 * @throws {TraceError} When the file is there already or cannot be written, or an event is none.
 * @example
 * ```ts
 * import { writeTrace } from "@vmtape/vmtape/codecs";
 * import { builtinScenarios, recordScenarios } from "@vmtape/vmtape/traces";
 * import { LINUX_7_3 } from "@vmtape/vmtape/engine";
 * const path = await Deno.makeTempFile();
 * await writeTrace(path, recordScenarios(builtinScenarios("enter"), LINUX_7_3), { force: true });
 * await Deno.remove(path);
 * ```
 */
export async function writeTrace(
  path: string | URL,
  events: AsyncIterable<TraceEvent> | Iterable<TraceEvent>,
  options: WriteTraceOptions = {},
): Promise<void> {
  const { meta, force = false } = options;
  needDeno("writeTrace", "give TraceWriter something that takes chunks");
  const sink = fileSink(nameOf(path), { force });
  try {
    const writer = new TraceWriter(sink, meta === undefined ? {} : { meta });
    for await (const event of events) writer.write(event);
    writer.close();
  } finally {
    sink[Symbol.dispose]();
  }
}

/** Node has the library too, but not its files. */
function needDeno(what: string, instead: string): void {
  if (typeof Deno !== "undefined") return;
  throw new TraceError("input", `${what} needs Deno; elsewhere ${instead}`);
}

function nameOf(path: string | URL): string {
  return typeof path === "string" ? path : decodeURIComponent(path.pathname);
}
