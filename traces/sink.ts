/**
 * Where recorded events go, and how a recording ends.
 *
 * @module
 */
import type { TraceEvent } from "../engine/event.ts";

/** Takes events one after the other; a trace writer is one. */
export interface EventSink {
  /**
   * Takes the next event.
   *
   * @param event The event; it is not changed later.
   */
  write(event: TraceEvent): void | Promise<void>;
  /** The recording is over; called once, however it ended. */
  close(): void | Promise<void>;
}

/**
 * How a recording ended: everything was recorded (`done`), the caller's signal (`interrupted`), or
 * the machine that was recorded went away (`gone`). What was recorded is valid in each case.
 */
export type RecordingEnd = "done" | "interrupted" | "gone";

/**
 * Writes events to a sink until there are no more.
 *
 * @param events The events.
 * @param sink Takes them; it stays open.
 * @returns What the events' generator returns at its end.
 */
export async function drain<R>(
  events: AsyncGenerator<TraceEvent, R>,
  sink: EventSink,
): Promise<R> {
  for (;;) {
    const { done, value } = await events.next();
    if (done) return value;
    await sink.write(value);
  }
}
