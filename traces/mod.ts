/**
 * Where traces come from: scenarios, random cases, the lab's recordings; and
 * how far two sources agree.
 *
 * @module
 */
export * from "./scenarios/base.ts";
export * from "./scenarios/scenario.ts";
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
