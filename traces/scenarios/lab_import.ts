/**
 * The lab's recordings as traces: the inputs that a case's spec tells, in
 * order with what the kernel reported, so that a trace can be replayed alone.
 *
 * @module
 */
import type { TraceEvent } from "../../engine/event.ts";
import { type LabRecord, LabRecordError, sourceOf } from "../../codecs/lab/record.ts";
import { LabPlayback } from "./lab_playback.ts";
import { ScenarioRunner } from "./runner.ts";
import type { Scenario } from "./scenario.ts";
import { ScenarioError } from "./scenario_error.ts";
import { parseScenario } from "./scenario_reader.ts";

/**
 * Turns the lab's records into a trace.
 *
 * A record begins a session unless its case says `keepvm`. Then come the case's
 * memory, what was injected, L1's state, VMRUN or KVM_SET_NESTED_STATE, and the
 * record's reports and states in the order in which they happened.
 *
 * @param records The records in order.
 * @returns The events in order.
 * @throws {LabRecordError} When a record's spec is not understood, or it holds what an event cannot.
 * @example
 * ```ts
 * import { importLab } from "@vmtape/vmtape/traces";
 * const record = { case: "ok", spec: "gif=0", kernel: "unified", npt: 1, events: [] };
 * const kinds = new Set();
 * for await (const event of importLab([record])) kinds.add(event.kind);
 * if ([...kinds].join() !== "session,case,memory,vmrun") throw new Error([...kinds].join());
 * ```
 */
export async function* importLab(
  records: Iterable<LabRecord> | AsyncIterable<LabRecord>,
): AsyncGenerator<TraceEvent> {
  const played = new LabPlayback();
  const runner = new ScenarioRunner(played);
  for await (const record of records) {
    const scenario = readSpec(record);
    played.load(record);
    yield* runner.run(scenario);
    yield* played.rest();
  }
}

/** The scenario that a record's spec says. */
function readSpec(record: LabRecord): Scenario {
  try {
    return parseScenario(`${record.case} ${record.spec}`);
  } catch (cause) {
    if (!(cause instanceof ScenarioError)) throw cause;
    const where = { ...(sourceOf(record) ?? { line: 1 }), field: "spec" };
    throw new LabRecordError(`Field spec: ${cause.what}`, where, { cause });
  }
}
