/**
 * The subcommand `predict`.
 *
 * @module
 */
import { formatLabRecord } from "../../codecs/lab/record.ts";
import { Emulator } from "../../traces/scenarios/emulator.ts";
import { defineCommand, EXIT } from "../command.ts";
import { MMU, POLICY, policyOf, PROCESSOR } from "../policy_options.ts";
import { STEP_LIMIT } from "../step_limit.ts";
import { loadScenarios, SCENARIO_DETAILS, SCENARIO_OPERANDS } from "../scenario_inputs.ts";

/** Prints what a kernel would do with scenarios. */
export const predict = defineCommand({
  name: "predict",
  summary: "Print what a kernel of a policy would do with scenarios, as the lab's records",
  details: SCENARIO_DETAILS +
    "\n\nPrints one record a case (NDJSON), which compare and import take like those of a real kernel.",
  operands: SCENARIO_OPERANDS,
  options: [
    POLICY,
    STEP_LIMIT,
    {
      ...PROCESSOR,
      doc: "The processor beneath, for a policy that brings none (the lab's: qemu-7.2)",
    },
    MMU,
    {
      name: "full",
      kind: "flag",
      doc: "With vmcb01 and vmcb02 in inner states, and the state before",
    },
  ],
  examples: [
    {
      line: "predict cases.txt --policy unified --npt on > predicted.ndjson",
      doc: "Predict a file of cases",
    },
    { line: "predict gif-left-set --policy early-exit", doc: "Predict a built-in scenario" },
  ],
  async run(context, { options, operands }) {
    const scenarios = await loadScenarios(operands);
    const { full } = options;
    const emulator = new Emulator(await policyOf(options), { npt: options.npt !== "off", full });
    using progress = context.progress("cases", scenarios.length);
    for (const [i, scenario] of scenarios.entries()) {
      const { pre, ...record } = emulator.run(scenario);
      context.out.line(formatLabRecord(full ? { ...record, ...(pre ? { pre } : {}) } : record));
      for (const event of record.events) {
        if ("unmodelled" in event) {
          context.warn(`${scenario.name}: Not modelled: ${event.unmodelled}`);
        }
      }
      progress.update(i + 1);
    }
    return EXIT.ok;
  },
});
