/**
 * vmtape: a flight recorder and referee for nested virtualization on AMD
 * processors (SVM under KVM).
 *
 * This is the face most programs need: record, read, write, replay, diff, policies and errors. The
 * rest is in `@vmtape/vmtape/engine` (the model and what is asked of it), `/codecs` (the container
 * and foreign formats), `/traces` (where traces come from) and `/report` (the page for a browser).
 * Nothing touches a file or the console unless asked.
 *
 * @example What two kernels do with the same scenario
 * ```ts
 * import { builtinScenarios, Differ, EARLY_EXIT, Findings, LINUX_7_3, recordScenarios } from "@vmtape/vmtape";
 *
 * const findings = new Findings();
 * const differ = new Differ([EARLY_EXIT, LINUX_7_3], (difference) => findings.add(difference));
 * for await (const event of recordScenarios(builtinScenarios("gif-left-set"), EARLY_EXIT)) {
 *   differ.feed(event);
 * }
 * differ.finish();
 * if (!findings.list().some(({ title }) => title.startsWith("GIF stays set"))) throw new Error();
 * ```
 *
 * @module
 */
export type { EventKind, EventOf, Image, TraceEvent } from "./engine/event.ts";
export {
  builtinScenarios,
  parseScenarios,
  recordScenarios,
  type Scenario,
  ScenarioError,
} from "./traces/mod.ts";
export {
  importTracepoints,
  type OpenTrace,
  openTrace,
  readTrace,
  TraceError,
  TracepointError,
  TraceWriter,
  writeTrace,
  type WriteTraceOptions,
} from "./codecs/mod.ts";
export {
  ARCHITECTURAL,
  checkPolicy,
  compileCondition,
  diagnose,
  Differ,
  EARLY_EXIT,
  eventLine,
  ExitStats,
  FailureFinder,
  type Finding,
  Findings,
  identify,
  kernelPolicy,
  LINUX_6_1,
  LINUX_6_12,
  LINUX_7_3,
  MemoizedDiffer,
  MemoizedReplayer,
  type Mismatch,
  POLICIES,
  type Policy,
  PolicyError,
  Replayer,
  ReplayError,
  type ReplayResult,
  ReplaySession,
  type RunDifference,
  type Step,
  UNIFIED,
  UPSTREAM,
  VmtapeError,
} from "./engine/mod.ts";
