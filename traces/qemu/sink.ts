/**
 * Where recorded events go.
 *
 * @module
 */
import type { TraceEvent } from "../../engine/event.ts";

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
 * QEMU went away (`gone`). What was recorded is valid in each case.
 */
export type RecordingEnd = "done" | "interrupted" | "gone";
