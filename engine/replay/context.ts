/**
 * What of a replay between two runs is not in the vCPU: what its session said, and
 * where in it the replay is.
 *
 * @module
 */
import type { TraceEvent } from "../event.ts";
import { policyOfSession } from "../policies/session.ts";
import type { SavedContext } from "./checkpoint.ts";

/** What a replay at rest keeps beside the vCPU; a checkpoint holds it as JSON. */
export interface ReplayContext {
  /** As in the driver. */
  readonly phase: number;
  /** Name of the policy that the session was recorded under, if it tells. */
  readonly recorded: string | undefined;
  /** What a recording lacks is unknown. */
  readonly partial: boolean;
  /** Name of the scenario under way. */
  readonly scenario: string | undefined;
  /** Addresses of the pages that the recording shows, by name. */
  readonly shows: Readonly<Record<string, unknown>>;
  /** Kinds of outcomes that the source could see; all when it does not tell. */
  readonly sees: readonly unknown[] | undefined;
}

/** The same as a checkpoint has it, which may be anybody's. */
export function contextOf(
  { phase, recorded, partial, scenario, shows, sees }: SavedContext,
): ReplayContext {
  return {
    phase: Number(phase),
    recorded: typeof recorded === "string" ? recorded : undefined,
    partial: partial === true,
    scenario: typeof scenario === "string" ? scenario : undefined,
    shows: shows as Record<string, unknown>,
    sees: Array.isArray(sees) ? sees : undefined,
  };
}

/**
 * The policy that a session says it was recorded under, or the modelled one that is the nearest to
 * the kernel that it names.
 *
 * @param event Any event.
 * @returns Its name; undefined of other events, and where the session does not tell.
 * @example
 * ```ts
 * import { recordedPolicy } from "@vmtape/vmtape/engine";
 * const meta = { source: "lab", kernel: "unified" };
 * if (recordedPolicy({ kind: "session", vcpu: 0, meta }) !== "unified") throw new Error();
 * ```
 */
export function recordedPolicy(event: TraceEvent): string | undefined {
  return event.kind === "session" ? policyOfSession(event.meta)?.name : undefined;
}
