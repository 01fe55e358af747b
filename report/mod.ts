/**
 * A page that shows what policies do with a trace.
 *
 * @module
 */
export * from "./collector.ts";
export * from "./data.ts";
export { OUTCOMES, type ReportOutcome } from "./outcome.ts";
export * from "./page.ts";
export type { ReportDifference } from "./tables.ts";
export * from "./triage.ts";
