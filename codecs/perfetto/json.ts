/**
 * The Trace Event Format, which Perfetto and Chromium's tracing open.
 *
 * @module
 */
import type { TraceEvent } from "../../engine/event.ts";
import { type PerfettoEvent, PerfettoExport, type PerfettoNotes } from "./rows.ts";

/**
 * A trace as a file of the Trace Event Format.
 *
 * @param events The events; their images need to be valid only until the next is asked for.
 * @param title What to call the recording.
 * @param notes What to say of events, on a track of its own for each vCPU.
 * @returns The file's text, piece by piece.
 * @example
 * ```ts
 * import { perfettoText } from "@vmtape/vmtape/codecs";
 * const events = [{ kind: "case", vcpu: 0, name: "ok", time: 5000 }] as const;
 * let text = "";
 * for await (const piece of perfettoText(events, "a trace")) text += piece;
 * const names = JSON.parse(text).traceEvents.map((row: { name: string }) => row.name);
 * if (names.join() !== "process_name,thread_name,thread_name,ok") throw new Error(names.join());
 * ```
 */
export async function* perfettoText(
  events: Iterable<TraceEvent> | AsyncIterable<TraceEvent>,
  title: string,
  notes?: PerfettoNotes,
): AsyncGenerator<string> {
  const rows = new PerfettoExport(notes);
  let between = '{"traceEvents":[\n';
  const line = (row: PerfettoEvent) => {
    const text = between + JSON.stringify(row);
    between = ",\n";
    return text;
  };
  for await (const event of events) for (const row of rows.feed(event)) yield line(row);
  for (const row of rows.finish()) yield line(row);
  const other = JSON.stringify({ title, clock: rows.clock });
  yield `${between === ",\n" ? "" : between}\n],"displayTimeUnit":"ns","otherData":${other}}\n`;
}
