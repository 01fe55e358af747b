import {
  fileSink,
  type Meta,
  streamSink,
  TraceError,
  type TraceSink,
  TraceWriter,
} from "../codecs/mod.ts";
import type { Context } from "./context.ts";
import { fileError, STANDARD } from "./files.ts";

/** A sink, and what becomes of its file when nothing was recorded. */
interface Target {
  readonly sink: TraceSink;
  /** Lets go of the file as it is. */
  leave(): void;
  /** Takes it away again. */
  discard(): void;
}

/** Devices and pipes cannot be written under another name first. */
function isSpecial(path: string): boolean {
  try {
    const info = Deno.statSync(path);
    return !info.isFile && !info.isDirectory;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw fileError(path, "write", error);
  }
}

function openTarget(path: string, force: boolean): Target {
  if (path === STANDARD) {
    return { sink: streamSink(Deno.stdout), leave() {}, discard() {} };
  }
  if (isSpecial(path)) {
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

/** How {@linkcode writeTrace} writes. */
export interface WriteTraceOptions {
  /** Name of the trace, or `-`. */
  readonly path: string;
  /** Whether a file that exists is replaced. */
  readonly force: boolean;
  /** Metadata of the trace. */
  readonly meta: Meta;
}

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
 * @param options Where to write.
 * @param fill Writes the events.
 * @returns How much was written.
 * @throws {TraceError} `exists` or `output`, and whatever `fill` throws.
 */
export async function writeTrace(
  context: Context,
  options: WriteTraceOptions,
  fill: (writer: TraceWriter) => Promise<void>,
): Promise<Written> {
  const { path, force, meta } = options;
  const target = openTarget(path, force);
  let writer: TraceWriter | undefined;
  try {
    writer = new TraceWriter(target.sink, { meta });
    await fill(writer);
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
