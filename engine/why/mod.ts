/**
 * Why a VMRUN failed: which check, what of vmcb12 it looked at, and what each kernel makes of it.
 *
 * @module
 */
export {
  FailureFinder,
  type FoundExit,
  type FoundRun,
  type RecordedCheck,
  runFailed,
} from "./failed_run.ts";
export { type LeftBehind, LeftBehindBy } from "./left_behind.ts";
export { leftUnknown } from "./left_unknown.ts";
export { type ReadField, readFields } from "./offending.ts";
export { diagnose, type Diagnosis, type SetAnswer } from "./diagnosis.ts";
