/**
 * Holding a kernel's answers against what the model foresaw.
 *
 * @module
 */
import type { LabRecord } from "../../codecs/lab/types.ts";
import { compareRecords } from "../compare/records.ts";
import { entryOf } from "../scenarios/scenario.ts";
import type { Foresight } from "./foresight.ts";

/** A case in which the kernel does otherwise than its model. */
export interface ModelGap {
  /** One mechanism has one key, as far as a field tells. */
  readonly key: string;
  /** What differs first. */
  readonly title: string;
  /** Number of the case within its unit. */
  readonly case: number;
  /** Fields and their values: the kernel's, and the model's. */
  readonly fields: readonly { readonly field: string; readonly a: string; readonly b: string }[];
}

/** Fields of a gap that are kept. */
const MOST_FIELDS = 12;

/**
 * Where a kernel first does otherwise than its model. What follows in the unit begins in another
 * state, and says nothing.
 *
 * @param foresight What the model says.
 * @param records What the kernel says.
 * @returns The gap; undefined when the model is right.
 */
export function gapOf({ records: foreseen, unit }: Foresight, records: readonly LabRecord[]):
  | ModelGap
  | undefined {
  for (const [i, record] of records.entries()) {
    const prediction = foreseen[i];
    if (prediction === undefined) return undefined;
    const { disagreements } = compareRecords(record, prediction);
    const [first] = disagreements;
    if (first === undefined) continue;
    const way = entryOf(unit[i] ?? "");
    const fields = disagreements.slice(0, MOST_FIELDS).map(({ field, a, b }) => (
      { field, a: a ?? "absent", b: b ?? "absent" }
    ));
    return { key: `gap|${way}|${first.field}`, title: titleOf(fields[0]!), case: i, fields };
  }
  return undefined;
}

function titleOf({ field, a, b }: ModelGap["fields"][number]): string {
  if (field === "unmodelled") return `The model does not model: ${b}`;
  return `The kernel has ${field} ${a}, its model ${b}`;
}

/** Whether a kernel answered the same twice. */
export function isSteady(
  once: readonly LabRecord[],
  again: readonly LabRecord[] | undefined,
): boolean {
  return again !== undefined && once.length === again.length &&
    once.every((record, i) => compareRecords(record, again[i]!).disagreements.length === 0);
}

/** Whether a signal stopped a case in a loop: where, and so what comes next, is chance. */
export function isStopped({ mid, post }: LabRecord): boolean {
  return [mid, post].some((state) => state?.rc === -1 && (state.errno ?? EINTR) === EINTR);
}

const EINTR = 4;
