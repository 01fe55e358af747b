/**
 * Comparing policies over a trace.
 *
 * @module
 */
export * from "./areas.ts";
export * from "./differ.ts";
export * from "./run_difference.ts";
export * from "./explain.ts";
export * from "./findings.ts";
export * from "./gathered_runs.ts";
export * from "./minimize.ts";
export { plainDifference, plainExplanation, plainFinding } from "./plain.ts";
export { fieldText, partedText, shortTexts, type ValueTexts, valueTexts } from "./wording.ts";
export {
  type Incident,
  type Keeps,
  type Transition,
  TransitionLog,
  type Writer,
} from "./transitions.ts";
