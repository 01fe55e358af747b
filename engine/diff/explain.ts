/**
 * One run under two policies, step by step: what each step changed, and where
 * the policies part.
 *
 * @module
 */
import type { TraceEvent } from "../event.ts";
import type { Policy } from "../policy.ts";
import { lastEventOf, type LoggedRun, LoggedRunCollector } from "../replay/logged_runs.ts";
import { Differ, type RunView } from "./differ.ts";
import { type ExplainedStep, stepsOf } from "./explained_steps.ts";
import { stepsOfLogged } from "./explain_logged.ts";
import { PartialDiffer } from "./partial_differ.ts";
import type { RunDifference, RunRef } from "./run_difference.ts";

export { BETWEEN, type ExplainedStep, type StateChange, stepsOf } from "./explained_steps.ts";
export { stepsOfLogged, UNSEEN } from "./explain_logged.ts";

/** Steps of two policies that stand beside each other. */
export interface ExplainedRow {
  /** The first policy's step, unless it has none here. */
  readonly a: ExplainedStep | undefined;
  /** The other's. */
  readonly b: ExplainedStep | undefined;
  /** The policies part here: the first row in which their steps are not the same. */
  readonly parts: boolean;
}

/** A run under two policies. */
export interface Explanation extends RunRef {
  /** Names of the policies. */
  readonly policies: readonly [string, string];
  /** Their steps, the same ones beside each other. */
  readonly rows: readonly ExplainedRow[];
  /** What differs at the end; undefined when nothing does. */
  readonly difference: RunDifference | undefined;
}

/** Most cells of the table that finds the longest common list of steps. */
const MAX_CELLS = 4_000_000;

/**
 * Finds the run of an event in a trace, and explains it.
 *
 * @example
 * ```ts
 * import { builtinScenarios, recordScenarios } from "@vmtape/vmtape/traces";
 * import { EARLY_EXIT, Explainer, UPSTREAM } from "@vmtape/vmtape/engine";
 * const events = await Array.fromAsync(
 *   recordScenarios(builtinScenarios("gif-left-set"), EARLY_EXIT),
 * );
 * const explainer = new Explainer([EARLY_EXIT, UPSTREAM], events.length - 1);
 * for (const event of events) explainer.feed(event);
 * const rows = explainer.finish()?.rows ?? [];
 * const parting = rows.find((row) => row.parts);
 * if (parting?.a?.name !== "map vmcb12" || parting.b?.name !== "require vmcb12 address") throw new Error();
 * ```
 */
export class Explainer {
  readonly #differ: Differ;
  readonly #event: number;
  #index = 0;
  #difference: RunDifference | undefined;
  #found: { readonly ref: RunRef; readonly sides: readonly ExplainedStep[][] } | undefined;
  readonly #policies: readonly [Policy, Policy];
  readonly #logged: LoggedRunCollector;

