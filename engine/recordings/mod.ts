/**
 * Comparing two recordings of the same thing: two kernels, before and after a patch, two nights.
 *
 * @module
 */
export { align, type Alignment } from "./align.ts";
export {
  alignRecordings,
  type PairDifference,
  pairDifference,
  pairUp,
  type RecordingsAlignment,
} from "./compare.ts";
export {
  type RecordedPart,
  type RecordedRun,
  RecordedRuns,
  type RunOutline,
  TooManyRunsError,
} from "./recorded_run.ts";
