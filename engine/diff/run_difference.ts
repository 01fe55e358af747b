/**
 * What it means that a run ends up differently under two policies.
 *
 * @module
 */
import type { FieldValue } from "../image/fields.ts";
import type { Field } from "../layout.ts";
import type { Way } from "../policy.ts";
import type { AreaName } from "./areas.ts";
import type { Incident } from "./transitions.ts";

/** A field that has two values: under two policies, or before and after. */
export interface TwoValues {
  /** The part of the state. */
  readonly area: AreaName;
  /** The field's row; one made up for bytes that no field covers. */
  readonly field: Field;
  /** Its value under the first policy, or before. */
  readonly a: FieldValue;
  /** Its value under the other, or after. */
  readonly b: FieldValue;
  /** Mask of the bits that differ. Of a log, those that do for some of what was not recorded. */
  readonly differing: bigint;
}

/** One field that two policies leave different. */
export interface FieldDifference extends TwoValues {
  /** The step that wrote it last under the first policy; undefined when none did in this run. */
  readonly stepA: string | undefined;
  /** The same under the other. */
  readonly stepB: string | undefined;
  /** When the step ran that made the difference; undefined when none did. */
  readonly when: Moment | undefined;
  /**
   * A follow-on: had the second policy begun this run with the first one's state,
   * the field would be the same. The cause is an earlier run.
   */
  readonly carried: boolean;
  /** The run that left the state behind which a follow-on comes from. */
  readonly origin: RunRef | undefined;
  /** What was not recorded and decides whether the field differs at all; empty when it does. */
  readonly needs: readonly string[];
}

/** The kind of transition that a difference was made in. */
export type Moment =
  | "entry"
  | "failed check"
  | "late failure"
  | "refused"
  | "#VMEXIT"
  | "RSM"
  | "failed RSM"
  | "restore"
  | "failed restore"
  | "pages";

/** A run of the trace. */
export interface RunRef {
  /** Number of the event that began it. */
  readonly event: number;
  /** Number of the run, from 0. */
  readonly run: number;
  /** Name of its scenario, when the trace names it. */
  readonly scenario: string | undefined;
  /** Its spec, when the trace has it. */
  readonly spec: string | undefined;
}

/** Where two policies' steps first part. */
export interface Parting {
  /** The step before, which both ran; empty at the very beginning. */
  readonly after: string;
  /** The step that follows under the first policy; empty when it was at its end. */
  readonly a: string;
  /** The step that follows under the other. */
  readonly b: string;
  /** The way into or out of L2 in which they part; empty when they do not. */
  readonly way: Way | "";
  /** The check that failed, if one did under either policy. */
  readonly check: string | undefined;
}

/** One run that ends up differently under two policies. */
export interface RunDifference extends RunRef {
  /** Names of the two policies. */
  readonly policies: readonly [string, string];
  /** Fields that differ. */
  readonly fields: readonly FieldDifference[];
  /** Failed checks and broken assertions under each, when they differ. */
  readonly reports: readonly [readonly Incident[], readonly Incident[]] | undefined;
  /**
   * The run that left the state behind because of which the reports or the ends
   * differ, when they would not have from the same state.
   */
  readonly reportsOrigin: RunRef | undefined;
  /** How the run ends under each. */
  readonly ends: readonly [RunEnd, RunEnd];
  /** Where the steps part. */
  readonly parting: Parting;
}

/** How a run ends: what KVM_RUN says last, and who was running. */
export type RunEnd =
  | "goes on in L1"
  | "goes on in L2"
  | "loops in L1"
  | "loops in L2"
  | "shuts down"
  | "ends in an internal error";