  /**
   * Begins before the trace's first event.
   *
   * @param policies The two policies.
   * @param event Number of an event: the run that it begins, sets up or is part of.
   */
  constructor(policies: readonly [Policy, Policy], event: number) {
    this.#event = event;
    this.#policies = policies;
    this.#logged = new LoggedRunCollector((unit) => this.#loggedRun(unit));
    this.#differ = new Differ(
      policies,
      (difference) => {
        if (difference.event === this.#found?.ref.event) this.#difference = difference;
      },
      { look: (run) => this.#look(run) },
    );
  }

  /** Whether the run is over and later events do not matter. */
  get done(): boolean {
    return this.#found !== undefined;
  }

  /**
   * Takes the next event of the trace.
   *
   * @param event The event; its images need to be valid only during the call.
   * @throws {ReplayError} When an input lacks what is needed to carry it out.
   */
  feed(event: TraceEvent): void {
    if (this.done) return;
    this.#differ.feed(event);
    if (this.#logged.claims(event)) this.#logged.feed(event, this.#index);
    this.#index++;
  }

  /**
   * Ends the trace.
   *
   * @returns The run explained; undefined when the event belongs to no run that was replayed.
   */
  finish(): Explanation | undefined {
    if (!this.done) {
      this.#differ.finish();
      this.#logged.finish();
    }
    const found = this.#found;
    if (found === undefined) return undefined;
    const [a = [], b = []] = found.sides;
    return {
      ...found.ref,
      policies: [this.#policies[0].name, this.#policies[1].name],
      rows: besides(a, b),
      difference: this.#difference,
    };
  }

  /** A VMRUN of a log is over. */
  #loggedRun(unit: LoggedRun): void {
    const last = lastEventOf(unit, this.#index - 1);
    if (this.done || unit.event > this.#event || this.#event > last) return;
    const sides = this.#policies.map((policy) => stepsOfLogged(policy, unit));
    if (sides.some((side) => side === undefined)) return;
    const answer = new PartialDiffer(...this.#policies).compare(unit);
    const ref = { event: unit.event, run: 0, scenario: undefined, spec: undefined };
    this.#found = { ref, sides: sides as ExplainedStep[][] };
    if (answer === undefined || answer === "unexplained") return;
    this.#difference = {
      ...ref,
      ...answer,
      policies: [this.#policies[0].name, this.#policies[1].name],
      reportsOrigin: undefined,
    };
  }

  /** A run is over; the first that ends after the event is the one, since what sets it up is before it. */
  #look(run: RunView): void {
    const { event, run: number, scenario, spec } = run;
    if (this.#found !== undefined || this.#event >= this.#index) return;
    this.#found = {
      ref: { event, run: number, scenario, spec },
      sides: run.sides.map((side) => stepsOf(side, run.vmcb12)),
    };
  }
}

/** Puts the same steps of two lists beside each other, as many as can be. */
function besides(a: readonly ExplainedStep[], b: readonly ExplainedStep[]): ExplainedRow[] {
  const rows: ExplainedRow[] = [];
  let parted = false;
  const add = (x: ExplainedStep | undefined, y: ExplainedStep | undefined) => {
    const parts = !parted && (x === undefined || y === undefined);
    parted ||= parts;
    rows.push({ a: x, b: y, parts });
  };
  let i = 0, j = 0;
  for (const [x, y] of common(a, b)) {
    // What only one has stands beside what only the other has.
    while (i < x || j < y) add(i < x ? a[i++] : undefined, j < y ? b[j++] : undefined);
    add(a[i++], b[j++]);
  }
  while (i < a.length || j < b.length) add(a[i++], b[j++]);
  if (!parted) return rows;
  const first = rows.findIndex(({ a: x, b: y }) =>
    x === undefined || y === undefined || !same(x, y)
  );
  return rows.map((row, n) => ({ ...row, parts: n === first }));
}

function same(x: ExplainedStep, y: ExplainedStep): boolean {
  return x.name === y.name && x.way === y.way;
}

/** Indexes of a longest common list of steps. */
function common(a: readonly ExplainedStep[], b: readonly ExplainedStep[]): [number, number][] {
  const pairs: [number, number][] = [];
  const n = a.length, m = b.length;
  if (n * m > MAX_CELLS) {
    for (let i = 0; i < n && i < m && same(a[i]!, b[i]!); i++) pairs.push([i, i]);
    return pairs;
  }
  const best = new Uint32Array((n + 1) * (m + 1));
  const at = (i: number, j: number) => best[i * (m + 1) + j]!;
  for (let i = n - 1; i >= 0; i--) {
    for (let j = m - 1; j >= 0; j--) {
      best[i * (m + 1) + j] = same(a[i]!, b[j]!)
        ? at(i + 1, j + 1) + 1
        : Math.max(at(i + 1, j), at(i, j + 1));
    }
  }
  for (let i = 0, j = 0; i < n && j < m;) {
    if (same(a[i]!, b[j]!)) pairs.push([i++, j++]);
    else if (at(i + 1, j) >= at(i, j + 1)) i++;
    else j++;
  }
  return pairs;
}
