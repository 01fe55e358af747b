/**
 * The lab's records, put together from the events of a trace.
 *
 * @module
 */
import type { TraceEvent } from "../../engine/event.ts";
import { eventWeight } from "../../engine/event_weight.ts";
import { ReplayError } from "../../engine/replay/replay_error.ts";
import { CONSOLE, labEvent, migration, regsState } from "./events.ts";
import { PHASES } from "./keys.ts";
import type { LabEvent, LabRecord } from "./types.ts";

/**
 * What one record may hold, in bytes of the events it is made of: the lab's records have some ten
 * thousand. As words it takes up to twelve times as much.
 */
const MOST_BYTES = 6 << 20;

/** A {@linkcode LabRecord} being put together. */
type Draft = { -readonly [K in keyof LabRecord]: LabRecord[K] } & { events: LabEvent[] };

/**
 * Puts records together from the events of a trace, one at a time.
 *
 * @example
 * ```ts
 * import { LabRecorder } from "@vmtape/vmtape/codecs";
 * const recorder = new LabRecorder();
 * recorder.add({ kind: "session", vcpu: 0, meta: { kernel: "unified", npt: 0 } });
 * recorder.add({ kind: "case", vcpu: 0, name: "ok", spec: "" });
 * if (recorder.finish()?.case !== "ok") throw new Error();
 * ```
 */
export class LabRecorder {
  #kernel = "";
  #npt = 1;
  #sees: readonly string[] | undefined;
  #partial = false;
  #record: Draft | undefined;
  /** Of the record being put together. */
  #weight = 0;
  #index = -1;

  /**
   * Takes one event. Its bytes are not kept.
   *
   * @param event The next event.
   * @returns The record before, when the event begins another.
   * @throws {ReplayError} When there is more of one case than any kernel reports.
   */
  add(event: TraceEvent): LabRecord | undefined {
    this.#index++;
    switch (event.kind) {
      case "session": {
        const done = this.finish();
        const { kernel, policy, npt, sees, partial } = event.meta ?? {};
        this.#kernel = String(kernel ?? policy ?? "");
        this.#npt = npt === 0 || npt === false ? 0 : 1;
        this.#sees = Array.isArray(sees) ? sees.map(String) : undefined;
        this.#partial = partial === true;
        return done;
      }
      case "case": {
        const done = this.finish();
        this.#record = {
          case: event.name ?? "",
          spec: event.spec ?? "",
          kernel: this.#kernel,
          npt: this.#npt,
          ...(this.#partial ? { partial: true } : {}),
          ...(this.#sees ? { sees: this.#sees } : {}),
          events: [],
        };
        return done;
      }
    }
    const record = this.#record;
    if (!record) return undefined;
    this.#weight += eventWeight(event);
    if (this.#weight > MOST_BYTES) {
      throw new ReplayError("More was reported of one case than of any there is", this.#index);
    }
    if (event.kind === "regs") {
      if (event.phase === CONSOLE) Object.assign(record, event.extra);
      const phase = PHASES.find((name) => name === event.phase);
      if (phase) record[phase] = regsState(event);
    } else if (event.kind === "save" || event.kind === "restore") {
      const more = migration(event);
      if (Object.keys(more).length > 0) record.migrate = { ...record.migrate, ...more };
    } else if (event.kind === "setstate") {
      const { sregs_errno, errno } = event;
      if (sregs_errno !== undefined && errno !== undefined) {
        record.setstate = { sregs_errno, errno };
      }
    } else {
      const report = labEvent(event);
      if (report) record.events.push(report);
    }
    return undefined;
  }

  /**
   * Ends the last record.
   *
   * @returns It, if there is one.
   */
  finish(): LabRecord | undefined {
    const record = this.#record;
    this.#record = undefined;
    this.#weight = 0;
    return record;
  }
}

/**
 * The records that a trace holds.
 *
 * @param events The trace's events in order.
 * @returns The records in order.
 * @example
 * ```ts
 * import { labRecords } from "@vmtape/vmtape/codecs";
 * const names = [];
 * for await (const record of labRecords([{ kind: "case", vcpu: 0, name: "ok" }])) {
 *   names.push(record.case);
 * }
 * if (names.join() !== "ok") throw new Error();
 * ```
 */
export async function* labRecords(
  events: Iterable<TraceEvent> | AsyncIterable<TraceEvent>,
): AsyncGenerator<LabRecord> {
  const recorder = new LabRecorder();
  for await (const event of events) {
    const record = recorder.add(event);
    if (record) yield record;
  }
  const last = recorder.finish();
  if (last) yield last;
}
