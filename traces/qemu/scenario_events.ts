/**
 * What became of a scenario under a debugger, as a record of the lab's form and as events.
 *
 * @module
 */
import type { LabRecord } from "../../codecs/lab/record.ts";
import type { TraceEvent } from "../../engine/event.ts";
import type { Scenario } from "../scenarios/scenario.ts";
import { labState } from "./lab_view.ts";
import type { ScenarioOutcome } from "./scenario_machine.ts";

/** The importer's event with what a debugger showed of it; `source` is what a session tells of it. */
export function* asSeen(
  event: TraceEvent,
  outcome: ScenarioOutcome,
  source: Readonly<Record<string, unknown>>,
  started: number,
): Generator<TraceEvent> {
  const time = (at: number) => ({ time: Math.round((at - started) * 1e6) });
  if (event.kind === "session") {
    yield { ...event, meta: { ...event.meta, ...source, partial: true } };
  } else if (event.kind === "vmrun") {
    yield { ...event, ...time(outcome.startedAt), regs: outcome.before.image() };
  } else if (event.kind === "regs" && event.phase === "post") {
    if (outcome.end === "exit") {
      const { vmcb12 } = outcome;
      yield {
        kind: "exit",
        vcpu: 0,
        ...time(outcome.stoppedAt),
        vmcb12_gpa: outcome.vmcb12Gpa,
        regs: outcome.after!.image(),
        ...(vmcb12 === undefined ? {} : { vmcb12: { bytes: vmcb12 } }),
      };
    }
    yield event;
  } else {
    yield event;
  }
}

/** KVM_EXIT_* numbers that the lab's rig would have got. */
const KVM_EXIT = { io: 2, hlt: 5, shutdown: 8 } as const;

/** What became of a scenario, as a record of the lab's form. */
export function recordOf(
  scenario: Scenario,
  outcome: ScenarioOutcome,
  kernel: string,
): LabRecord {
  const { before, after, end } = outcome;
  const stopped = { rc: 0, errno: 0 };
  const how = {
    exit: { ...stopped, exit: KVM_EXIT.io, port: "80" },
    "l2-port": { ...stopped, exit: KVM_EXIT.io, port: "80" },
    hlt: { ...stopped, exit: KVM_EXIT.hlt },
    shutdown: { ...stopped, exit: KVM_EXIT.shutdown },
    limit: { rc: -1, errno: 4 },
  }[end];
  return {
    case: scenario.name,
    spec: scenario.spec,
    kernel,
    npt: 1,
    partial: true,
    events: [],
    pre: labState(before, outcome.vmcb12Before),
    post: { ...labState(after, outcome.vmcb12), ...how },
  };
}
