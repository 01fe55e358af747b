/**
 * Runs scenarios on the model and tells what it did as the lab's records do.
 *
 * @module
 */
import type { Policy } from "../../engine/policy.ts";
import type { Vcpu } from "../../engine/kvm/vcpu.ts";
import { LabRecorder } from "../../codecs/lab/recorder.ts";
import type { LabRecord } from "../../codecs/lab/record.ts";
import { type EmulatedOptions, EmulatedVm } from "./emulated_vm.ts";
import { ScenarioRunner } from "./runner.ts";
import type { Scenario } from "./scenario.ts";

/** How scenarios are run. */
export type EmulatorOptions = EmulatedOptions;

/** Runs scenarios one after another, keeping the virtual machine where they ask for it. */
export class Emulator {
  readonly #vm: EmulatedVm;
  readonly #runner: ScenarioRunner;
  readonly #recorder = new LabRecorder();

  /**
   * @param policy The policy.
   * @param options How scenarios are run.
   */
  constructor(policy: Policy, options: EmulatorOptions) {
    this.#vm = new EmulatedVm(policy, options);
    this.#runner = new ScenarioRunner(this.#vm);
  }

  /** The vCPU of the last scenario. */
  get vcpu(): Vcpu | undefined {
    return this.#vm.vcpu;
  }

  /**
   * Runs one scenario.
   *
   * @param scenario The scenario.
   * @returns What was seen, as the lab records it.
   */
  run(scenario: Scenario): LabRecord {
    for (const event of this.#runner.run(scenario)) this.#recorder.add(event);
    return this.#recorder.finish() as LabRecord;
  }
}
