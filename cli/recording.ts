/**
 * What recording commands have in common.
 *
 * @module
 */
import type { Meta } from "../codecs/mod.ts";
import type { TraceEvent } from "../engine/event.ts";
import { Breather } from "./breather.ts";
import type { Context } from "./context.ts";
import { reportWritten, writeTrace } from "./trace_output.ts";

/**
 * Writes what a recorder brings, until it is done or Ctrl-C ends it, and says what was written.
 *
 * @param context Where to, and what ends it.
 * @param target Name of the file, and whether one that exists is replaced.
 * @param events What was recorded.
 * @param given The trace's metadata, and how many scenarios there will be.
 */
export async function writeRecording(
  context: Context,
  target: { readonly output: string; readonly force: boolean },
  events: Iterable<TraceEvent>,
  given: { readonly meta: Meta; readonly scenarios: number },
): Promise<void> {
  using progress = context.progress("cases", given.scenarios);
  const breather = new Breather();
  let cases = 0;
  const written = await writeTrace(context, target, async (open) => {
    const writer = open(given.meta);
    for (const event of events) {
      if (event.kind === "case") {
        await breather.rest();
        context.signal.throwIfAborted();
        progress.update(cases++);
      }
      writer.write(event);
    }
  });
  progress.done();
  reportWritten(context, target.output, written, { cases });
}
