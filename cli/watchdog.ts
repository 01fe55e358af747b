/**
 * Telling which step of a user's policy does not end. JavaScript cannot
 * interrupt a loop, but another thread can see that nothing moves on.
 *
 * @module
 */
import type { Policy, Step, StepEntry, Way } from "../engine/policy.ts";
import { POLICIES } from "../engine/policies/mod.ts";
import * as steps from "../engine/steps/mod.ts";

/** What the watching thread is told. */
export interface Watched {
  /** Words of {@linkcode WORD}. */
  readonly words: Int32Array;
  /** Names of the steps, by number. */
  readonly steps: readonly string[];
  /** Seconds after which a step counts as one that does not end. */
  readonly seconds: number;
}

/** What both threads see. */
export const WORD = {
  /** Number of the step that runs, from 1; 0 while none does. */
  step: 0,
  /** Steps begun so far. */
  begun: 1,
  /** Number of the event that was taken last. */
  event: 2,
} as const;

/** Seconds after which a step counts as one that does not end. */
const SECONDS = 5;

const words = new Int32Array(new SharedArrayBuffer(4 * Object.keys(WORD).length));
const names: string[] = [];
const noting = new WeakMap<Step, Step>();
let thread: Worker | undefined;

/** Notes the event that is being carried out. */
export function atEvent(event: number): void {
  words[WORD.event] = event;
}

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
function noted(step: Step): Step {
  if (builtin.has(step)) return step;
  const found = noting.get(step);
  if (found !== undefined) return found;
  const number = names.push(step.name);
  const wrapped: Step = {
    name: step.name,
    doc: step.doc,
    run(v) {
      const outer = words[WORD.step]!;
      words[WORD.step] = number;
      words[WORD.begun]!++;
      try {
        return step.run(v);
      } finally {
        words[WORD.step] = outer;
        words[WORD.begun]!++;
      }
    },
  };
  noting.set(step, wrapped);
  return wrapped;
}

function entries(list: readonly StepEntry[]): readonly StepEntry[] {
  return list.map((entry) => ({
    ...entry,
    step: noted(entry.step),
    ...(entry.onFail && { onFail: entries(entry.onFail) }),
  }));
}

/**
 * Has another thread watch a policy's own steps.
 *
 * @param policy The policy.
 * @returns The policy, its own steps noting when they begin and end.
 */
export function watch(policy: Policy): Policy {
  const before = names.length;
  const ways = Object.fromEntries(
    Object.entries(policy.ways).map(([way, list]) => [way, entries(list)]),
  ) as Record<Way, readonly StepEntry[]>;
  if (names.length > before) {
    thread ??= new Worker(new URL("./watchdog_thread.ts", import.meta.url), { type: "module" });
    thread.postMessage({ words, steps: [...names], seconds: SECONDS } satisfies Watched);
  }
  return { ...policy, ways };
}
