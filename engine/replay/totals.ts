/**
 * What a replay counts, and how much of it a stretch of the trace added.
 *
 * @module
 */
import type { OutcomeCount } from "./agreement.ts";
import { type CrcShift, crcShift, shiftCrc } from "../svm/crc.ts";
import { RunningDigest } from "../svm/digest.ts";

/** What a stretch of a trace added. */
export interface Added {
  /** Runs. */
  readonly runs: number;
  /** Runs that agree. */
  readonly agreed: number;
  /** Runs without inputs. */
  readonly skipped: number;
  /** Outcomes by kind: the row, and what was added to it. */
  readonly outcomes: readonly (readonly [OutcomeCount, OutcomeCount])[];
  /** What the model does not model, with how often. */
  readonly unmodelled: readonly (readonly [string, number])[];
  /** Bytes that were digested. */
  readonly digested: number;
  /** What so many bytes do to the digest of what came before. */
  readonly shift: CrcShift;
  /** CRC-32 of these bytes, signed. */
  readonly crc: number;
}

/** Counts at one moment. */
export interface Mark {
  /** As in {@linkcode Totals}. */
  readonly runs: number;
  /** As in {@linkcode Totals}. */
  readonly agreed: number;
  /** As in {@linkcode Totals}. */
  readonly skipped: number;
  /** A copy. */
  readonly outcomes: ReadonlyMap<string, OutcomeCount>;
  /** A copy. */
  readonly unmodelled: ReadonlyMap<string, number>;
  /** The digest's value. */
  readonly digest: number;
  /** Bytes it is over. */
  readonly digested: number;
}

/** Counts, and the digest of all states. */
export class Totals {
  /** Runs carried out. */
  runs = 0;
  /** Runs that agree with the recording in everything. */
  agreed = 0;
  /** Runs whose inputs are not in the trace. */
  skipped = 0;
  /** Outcomes by kind. */
  readonly outcomes: Map<string, OutcomeCount> = new Map();
  /** What the model met and does not model. */
  readonly unmodelled: Map<string, number> = new Map();
  /** Digest over all modelled state at the end of every run. */
  readonly digest: RunningDigest = new RunningDigest();
  readonly #shifts = new Map<number, CrcShift>();

  /** Counts an outcome. */
  outcome(kind: string, agreed: boolean): void {
    let row = this.outcomes.get(kind);
    if (row === undefined) this.outcomes.set(kind, row = { compared: 0, agreed: 0 });
    row.compared++;
    if (agreed) row.agreed++;
  }

  /** Counts something that is not modelled. */
  missed(what: string, times = 1): void {
    this.unmodelled.set(what, (this.unmodelled.get(what) ?? 0) + times);
  }

  /** The counts now. */
  mark(): Mark {
    const { runs, agreed, skipped, outcomes, unmodelled, digest: { value, length } } = this;
    return {
      runs,
      agreed,
      skipped,
      outcomes: new Map([...outcomes].map(([kind, row]) => [kind, { ...row }])),
      unmodelled: new Map(unmodelled),
      digest: value,
      digested: length,
    };
  }

  /** What was added since a moment. */
  since(mark: Mark): Added {
    const outcomes: [OutcomeCount, OutcomeCount][] = [];
    for (const [kind, row] of this.outcomes) {
      const before = mark.outcomes.get(kind);
      const compared = row.compared - (before?.compared ?? 0);
      const agreed = row.agreed - (before?.agreed ?? 0);
      if (compared !== 0) outcomes.push([row, { compared, agreed }]);
    }
    const digested = this.digest.length - mark.digested;
    const shift = this.#shift(digested);
    return {
      runs: this.runs - mark.runs,
      agreed: this.agreed - mark.agreed,
      skipped: this.skipped - mark.skipped,
      outcomes,
      unmodelled: [...this.unmodelled]
        .map(([what, times]) => [what, times - (mark.unmodelled.get(what) ?? 0)] as const)
        .filter(([, times]) => times !== 0),
      digested,
      shift,
      // CRC-32 is linear: what the bytes before contribute can be taken out again.
      crc: this.digest.value ^ shiftCrc(shift, mark.digest),
    };
  }

  /** Adds what a stretch adds that is the same as one before. */
  add(added: Added): void {
    this.runs += added.runs;
    this.agreed += added.agreed;
    this.skipped += added.skipped;
    const { outcomes } = added;
    for (let i = 0; i < outcomes.length; i++) {
      const [row, { compared, agreed }] = outcomes[i] as (typeof outcomes)[number];
      row.compared += compared;
      row.agreed += agreed;
    }
    for (const [what, times] of added.unmodelled) this.missed(what, times);
    const { digest } = this;
    digest.value = (shiftCrc(added.shift, digest.value) ^ added.crc) >>> 0;
    digest.length += added.digested;
  }

  #shift(length: number): CrcShift {
    let shift = this.#shifts.get(length);
    if (shift === undefined) this.#shifts.set(length, shift = crcShift(length));
    return shift;
  }
}
