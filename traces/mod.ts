/**
 * Where traces come from: scenarios, random cases, the lab's recordings; and
 * how far two sources agree.
 *
 * @module
 */
export * from "./scenarios/base.ts";
export {
  type Change,
  type ChangeTarget,
  type CpuidRemoval,
  ENTRIES,
  type Entry,
  type LateChange,
  type Scenario,
} from "./scenarios/scenario.ts";
export {
  ScenarioError,
  type ScenarioProblem,
  type ScenarioSource,
} from "./scenarios/scenario_error.ts";
export * from "./scenarios/scenario_reader.ts";
export { bytesOf, setUpMemory } from "./scenarios/scenario_memory.ts";
export * from "./scenarios/lab_case.ts";
export * from "./scenarios/builtin.ts";
export * from "./generate/random.ts";
export * from "./generate/mutations.ts";
export * from "./generate/generate.ts";
export * from "./scenarios/lab_import.ts";
export * from "./compare/compare.ts";
export * from "./scenarios/record.ts";
export {
  type CaseText,
  minimizeCases,
  type Minimized,
  type MinimizeOptions,
  NotReproducedError,
} from "./scenarios/minimize.ts";
export type { EventSink, RecordingEnd } from "./sink.ts";
export type { ExecuteOptions, ExecuteResult, SkippedScenario } from "./scenarios/execute.ts";
export * from "./qemu/mod.ts";
export * from "./bochs/mod.ts";
export * from "./kvm/mod.ts";
export * from "./hunt/mod.ts";
