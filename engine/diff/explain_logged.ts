/**
 * One VMRUN that a log shows a part of, under two policies, step by step: carried out with the
 * unknown filled in several ways, of which what comes out the same is told.
 *
 * @module
 */
import type { FieldValue } from "../image/fields.ts";
import type { Policy } from "../policy.ts";
import { VARIANTS } from "../replay/fill_unknown.ts";
import { assumptionOf, LoggedDriver } from "../replay/logged_driver.ts";
import type { LoggedRun } from "../replay/logged_runs.ts";
import { type ExplainedStep, type StateChange, stepsOf } from "./explained_steps.ts";
import { TransitionLog } from "./transitions.ts";

/** Name of the step that stands for all that depends on what a log does not show. */
export const UNSEEN = "(depends on what was not recorded)";

function sameValue(a: FieldValue, b: FieldValue): boolean {
  return a.value === b.value && a.known === b.known;
}

function sameChange(x: StateChange, y: StateChange): boolean {
  return x.area === y.area && x.field.name === y.field.name && sameValue(x.b, y.b) &&
    (sameValue(x.a, y.a) || x.differing === y.differing);
}

/** The step as all ways of filling in have it. */
function agreedStep(all: readonly ExplainedStep[]): ExplainedStep {
  const [first, ...others] = all as [ExplainedStep, ...ExplainedStep[]];
  const everywhere = (change: StateChange) =>
    others.every(({ changes }) => changes.some((other) => sameChange(change, other)));
  return { ...first, changes: first.changes.filter(everywhere) };
}

function stepsOfVariant(
  policy: Policy,
  unit: LoggedRun,
  variant: number,
): ExplainedStep[] | undefined {
  const log = new TransitionLog();
  const driver = new LoggedDriver(policy, variant);
  driver.observer = log.observer;
  const state = assumptionOf(unit, variant);
  if (state === undefined) return undefined;
  log.reset();
  driver.runFrom(unit, state);
  const { vcpu } = driver;
  return vcpu === undefined ? undefined : stepsOf({ log, vcpu }, driver.vmcb12);
}

/**
 * The steps of a policy over a VMRUN of a log, as far as they do not depend on what it does not show.
 *
 * @param policy The policy.
 * @param unit The logged run.
 * @returns The steps; where they part by what is unknown, a step named {@linkcode UNSEEN} ends them.
 * Undefined when nothing is known that fits what was recorded.
 */
export function stepsOfLogged(policy: Policy, unit: LoggedRun): ExplainedStep[] | undefined {
  const lists: ExplainedStep[][] = [];
  for (let variant = 0; variant < VARIANTS; variant++) {
    const steps = stepsOfVariant(policy, unit, variant);
    if (steps === undefined) return undefined;
    lists.push(steps);
  }
  const out: ExplainedStep[] = [];
  for (let i = 0;; i++) {
    const all = lists.flatMap((list) => list[i] ?? []);
    if (all.length === 0) return out;
    const [first] = all;
    const alike = all.length === lists.length &&
      all.every(({ name, way, reports }) =>
        name === first!.name && way === first!.way && reports.length === first!.reports.length
      );
    if (!alike) {
      const doc = "What follows is not the same for all that the log leaves open";
      out.push({ name: UNSEEN, doc, way: "", depth: 0, changes: [], reports: [] });
      return out;
    }
    out.push(agreedStep(all));
  }
}
