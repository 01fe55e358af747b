/**
 * The options that name a range of events.
 *
 * @module
 */
import type { EventRange, TraceFile } from "../codecs/mod.ts";
import type { Option } from "./command.ts";
import { UsageError } from "./errors.ts";

/** The options that name a range of events. */
export const RANGE = [
  { name: "from", kind: "number", doc: "Number of the first event, counted from 0" },
  { name: "to", kind: "number", doc: "Number of the first event behind the range" },
] as const satisfies readonly Option[];

/**
 * The range that options name.
 *
 * @param options Their values.
 * @param trace The trace, where it is known how many events there are.
 * @returns The range.
 * @throws {UsageError} When there is no event in it.
 */
export function rangeOf(
  options: { readonly from: number | undefined; readonly to: number | undefined },
  trace?: Pick<TraceFile, "eventCount" | "finished">,
): EventRange {
  const { from, to } = options;
  if (to !== undefined && to <= (from ?? 0)) {
    throw new UsageError(`No event is from ${from ?? 0} on and before ${to}`);
  }
  // Of a trace without its end, what is beyond the last event may only be missing.
  const count = trace?.eventCount ?? Infinity;
  if (trace?.finished && from !== undefined && from >= count) {
    throw new UsageError(
      count === 0
        ? "There is no event in the trace"
        : `Event ${from} is beyond the last one, ${count - 1}`,
    );
  }
  return { from, to };
}
