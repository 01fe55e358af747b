/**
 * Watching the steps of a user's policy.
 *
 * @module
 */
import type { Policy, Step, StepEntry, Way } from "../engine/policy.ts";
import { POLICIES } from "../engine/policies/mod.ts";
import * as steps from "../engine/steps/mod.ts";
import { enter, leave, numberOf } from "./watchdog.ts";

const noting = new WeakMap<Step, Step>();

/** The steps of lists and of their handlers. */
function* stepsOf(list: readonly StepEntry[]): Generator<Step> {
  for (const { step, onFail = [] } of list) {
    yield step;
    yield* stepsOf(onFail);
  }
}

/** The steps that come with the program: those end, and diffs tell them apart by identity. */
const builtin: ReadonlySet<unknown> = new Set<unknown>([
  ...Object.values(steps),
  ...Object.values(POLICIES).flatMap(({ ways }) =>
    Object.values(ways).flatMap((list) => [...stepsOf(list)])
  ),
]);

/** The step, noting when it begins and ends. */
function noted(step: Step, policy: string): Step {
  if (builtin.has(step)) return step;
  const found = noting.get(step);
  if (found !== undefined) return found;
  const number = numberOf(`Step "${step.name}" of ${policy}`, true);
  // A policy is told from others by the code of its steps, which is the user's, not this.
  const wrapped: Step & { readonly of: Step } = {
    of: step,
    name: step.name,
    doc: step.doc,
    run(v) {
      const outer = enter(number);
      try {
        return step.run(v);
      } finally {
        leave(outer);
      }
    },
  };
  noting.set(step, wrapped);
  return wrapped;
}

function entries(list: readonly StepEntry[], policy: string): readonly StepEntry[] {
  return list.map((entry) => ({
    ...entry,
    step: noted(entry.step, policy),
    ...(entry.onFail && { onFail: entries(entry.onFail, policy) }),
  }));
}

/**
 * Has a policy's own steps watched.
 *
 * @param policy The policy.
 * @returns The policy, its own steps noting when they begin and end.
 */
export function watch(policy: Policy): Policy {
  const ways = Object.fromEntries(
    Object.entries(policy.ways).map(([way, list]) => [way, entries(list, policy.name)]),
  ) as Record<Way, readonly StepEntry[]>;
  return { ...policy, ways };
}
