/**
 * Scenarios on Bochs.
 *
 * @module
 */
export { BochsError } from "./bochs_machine.ts";
export {
  BOCHS_KERNEL,
  type BochsScenarioOptions,
  type BochsScenarioResult,
  recordBochsScenarios,
} from "./scenario_recorder.ts";
