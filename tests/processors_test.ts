import { assert, assertEquals } from "@std/assert";
import { LabRecorder } from "../codecs/lab/recorder.ts";
import { LINUX_6_12 } from "../engine/policies/mod.ts";
import { onProcessor } from "../engine/policy.ts";
import { AMD, type ProcessorModel, PROCESSORS, QUIRKS } from "../engine/processors/mod.ts";
import { LAB_CPUID } from "../engine/svm/cpuid.ts";
import { EmulatedVm } from "../traces/scenarios/emulated_vm.ts";
import { ScenarioRunner } from "../traces/scenarios/runner.ts";
import { parseScenarios } from "../traces/scenarios/scenario_reader.ts";

/** A machine whose processor saves the next RIP, and tells L1 so. */
class WithNextRip extends EmulatedVm {
  override get session(): Readonly<Record<string, unknown>> {
    const { session } = { session: super.session };
    const cpuid = LAB_CPUID.set("nrip_save", true).toMeta();
    const capabilities = { ...session["capabilities"] as object, cpuid, host_cpuid: cpuid };
    return { ...session, capabilities };
  }
}

/** What becomes of a scenario on a processor. */
function outcome(scenario: string, processor: ProcessorModel, Vm = EmulatedVm): string {
  const vm = new Vm(onProcessor(LINUX_6_12, processor), { npt: true, full: true });
  const recorder = new LabRecorder();
  for (const parsed of parseScenarios(`case ${scenario}`)) {
    for (const event of new ScenarioRunner(vm).run(parsed)) recorder.add(event);
  }
  return JSON.stringify([recorder.finish(), vm.vcpu?.unmodelled]);
}

for (const { id, scenario } of QUIRKS) {
  if (scenario === undefined) continue;
  const machine = id === "savesNoNextRip" ? WithNextRip : EmulatedVm;
  Deno.test(`processors: ${id} is what its scenario shows`, () => {
    for (const model of Object.values(PROCESSORS).filter((processor) => processor[id])) {
      const { name } = model;
      const without = outcome(scenario, { ...model, [id]: false }, machine);
      assert(
        outcome(scenario, model, machine) !== without,
        `${scenario} ends the same on ${name} without it`,
      );
    }
  });
}

Deno.test("processors: the manual's has no deviation, and each is some processor's", () => {
  for (const { id } of QUIRKS) {
    assertEquals(AMD[id], false, id);
    assert(Object.values(PROCESSORS).some((model) => model[id]), id);
  }
  assertEquals(new Set(QUIRKS.map(({ id }) => id)).size, QUIRKS.length);
});
