/**
 * What of two records is compared, and in which group each difference counts.
 *
 * @module
 */

/** What is compared, by group. */
export const GROUPS = {
  1: "failed checks and broken assertions",
  2: "inner states: number, order, nested, cpu",
  3: "vmcb01 and vmcb02",
  4: "what userspace sees, and vmcb12",
} as const;

/** Number of a group. */
export type Group = keyof typeof GROUPS;

/** The groups in order. */
export const GROUP_NUMBERS: readonly Group[] = [1, 2, 3, 4];

/** One field that differs in one case. */
export interface Disagreement {
  /** Group it counts in. */
  readonly group: Group;
  /** Path of the field: `post.gif`, `vmexit.nested.run_pending`, `vmrun.vmcb02 control.event_inj`. */
  readonly field: string;
  /** Its value in the first record; absent when it has none. */
  readonly a?: string;
  /** Its value in the second. */
  readonly b?: string;
}

/** Two records of one case, compared. */
export interface CaseComparison {
  /** Everything that differs, in the order of the record. */
  readonly disagreements: readonly Disagreement[];
  /** Groups of which one of the records holds nothing. */
  readonly unknown: ReadonlySet<Group>;
}

/** Takes the two values of a field, which may be the same. */
export type Differ = (
  group: Group,
  field: string,
  a: string | undefined,
  b: string | undefined,
) => void;
