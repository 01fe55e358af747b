/**
 * The subcommand `record`.
 *
 * @module
 */
import { recordScenarios } from "../../traces/scenarios/record.ts";
import { defineCommand, EXIT, FORCE, OUTPUT } from "../command.ts";
import { MMU, POLICY, policyOf, PROCESSOR } from "../policy_options.ts";
import { STEP_LIMIT } from "../step_limit.ts";
import { UsageError } from "../errors.ts";
import { writeRecording } from "../recording.ts";
import { loadScenarios, SCENARIO_DETAILS, SCENARIO_OPERANDS } from "../scenario_inputs.ts";

/** Runs scenarios on the emulator, and records. */
export const record = defineCommand({
  name: "record",
  summary: "Run scenarios on the built-in emulator, and record what happens",
  details: SCENARIO_DETAILS + "\n\nCtrl-C ends the recording; what was recorded is a whole trace.",
  operands: SCENARIO_OPERANDS,
  options: [
    OUTPUT,
    POLICY,
    STEP_LIMIT,
    {
      ...PROCESSOR,
      doc: "The processor beneath, for a policy that brings none (the lab's: qemu-7.2)",
    },
    MMU,
    {
      name: "repeat",
      short: "n",
      kind: "number",
      doc: "Run them so many times over, all on one vCPU (1)",
    },
    {
      name: "switches",
      kind: "flag",
      doc: "Also record each time the active VMCB changes, to vmcb01 or vmcb02",
    },
    FORCE,
  ],
  examples: [
    { line: "record -o run.vmtape", doc: "Record all built-in scenarios" },
    {
      line: "record mine.txt -o run.vmtape --policy unified --npt off",
      doc: "Record a file of cases under another policy, with shadow paging",
    },
    {
      line: "record enter -o long.vmtape --repeat 100000",
      doc: "A long trace of one scenario, to measure with",
    },
  ],
  async run(context, { options, operands }) {
    const { repeat = 1 } = options;
    if (repeat === 0) throw new UsageError("Option --repeat is at least 1");
    const scenarios = await loadScenarios(operands);
    const policy = await policyOf(options);
    const npt = options.npt !== "off";
    const events = recordScenarios(scenarios, policy, {
      npt,
      repeat,
      switches: options.switches,
      onUnmodelled: ({ name }, what) => context.warn(`${name}: Not modelled: ${what}`),
    });
    const meta = { source: "emulator", policy: policy.name, npt: npt ? "on" : "off" };
    await writeRecording(context, options, events, { meta, scenarios: scenarios.length * repeat });
    return EXIT.ok;
  },
});
