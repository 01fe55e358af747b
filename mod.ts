/**
 * vmtape: a flight recorder and referee for nested virtualization on AMD
 * processors (SVM under KVM).
 *
 * The engine models nested transitions under policies, the codecs write and
 * read traces, and the traces module says where they come from. Nothing of it
 * touches a file or the console unless asked.
 *
 * @example Record a scenario under two policies
 * ```ts
 * import { builtinScenarios, recordScenarios, UNIFIED, UPSTREAM } from "@vmtape/vmtape";
 *
 * const scenarios = builtinScenarios("eventinj-left");
 * for (const policy of [UNIFIED, UPSTREAM]) {
 *   for await (const event of recordScenarios(scenarios, policy)) {
 *     if (event.kind === "check" && event.text !== "control->asid == 0") throw new Error();
 *   }
 * }
 * ```
 *
 * @module
 */
export * from "./engine/mod.ts";
export * from "./codecs/mod.ts";
export * from "./traces/mod.ts";
