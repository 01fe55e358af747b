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
export * from "./minimize.ts";
export {
  type Place,
  type Report,
  type Transition,
  TransitionLog,
  type Writer,
} from "./transitions.ts";
