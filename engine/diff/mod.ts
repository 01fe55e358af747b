/**
 * Comparing policies over a trace.
 *
 * @module
 */
export * from "./areas.ts";
export * from "./differ.ts";
export * from "./findings.ts";
export { type Place, type Report, type Transition, TransitionLog } from "./transitions.ts";
