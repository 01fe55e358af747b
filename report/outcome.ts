/**
 * What becomes of a VMRUN, in the words of the timeline.
 *
 * @module
 */
import type { TransitionLog } from "../engine/diff/mod.ts";
import { endOf, momentOf } from "../engine/diff/compare.ts";
import type { RunSide } from "../engine/diff/differ.ts";

/** What became of a run, in the order of the legend. */
export const OUTCOMES = [
  "entered L2",
  "failed check",
  "late failure",
  "refused",
  "failed RSM",
  "failed restore",
  "loops",
  "shuts down",
  "internal error",
  "cannot tell",
  "not seen",
] as const;

/** One of {@linkcode OUTCOMES}. */
export type ReportOutcome = typeof OUTCOMES[number];

/** What became of a run under one policy. */
export function outcomeOf({ log, vcpu }: RunSide): ReportOutcome {
  const end = endOf(vcpu);
  if (end === "loops in L1" || end === "loops in L2") return "loops";
  if (end === "shuts down") return end;
  return end === "ends in an internal error" ? "internal error" : transitionsOutcome(log);
}

/** What the transitions of a run came to. */
export function transitionsOutcome(log: TransitionLog): ReportOutcome {
  let outcome: ReportOutcome = "entered L2";
  for (const transition of log.transitions) {
    const moment = momentOf(transition, log);
    const failed = OUTCOMES.find((name) => name === moment);
    if (failed !== undefined) outcome = failed;
  }
  return outcome;
}
