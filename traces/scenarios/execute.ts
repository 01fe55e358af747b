/**
 * Recording scenarios that something else runs whole (QEMU, Bochs) and tells
 * what became of them.
 *
 * @module
 */
import type { TraceEvent } from "../../engine/event.ts";
import type { RecordingEnd } from "../sink.ts";
import { type OutcomeSource, OutcomeVm, type ScenarioOutcome } from "./outcome.ts";
import { ScenarioRunner } from "./runner.ts";
import type { Scenario } from "./scenario.ts";

/** Runs scenarios whole. */
export interface ScenarioExecutor extends OutcomeSource {
  /**
   * Why a scenario cannot be set up.
   *
   * @param scenario The scenario.
   * @returns Why, and what would run it; undefined when it can.
   */
  obstacle(scenario: Scenario): string | undefined;
  /**
   * Runs one that can.
   *
   * @param scenario The scenario.
   * @param signal Ends it, where that is possible.
   * @returns What became of it; why nothing did; undefined when the machine is gone or was ended.
   */
  run(
    scenario: Scenario,
    signal: AbortSignal | undefined,
  ): Promise<ScenarioOutcome | { readonly failed: string } | undefined>;
}

/** How scenarios are executed. */
export interface ExecuteOptions {
  /** Ends the recording after the scenario under way. */
  readonly signal?: AbortSignal;
  /** Called when a scenario was run, before its events are handed out. */
  readonly onRecorded?: (scenario: Scenario) => void;
}

/** A scenario that was not recorded. */
export interface SkippedScenario {
  /** Its name. */
  readonly name: string;
  /** Why, and what would run it. */
  readonly reason: string;
}

/** What became of the scenarios. */
export interface ExecuteResult {
  /** How it ended. */
  readonly ended: RecordingEnd;
  /** How many scenarios were recorded. */
  readonly recorded: number;
  /** Those that were not, in order. */
  readonly skipped: readonly SkippedScenario[];
}

/**
 * Runs scenarios one after the other, each when its events are wanted, and tells what happened as
 * {@linkcode ScenarioRunner} does, with an exit event where L1 received a #VMEXIT.
 *
 * @param executor Runs them.
 * @param scenarios The scenarios, in order.
 * @param options How.
 * @returns The events in order; at the end, what became of the scenarios.
 */
export async function* executeScenarios(
  executor: ScenarioExecutor,
  scenarios: Iterable<Scenario>,
  options: ExecuteOptions = {},
): AsyncGenerator<TraceEvent, ExecuteResult> {
  const { signal, onRecorded } = options;
  const vm = new OutcomeVm(executor);
  const runner = new ScenarioRunner(vm);
  const skipped: SkippedScenario[] = [];
  let recorded = 0;
  for (const scenario of scenarios) {
    const { name } = scenario;
    if (signal?.aborted) return { ended: "interrupted", recorded, skipped };
    const reason = executor.obstacle(scenario);
    if (reason !== undefined) {
      skipped.push({ name, reason });
      continue;
    }
    const outcome = await executor.run(scenario, signal);
    if (outcome === undefined) {
      return { ended: signal?.aborted ? "interrupted" : "gone", recorded, skipped };
    }
    if ("failed" in outcome) {
      skipped.push({ name, reason: outcome.failed });
      continue;
    }
    recorded++;
    onRecorded?.(scenario);
    vm.load(outcome);
    for (const event of runner.run(scenario)) {
      yield event.kind === "vmrun" ? { ...event, ...vm.vmrun } : event;
    }
  }
  return { ended: "done", recorded, skipped };
}
