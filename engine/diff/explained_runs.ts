/**
 * Why runs end differently, said once for all that end with the same values for the same reason.
 *
 * @module
 */
import type { Row } from "./compare.ts";
import type { FieldDifference, Moment, RunDifference, RunRef } from "./run_difference.ts";
import type { Incident } from "./transitions.ts";

/** Of each field that differs, the reason. */
export interface Reasons {
  /** The step that wrote it last under the first policy. */
  readonly stepsA: (string | undefined)[];
  /** Under the other. */
  readonly stepsB: (string | undefined)[];
  /** When the step ran that made the difference. */
  readonly whens: (Moment | undefined)[];
  /** The run that a follow-on comes from, if it is one that is known. */
  readonly origins: (RunRef | undefined)[];
  /** Whether it is a follow-on. */
  readonly carried: boolean[];
}

/** What is said of a run but for which run it is and where it comes from. */
export type Explained = Omit<RunDifference, keyof RunRef | "reportsOrigin">;

/** Explanations that are kept of the same fields at most. */
const MOST_KEPT = 16;

/** Lists of fields that say the same but for the runs that follow-ons come from. */
const ALIKE = new WeakMap<readonly FieldDifference[], object>();

/**
 * What lists of fields have in common that say the same but for the runs that follow-ons come from.
 *
 * @param fields The fields of a run's difference.
 * @returns An object; of lists of which that is not known each has its own.
 */
export function alikeOf(fields: readonly FieldDifference[]): object {
  return ALIKE.get(fields) ?? fields;
}

/**
 * Says of a list of fields that it is the same as another but for the runs that follow-ons come from.
 *
 * @param fields The list.
 * @param other The other.
 */
export function makeAlike(
  fields: readonly FieldDifference[],
  other: readonly FieldDifference[],
): void {
  ALIKE.set(fields, alikeOf(other));
}

/** The explanations of runs in which the same fields differ, with the same values. */
export class ExplainedRuns {
  readonly #kept: { explained: Explained; readonly reasons: Omit<Reasons, "origins"> }[] = [];

  /**
   * The explanation of a run.
   *
   * @param rows The fields.
   * @param reasons Why they differ; a buffer, which is not kept.
   * @param said The rest.
   * @returns It; where an earlier run was explained alike, of the same objects.
   */
  of(rows: readonly Row[], reasons: Reasons, said: Omit<Explained, "fields">): Explained {
    const kept = this.#kept;
    for (let i = 0; i < kept.length; i++) {
      const known = kept[i]!;
      const { fields } = known.explained;
      if (!sameReasons(rows.length, known.reasons, reasons) || !sameSaid(known.explained, said)) {
        continue;
      }
      // A follow-on of nothing that is known counts as the run's own.
      const { origins } = reasons;
      if (fields.some(({ origin }, k) => (origin === undefined) !== (origins[k] === undefined))) {
        continue;
      }
      if (fields.every(({ origin }, k) => origin === origins[k])) return known.explained;
      const moved = fields.map((field, k) => ({ ...field, origin: origins[k] }));
      makeAlike(moved, fields);
      return known.explained = { ...known.explained, fields: moved };
    }
    if (kept.length === MOST_KEPT) kept.shift();
    const { stepsA, stepsB, whens, carried } = reasons;
    const explained = { ...said, fields: fieldsOf(rows, reasons) };
    kept.push({
      explained,
      reasons: {
        stepsA: [...stepsA],
        stepsB: [...stepsB],
        whens: [...whens],
        carried: [...carried],
      },
    });
    return explained;
  }
}

function fieldsOf(rows: readonly Row[], reasons: Reasons): FieldDifference[] {
  return rows.map(({ area, row }, i) => ({
    area: area.name,
    field: row.row,
    a: row.a,
    b: row.b,
    differing: row.differing,
    stepA: reasons.stepsA[i],
    stepB: reasons.stepsB[i],
    when: reasons.whens[i],
    carried: reasons.carried[i] === true,
    origin: reasons.origins[i],
    needs: [],
  }));
}

function sameReasons(
  count: number,
  a: Omit<Reasons, "origins">,
  b: Omit<Reasons, "origins">,
): boolean {
  for (let i = 0; i < count; i++) {
    if (a.stepsA[i] !== b.stepsA[i] || a.stepsB[i] !== b.stepsB[i]) return false;
    if (a.whens[i] !== b.whens[i] || a.carried[i] !== b.carried[i]) return false;
  }
  return true;
}

function sameSaid(a: Omit<Explained, "fields">, b: Omit<Explained, "fields">): boolean {
  const { parting: p, ends: e } = a, { parting: q, ends: f } = b;
  return p.after === q.after && p.a === q.a && p.b === q.b && p.way === q.way &&
    p.check === q.check && e[0] === f[0] && e[1] === f[1] &&
    a.policies[0] === b.policies[0] && a.policies[1] === b.policies[1] &&
    sameReports(a.reports, b.reports);
}

function sameReports(a: Explained["reports"], b: Explained["reports"]): boolean {
  if (a === undefined || b === undefined) return a === b;
  return sameIncidents(a[0], b[0]) && sameIncidents(a[1], b[1]);
}

function sameIncidents(a: readonly Incident[], b: readonly Incident[]): boolean {
  return a.length === b.length && a.every((x, i) => {
    const y = b[i] as Incident;
    return x.kind === y.kind && x.id === y.id && x.text === y.text && x.way === y.way &&
      x.step === y.step;
  });
}
