/**
 * Gathers what a report shows while a trace runs under several policies.
 *
 * @module
 */
import type { TraceEvent } from "../engine/event.ts";
import {
  Differ,
  type DiffResult,
  type ExplainedStep,
  type RunDifference,
  type RunRef,
  type RunView,
  stepsOf,
  stepsOfLogged,
} from "../engine/diff/mod.ts";
import { MemoizedDiffer } from "../engine/memo/mod.ts";
import type { Policy } from "../engine/policy.ts";
import type { LoggedRun } from "../engine/replay/logged_runs.ts";
import type { ReportData, ReportLatency } from "./data.ts";
import { LoggedOutcomes, recordedOutcome } from "./logged_outcomes.ts";
import { outcomeOf } from "./outcome.ts";
import { type ReportDifference, ReportTables } from "./tables.ts";

/** How a report is gathered. */
export interface ReportOptions {
  /** Whether runs are carried out that repeat another byte for byte; what the report shows is the same. */
  readonly each?: boolean;
  /** Receives every difference, too. */
  readonly difference?: (difference: ReportDifference) => void;
}

/**
 * Gathers a report.
 *
 * @example
 * ```ts
 * import { builtinScenarios, EARLY_EXIT, recordScenarios, UPSTREAM } from "@vmtape/vmtape";
 * import { ReportCollector } from "@vmtape/vmtape/report";
 * const collector = new ReportCollector([EARLY_EXIT, UPSTREAM]);
 * for await (const event of recordScenarios(builtinScenarios("gif-left-set"), EARLY_EXIT)) {
 *   collector.feed(event);
 * }
 * const { outcomes, outcomeOf, findings } = collector.finish("One VMRUN");
 * if (outcomes[outcomeOf[0]?.[0] ?? -1] !== "failed check") throw new Error();
 * if (!findings.some(({ title }) => title.startsWith("GIF stays set"))) throw new Error();
 * ```
 */
export class ReportCollector {
  readonly #policies: readonly Policy[];
  /** The first compares all others with the first policy, the next those behind with the second, and so on. */
  readonly #differs: readonly Pick<Differ, "feed" | "finish" | "policies">[];
  /** For each of them, which run a run repeats. */
  readonly #likes: readonly number[][];
  readonly #tables: ReportTables;
  readonly #logged: LoggedOutcomes;
  readonly #report: ((difference: ReportDifference) => void) | undefined;
  /** For each differ, how the steps of its run are told. */
  readonly #explain: (() => readonly (readonly ExplainedStep[] | undefined)[])[] = [];

  /**
   * Begins before the trace's first event.
   *
   * @param policies Two or more; every two of them are compared.
   * @param options How.
   */
  constructor(policies: readonly Policy[], { each = false, difference }: ReportOptions = {}) {
    this.#policies = policies;
    this.#tables = new ReportTables(policies.map(({ name }) => name));
    this.#report = difference;
    const differ = (a: number, own: readonly Policy[]) => {
      const report = (difference: RunDifference) => this.#difference({ from: a, difference });
      const differ: Differ | MemoizedDiffer = new (each ? Differ : MemoizedDiffer)(own, report, {
        each,
        look: (run: RunView) => {
          if (a === 0) this.#run(run);
          this.#explain[a] = () => run.sides.map((side) => stepsOf(side, run.vmcb12));
        },
        lookLogged: (unit: LoggedRun, run: RunRef) => {
          if (a === 0) this.#tables.run(run, this.#logged.of(unit), recordedOutcome(unit));
          this.#explain[a] = () => differ.policies.map((policy) => stepsOfLogged(policy, unit));
        },
        repeated: (run: RunRef, like: number) => {
          if (a === 0) this.#tables.again(run, like);
          (this.#likes[a] as number[])[run.run] = like;
          // What its steps wrote is gone.
          this.#explain[a] = () => [];
        },
      });
      return differ;
    };
    const first = differ(0, policies);
    this.#logged = new LoggedOutcomes(first.policies, each);
    const others = policies.slice(1, -1).map((_, i) => differ(i + 1, first.policies.slice(i + 1)));
    this.#differs = [first, ...others];
    this.#likes = this.#differs.map(() => []);
  }

  /**
   * Takes the next event of the trace.
   *
   * @param event The event; its images need to be valid only during the call.
   * @throws {ReplayError} When an input lacks what is needed to carry it out.
   */
  feed(event: TraceEvent): void {
    for (const differ of this.#differs) differ.feed(event);
  }

  /**
   * Ends the trace.
   *
   * @returns For each policy that others are compared with, the counts.
   */
  end(): DiffResult[] {
    return this.#differs.map((differ) => differ.finish());
  }

  /**
   * What was gathered.
   *
   * @param title What to call the report.
   * @param latency Latencies, when they were measured.
   * @param results What {@linkcode ReportCollector.end} gave, when the trace was ended before.
   * @returns What the page shows.
   */
  finish(
    title: string,
    latency: readonly ReportLatency[] = [],
    results: readonly DiffResult[] = this.end(),
  ): ReportData {
    return this.#tables.finish(title, results, latency);
  }

  #run(run: RunView): void {
    const sides = run.sides.map((side) => {
      const { transitions, reports } = side.log;
      return { outcome: outcomeOf(side), transitions, reports };
    });
    this.#tables.run(run, sides);
  }

  #difference(one: ReportDifference): void {
    const { from: a, difference: { run } } = one;
    this.#report?.(one);
    this.#tables.differs(one, this.#likes[a]?.[run] ?? -1, () => {
      const told = this.#explain[a]?.() ?? [];
      return this.#policies.map((_, i) => {
        const steps = told[i - a];
        return steps === undefined ? null : this.#tables.told(steps);
      });
    });
  }
}
