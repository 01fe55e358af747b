/**
 * Writing a trace as a command's output.
 *
 * @module
 */
import {
  fileSink,
  type Meta,
  streamSink,
  TraceError,
  type TraceHeader,
  type TraceSink,
  TraceWriter,
  type TraceWriterOptions,
} from "../codecs/mod.ts";
import { isSpecial } from "../codecs/container/output_file.ts";
import type { Context } from "./context.ts";
import { fileError, shown, STANDARD } from "./files.ts";

/** A sink, and what becomes of its file when nothing was recorded. */
interface Target {
  readonly sink: TraceSink;
  /** Lets go of the file as it is. */
  leave(): void;
  /** Takes it away again. */
  discard(): void;
}

function special(path: string): boolean {
  try {
    return isSpecial(path);
  } catch (error) {
    throw fileError(path, "write", error);
  }
}

function openTarget(path: string, force: boolean): Target {
  if (path === STANDARD) {
    return { sink: streamSink(Deno.stdout), leave() {}, discard() {} };
  }
  if (special(path)) {
    const file = Deno.openSync(path, { write: true });
    const close = () => file.close();
    return { sink: { ...streamSink(file), close }, leave: close, discard: close };
  }
  const sink = fileSink(path, { force });
  const leave = () => sink[Symbol.dispose]();
  return {
    sink,
    leave,
    discard() {
      leave();
      Deno.removeSync(sink.part);
    },
  };
}

/** How a trace is written, besides where to. */
export type HowWritten = Pick<TraceWriterOptions, "id" | "flushInterval">;

/** What {@linkcode writeTrace} wrote. */
export interface Written {
  /** Number of events. */
  readonly events: number;
  /** Size in bytes. */
  readonly bytes: number;
}

/**
 * Writes a trace. When `fill` breaks off, for Ctrl-C or because its input is
 * damaged, what it wrote until then is a whole trace all the same; when it wrote
 * nothing, there is no trace. An output that fails leaves what it took, under
 * its temporary name.
 *
 * @param context Where to say what was kept.
 * @param output Name of the trace, or `-`; and whether a file that exists is replaced.
 * @param fill Opens the trace, once, with its metadata and the header of a trace that it is made of,
 * where it has one, and writes the events.
 * @returns How much was written.
 * @throws {TraceError} `exists` or `output`, and whatever `fill` throws.
 */
export async function writeTrace(
  context: Context,
  output: { readonly output: string; readonly force: boolean },
  fill: (
    open: (meta: Meta, like?: TraceHeader, how?: HowWritten) => TraceWriter,
  ) => Promise<void>,
): Promise<Written> {
  const { output: path, force } = output;
  const target = openTarget(path, force);
  let writer: TraceWriter | undefined;
  try {
    await fill((meta, like, how) => writer = new TraceWriter(target.sink, { meta, like, ...how }));
    writer ??= new TraceWriter(target.sink);
    writer.close();
    return writer;
  } catch (error) {
    const events = writer?.events ?? 0;
    if (error instanceof TraceError && error.code === "output") target.leave();
    else if (writer === undefined || events === 0) target.discard();
    else {
      writer.close();
      context.warn(`The ${events} events before that are in ${path}, which is a whole trace`);
    }
    throw error;
  }
}

/** Says what was written: as JSON where standard output is not the trace itself, else as a note. */
export function reportWritten(
  context: Context,
  path: string,
  { events, bytes }: Written,
  more: Readonly<Record<string, unknown>> = {},
): void {
  if (context.json && path !== STANDARD) context.out.json({ output: path, events, bytes, ...more });
  else context.note(`${events} events, ${bytes} bytes in ${shown(path)}`);
}
