/**
 * Which runs the differences of a stretch refer to, so that the same stretch
 * later on refers to its own runs, or to the same earlier ones.
 *
 * @module
 */
import { makeAlike } from "../diff/explained_runs.ts";
import type { FieldDifference, RunDifference, RunRef } from "../diff/run_difference.ts";

/**
 * Where a reference comes from: the number of one that was there when the stretch began, or, below
 * 0, the run of the stretch: -1 for its first.
 */
type Source = number;

/** What a stretch reported, apart from where it is in the trace. */
export interface RepeatedReports {
  /** Its runs; events and runs are counted from its beginning. */
  readonly runs: readonly RunRef[];
  /** Number of its first run when it was carried out. */
  readonly first: number;
  readonly reports: readonly KnownReport[];
  /** Sources of the references that are there at its end. */
  readonly refs: readonly Source[];
}

interface KnownReport {
  /** Events and runs are counted from the beginning of the stretch. */
  readonly difference: RunDifference;
  /** Of each field's origin. */
  readonly origins: readonly (Source | undefined)[];
  /** Whether any field has one. */
  readonly carried: boolean;
  readonly reportsOrigin: Source | undefined;
  /** The fields as they were last handed out, and what their origins were then. */
  fields: readonly FieldDifference[];
  from: readonly (RunRef | undefined)[];
}

/** Follows references to runs through a stretch. */
export class RefBook {
  /** References that are there while the comparison rests. */
  refs: readonly RunRef[] = [];
  #open = false;
  #before: readonly RunRef[] = [];
  #event = 0;
  #run = 0;
  #runs: RunRef[] = [];
  #reports: RunDifference[] = [];

  /** A stretch begins with an event; so many runs were before it. */
  begin(event: number, run: number): void {
    this.#open = true;
    this.#before = this.refs;
    this.#event = event;
    this.#run = run;
    this.#runs = [];
    this.#reports = [];
  }

  /** A run is over. */
  ran(ref: RunRef): void {
    if (this.#open) this.#runs.push(ref);
  }

  /** A run made a difference. */
  reported(difference: RunDifference): void {
    if (this.#open) this.#reports.push(difference);
  }

  /** The stretch is over; undefined when it refers to what it cannot know. */
  end(): RepeatedReports | undefined {
    if (!this.#open) return undefined;
    this.#open = false;
    const sources = new Map<RunRef, Source>(this.#before.map((ref, i) => [ref, i]));
    this.#runs.forEach((ref, i) => sources.set(ref, -1 - i));
    let known = true;
    const sourceOf = (ref: RunRef): Source => {
      const source = sources.get(ref);
      if (source === undefined) known = false;
      return source ?? 0;
    };
    const relative = <T extends RunRef>(ref: T): T => ({
      ...ref,
      event: ref.event - this.#event,
      run: ref.run - this.#run,
    });
    const reports = this.#reports.map((difference): KnownReport => {
      const { fields, reportsOrigin } = difference;
      const origins = fields.map(({ origin }) => origin && sourceOf(origin));
      return {
        difference: relative(difference),
        origins,
        carried: origins.some((source) => source !== undefined),
        reportsOrigin: reportsOrigin && sourceOf(reportsOrigin),
        fields,
        from: fields.map(({ origin }) => origin),
      };
    });
    const refs = this.refs.map(sourceOf);
    this.#reports = [];
    return known ? { runs: this.#runs.map(relative), first: this.#run, reports, refs } : undefined;
  }

  /**
   * Reports what a stretch reported, as of another place in the trace.
   *
   * @param stretch The stretch.
   * @param event Number of its first event.
   * @param run Number of its first run.
   * @param report Receives the differences.
   * @param repeated Receives the runs, each with the number of the one that was carried out.
   */
  repeat(
    stretch: RepeatedReports,
    event: number,
    run: number,
    report: (difference: RunDifference) => void,
    repeated?: (run: RunRef, like: number) => void,
  ): void {
    const before = this.refs;
    const runs = stretch.runs.map((ref) => ({
      ...ref,
      event: ref.event + event,
      run: ref.run + run,
    }));
    if (repeated !== undefined) {
      for (const ref of runs) repeated(ref, stretch.first + ref.run - run);
    }
    const refOf = (source: Source) => (source < 0 ? runs[-1 - source] : before[source]) as RunRef;
    for (const known of stretch.reports) {
      const { difference, reportsOrigin } = known;
      if (known.carried) refresh(known, refOf);
      report({
        ...difference,
        event: difference.event + event,
        run: difference.run + run,
        fields: known.fields,
        reportsOrigin: reportsOrigin === undefined ? undefined : refOf(reportsOrigin),
      });
    }
    this.refs = stretch.refs.map(refOf);
  }
}

/** Gives the fields the origins they have now; where these are the same, they stay the same objects. */
function refresh(known: KnownReport, refOf: (source: Source) => RunRef): void {
  const { origins, from } = known;
  const now = origins.map((source) => source === undefined ? undefined : refOf(source));
  if (now.every((ref, i) => ref === from[i])) return;
  known.from = now;
  const fields = known.fields.map((field, i) => ({ ...field, origin: now[i] }));
  makeAlike(fields, known.fields);
  known.fields = fields;
}
