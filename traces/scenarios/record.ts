/**
 * Recording the emulator: scenarios run under a policy, as trace events.
 *
 * @module
 */
import type { TraceEvent } from "../../engine/event.ts";
import type { Policy } from "../../engine/policy.ts";
import { EmulatedVm } from "./emulated_vm.ts";
import { FixedPoint } from "./fixed_point.ts";
import { ScenarioRunner } from "./runner.ts";
import type { Scenario } from "./scenario.ts";
import { parseScenario } from "./scenario_reader.ts";

/** How scenarios are recorded. */
export interface RecordOptions {
  /** Whether the hypervisor uses nested paging itself; yes when left out. */
  readonly npt?: boolean;
  /** How many times over the scenarios are run; more than once means all of them on one vCPU. */
  readonly repeat?: number;
  /** Whether every round is run, even when it is known to be the same as the one before. */
  readonly everyRound?: boolean;
  /** Whether it is recorded, too, when the active VMCB changes; not when left out. */
  readonly switches?: boolean;
  /**
   * Called when the emulator met what it does not model.
   *
   * @param scenario The scenario.
   * @param what What it met.
   */
  readonly onUnmodelled?: (scenario: Scenario, what: string) => void;
}

/** The scenarios so many times over, each with the number of its round. */
function* rounds(
  scenarios: readonly Scenario[],
  times: number,
): Generator<readonly [Scenario, number]> {
  const kept = times === 1
    ? scenarios
    : scenarios.map((s) => s.keepvm ? s : parseScenario(`${s.name} ${s.spec} keepvm`));
  for (let round = 0; round < times; round++) {
    for (const [i, scenario] of kept.entries()) {
      yield [round + i === 0 ? scenarios[0]! : scenario, round];
    }
  }
}

/**
 * Runs scenarios on the emulator and records what happens.
 *
 * From the second round on, a page that holds already what it would be set to is
 * left alone: a guest in a loop does not write its tables anew either. A round
 * that begins with the machine as the round before did is not run again: its
 * events are the same.
 *
 * @param scenarios The scenarios, in order.
 * @param policy The policy.
 * @param options How.
 * @returns The events, case after case.
 * @example
 * ```ts
 * import { builtinScenarios, recordScenarios } from "@vmtape/vmtape/traces";
 * import { UNIFIED } from "@vmtape/vmtape/engine";
 * const texts = [];
 * for (const event of recordScenarios(builtinScenarios("gif-left-set"), UNIFIED)) {
 *   if (event.kind === "check") texts.push(event.text);
 * }
 * if (texts.join() !== "control->asid == 0") throw new Error();
 * ```
 */
export function* recordScenarios(
  scenarios: readonly Scenario[],
  policy: Policy,
  options: RecordOptions = {},
): Generator<TraceEvent, void, undefined> {
  const { npt = true, switches = false, repeat = 1, everyRound = false, onUnmodelled } = options;
  const vm = new EmulatedVm(policy, { npt, full: true, switches });
  const runner = new ScenarioRunner(vm);
  const settled = new FixedPoint();
  let last = 0;
  for (const [scenario, round] of rounds(scenarios, repeat)) {
    if (round > last && !everyRound && vm.vcpu && settled.begins(vm.vcpu)) {
      for (let left = repeat - round; left > 0; left--) yield* settled.events;
      return;
    }
    last = round;
    for (const event of runner.run(scenario, round > 0)) {
      settled.keep(event);
      if (event.kind === "unmodelled") onUnmodelled?.(scenario, event.what ?? "");
      yield event;
    }
  }
}
