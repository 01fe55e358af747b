/**
 * What cases reach: steps, failed checks, exits of L2, fields that were changed.
 *
 * @module
 */
import type { LabRecord } from "../../codecs/lab/types.ts";
import type { RunView } from "../../engine/diff/mod.ts";
import { FAIL, type Policy, type StepEntry, WAYS } from "../../engine/policy.ts";
import { exitCodeName } from "../../engine/svm/exit_codes.ts";
import { SAVE_AREA, VMCB_LAYOUT } from "../../engine/svm/vmcb_fields.ts";
import { entryOf, type Scenario } from "../scenarios/scenario.ts";
import { VMCB12_GPA } from "../scenarios/base.ts";

/** One class of what can be reached. */
export interface Reached {
  /** What is counted. */
  readonly what: string;
  /** How much of it was reached. */
  readonly reached: number;
  /** How much there is; undefined where nobody knows. */
  readonly of: number | undefined;
  /** What was not reached, where it is known what there is. */
  readonly missing: readonly string[];
}

/** What one run of the kernel's policy went through. */
export function* featuresOfRun({ sides: [kernel] }: RunView): Generator<string> {
  if (kernel === undefined) return;
  for (const { way, steps, outcome } of kernel.log.transitions) {
    for (const step of steps) yield `step ${way} ${step.name}`;
    if (outcome === FAIL) yield `fails ${way} ${steps.at(-1)?.name}`;
  }
  for (const { kind, id, text, way } of kernel.log.reports) {
    yield kind === "check" ? `check ${way} ${id}` : `warn ${text}`;
  }
}

/** How a case ended. */
export function* featuresOfRecord({ spec, post, mid }: LabRecord): Generator<string> {
  const way = entryOf(spec);
  if (post?.exit !== undefined) yield `end ${way} ${post.rc} ${post.exit}`;
  for (const state of [mid, post]) {
    const code = state?.vmcb12?.["070"];
    if (code !== undefined) yield `exit ${exitCodeName(BigInt(`0x${code}`))}`;
  }
}

/** Which fields of vmcb12 a case changes, and what besides. */
export function* featuresOfChanges(scenario: Scenario): Generator<string> {
  const { entry, spec } = scenario;
  for (const { gpa, size } of scenario.changes) yield* fieldsAt(entry, gpa - VMCB12_GPA, size);
  for (const { target, offset, size } of scenario.late) {
    if (target === "control" || target === "nested") yield* fieldsAt(entry, offset, size);
    else if (target === "save") yield* fieldsAt(entry, SAVE_AREA + offset, size);
  }
  for (const word of spec.split(" ")) {
    const name = /^(?:[a-z0-9]+$|[a-z0-9]+(?==))/.exec(word)?.[0];
    if (name !== undefined) yield `word ${entry} ${name}`;
  }
}

function* fieldsAt(entry: string, at: number, size: number): Generator<string> {
  for (const field of VMCB_LAYOUT.fields) {
    if (at < field.offset + field.size && field.offset < at + size) {
      yield `field ${entry} ${field.name}`;
    }
  }
}

/** Counts how often each feature was met. */
export class Coverage {
  readonly #seen: Map<string, number>;

  /** @param seen Counts to go on from. */
  constructor(seen: Readonly<Record<string, number>> = {}) {
    this.#seen = new Map(Object.entries(seen));
  }

  /** Counts the features of a unit. */
  add(features: Iterable<string>): void {
    for (const feature of features) this.#seen.set(feature, (this.#seen.get(feature) ?? 0) + 1);
  }

  /** How much a unit is worth: the more, the seldomer what it reaches was reached. */
  worth(features: Iterable<string>): number {
    let sum = 0;
    for (const feature of features) sum += 1 / (1 + (this.#seen.get(feature) ?? 0));
    return sum;
  }

  /** The counts, to be kept. */
  counts(): Record<string, number> {
    return Object.fromEntries([...this.#seen].sort(([a], [b]) => a < b ? -1 : 1));
  }

  /**
   * What of a policy was reached.
   *
   * @param policy The kernel's policy.
   */
  reached(policy: Policy): Reached[] {
    const steps = new Set(
      WAYS.flatMap((way) => [...stepsOf(policy.ways[way])].map((name) => `${way} ${name}`)),
    );
    const checks = new Set(policy.kernel.checks.checks.map(({ id }) => id));
    const fields = new Set(VMCB_LAYOUT.fields.map(({ name }) => name));
    return [
      this.#part("steps", steps, "step "),
      this.#part("checks failed", checks, "check ", 1),
      this.#part("fields changed", fields, "field ", 1),
      this.#part("exits of L2", undefined, "exit "),
      this.#part("ends of a run", undefined, "end "),
      this.#part("assertions", undefined, "warn "),
    ];
  }

  /** The features of one class; `from` is how many words before their name do not count. */
  #part(what: string, all: ReadonlySet<string> | undefined, prefix: string, from = 0): Reached {
    const names = new Set<string>();
    for (const feature of this.#seen.keys()) {
      if (!feature.startsWith(prefix)) continue;
      const name = feature.slice(prefix.length).split(" ").slice(from).join(" ");
      if (all === undefined || all.has(name)) names.add(name);
    }
    const missing = all === undefined ? [] : [...all].filter((name) => !names.has(name));
    return { what, reached: names.size, of: all?.size, missing };
  }
}

function* stepsOf(entries: readonly StepEntry[]): Generator<string> {
  for (const { step, onFail } of entries) {
    yield step.name;
    if (onFail !== undefined) yield* stepsOf(onFail);
  }
}
