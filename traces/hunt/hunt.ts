/**
 * A hunt: cases, a kernel's answers, and what of them nobody has explained.
 *
 * @module
 */
import type { LabRecord } from "../../codecs/lab/types.ts";
import type { Policy } from "../../engine/policy.ts";
import { type Ask, askUnits } from "./asking.ts";
import { Blame } from "./blame.ts";
import { Coverage, type Reached } from "./coverage.ts";
import { type Deviation, Foreseer, type Foresight, type Unit } from "./foresight.ts";
import { gapOf, isSteady, isStopped, type ModelGap } from "./judging.ts";
import { KNOWN, type Known, knownGap, knownIn } from "./known.ts";
import { pickUnits } from "./units.ts";

/** What is hunted, and with what. */
export interface HuntOptions {
  /** Policy of the kernel that is asked. */
  readonly kernel: Policy;
  /** What it is held against. */
  readonly against: Policy;
  /** Whether the kernel uses nested paging itself. */
  readonly npt: boolean;
  /** The same seed gives the same cases. */
  readonly seed: number;
  /** Known deviations; the built-in list when left out. */
  readonly known?: readonly Known[];
}

/** How many cases came how far. */
export interface Funnel {
  /** Cases asked. */
  asked: number;
  /** Answered. */
  answered: number;
  /** Those that are the same when asked again, as far as that was asked; and begin in a known state. */
  steady: number;
  /** Of those: the kernel does what its model says, in every field. */
  foreseen: number;
  /** Of those: they differ from what the kernel is held against in what somebody sees. */
  differ: number;
  /** Deviations of those that are known. */
  known: number;
  /** Deviations and gaps that are not. */
  unknown: number;
}

/** What nobody has explained yet. */
export interface HuntFinding {
  /** Its key: of a deviation, the pieces of the kernel that it comes from. */
  readonly key: string;
  /**
   * `deviation`: the kernel, as its model says, does otherwise than what it is held against. `gap`: it
   * does otherwise than its model. `silent`: it gives no answer.
   */
  readonly kind: "deviation" | "gap" | "silent";
  /** What happens, in the field's words. */
  readonly title: string;
  /** How many cases show it. */
  count: number;
  /** The first unit that shows it, up to the case that does. */
  readonly unit: Unit;
  /** The key of the deviation or gap that shows it there. */
  readonly sign: string;
  /** Of a deviation: the pieces; see {@linkcode Blame}. Undefined where they do not explain it. */
  readonly pieces?: readonly string[];
  /** Fields and their values: the kernel's, and the other's. */
  readonly fields: ModelGap["fields"];
  /** Where the steps part; empty where no step is to blame. */
  readonly parted: string;
  /** The smallest unit that was found. */
  small?: Unit;
  /** Whether the kernel showed it again with the smallest unit. */
  confirmed?: boolean;
  /** Names of the modelled kernels that show it with the smallest unit. */
  shownBy?: readonly string[];
}

/** What is kept of a hunt between two batches. */
export interface HuntState {
  /** Batches that are done. */
  readonly batches: number;
  /** The funnel. */
  readonly funnel: Funnel;
  /** How often each feature was met. */
  readonly coverage: Readonly<Record<string, number>>;
  /** How often each known deviation was met, and a case that shows it. */
  readonly known: Readonly<Record<string, { readonly count: number; readonly unit: Unit }>>;
  /** What nobody has explained. */
  readonly findings: readonly HuntFinding[];
}

/** Cases in a batch: what is lost when a hunt is interrupted. */
export const BATCH = 250;

/**
 * A hunt under way.
 *
 * @example
 * ```ts
 * import { Hunt } from "@vmtape/vmtape/traces";
 * import { ARCHITECTURAL, LINUX_7_3 } from "@vmtape/vmtape/engine";
 * const hunt = new Hunt({ kernel: LINUX_7_3, against: ARCHITECTURAL, npt: true, seed: 1 });
 * // A kernel that answers nothing but "port write": every field that its model says otherwise is a gap.
 * await hunt.take(["calm"], [{
 *   ...{ case: "calm", spec: "", kernel: "linux-7.3", npt: 1, events: [] },
 *   post: { rc: 0, exit: 2, port: "81" },
 * }]);
 * if (hunt.findings[0]?.kind !== "gap") throw new Error();
 * ```
 */
export class Hunt {
  /** Predicts cases. */
  readonly foreseer: Foreseer;
  readonly #blame: Blame;
  readonly #rows: readonly Known[];
  readonly #options: HuntOptions;
  readonly #coverage: Coverage;
  readonly #funnel: Funnel;
  readonly #known: Map<string, { count: number; readonly unit: Unit }>;
  readonly #findings: Map<string, HuntFinding>;
  #batches: number;

  /**
   * Begins a hunt, or goes on with one.
   *
   * @param options What is hunted.
   * @param state What an earlier part of it came to.
   */
  constructor(options: HuntOptions, state?: HuntState) {
    this.#options = options;
    const { kernel, against, npt, known } = options;
    this.foreseer = new Foreseer(kernel, against, npt);
    this.#blame = new Blame(kernel, against, npt);
    this.#rows = knownIn(kernel, against, known ?? KNOWN);
    this.#coverage = new Coverage(state?.coverage);
    this.#funnel = { ...(state?.funnel ?? NOTHING) };
    this.#batches = state?.batches ?? 0;
    this.#known = new Map(
      Object.entries(state?.known ?? {}).map(([id, one]) => [id, { ...one }]),
    );
    this.#findings = new Map(state?.findings.map((one) => [one.key, { ...one }]));
  }

  /** What there is so far. */
  get state(): HuntState {
    return {
      batches: this.#batches,
      funnel: { ...this.#funnel },
      coverage: this.#coverage.counts(),
      known: Object.fromEntries(this.#known),
      findings: this.findings,
    };
  }

  /** What nobody has explained: what was met most often first. */
  get findings(): HuntFinding[] {
    return [...this.#findings.values()].map((one) => ({ ...one })).sort((a, b) =>
      b.count - a.count || (a.key < b.key ? -1 : 1)
    );
  }

  /** Takes findings with what was found out about them since. */
  keep(findings: readonly HuntFinding[]): void {
    for (const finding of findings) this.#findings.set(finding.key, finding);
  }

  /** What was reached. */
  get reached(): Reached[] {
    return this.#coverage.reached(this.#options.kernel);
  }

  /**
   * Thinks of a batch of cases, asks the kernel, and judges. Until it is done nothing has changed.
   *
   * @param ask Asks the kernel.
   * @param count How many cases.
   * @throws {HuntError} When the kernel cannot be asked.
   */
  async batch(ask: Ask, count: number = BATCH): Promise<void> {
    const coverage = new Coverage(this.#coverage.counts());
    const foresights = pickUnits(this.#options.seed, this.#batches, count, this.foreseer, coverage);
    const { records } = await askUnits(ask, foresights.map(({ unit }) => unit));
    const doubtful = foresights.filter((foresight, i) => {
      const own = records[i];
      return own !== undefined && gapOf(foresight, own) !== undefined;
    });
    const again = await askUnits(ask, doubtful.map(({ unit }) => unit));
    const second = new Map(doubtful.map((foresight, i) => [foresight, again.records[i]]));
    for (const [i, foresight] of foresights.entries()) {
      const own = records[i];
      const steady = own !== undefined &&
        (!second.has(foresight) || isSteady(own, second.get(foresight)));
      await this.#judge(foresight, own, steady);
    }
    for (const { features } of foresights) this.#coverage.add(features);
    this.#batches++;
  }

  /**
   * Judges records that are there already. Whether the kernel would answer the same again is unknown.
   *
   * @param unit The cases.
   * @param records What a kernel answered.
   */
  async take(unit: Unit, records: readonly LabRecord[]): Promise<void> {
    const foresight = this.foreseer.foresee(unit);
    this.#coverage.add(foresight.features);
    await this.#judge(foresight, records, true);
  }

  async #judge(
    foresight: Foresight,
    records: readonly LabRecord[] | undefined,
    steady: boolean,
  ): Promise<void> {
    const { unit } = foresight;
    const funnel = this.#funnel;
    funnel.asked += unit.length;
    if (records === undefined) {
      this.#add(unit, { key: "silent", kind: "silent", title: SILENT, fields: [], sign: "silent" });
      return;
    }
    funnel.answered += records.length;
    if (!steady) return;
    const stopped = records.findIndex(isStopped);
    const begun = stopped < 0 ? records : records.slice(0, stopped + 1);
    funnel.steady += begun.length;
    const gap = gapOf(foresight, begun);
    const agreed = gap?.case ?? begun.length;
    funnel.foreseen += agreed;
    const deviations = foresight.deviations.filter((one) => one.case < agreed);
    funnel.differ += new Set(deviations.map((one) => one.case)).size;
    let before: readonly Known[] | undefined;
    for (const deviation of deviations) {
      before = await this.#deviates(foresight, deviation, before) ?? before;
    }
    if (gap !== undefined) this.#parts(unit.slice(0, gap.case + 1), gap);
  }

  /** Counts a deviation by what it comes from; returns what is known of it. */
  async #deviates(
    { unit, deviations }: Foresight,
    one: Deviation,
    before: readonly Known[] | undefined,
  ): Promise<readonly Known[] | undefined> {
    const own = unit.slice(0, one.case + 1);
    const known = await this.#blame.knownOf(unit, deviations, one, this.#rows, before);
    if (known !== undefined) {
      for (const row of known) this.#count(own, row);
      this.#funnel.known++;
      return known;
    }
    const pieces = await this.#blame.piecesOf(unit, deviations, one);
    const { key: sign, title, fields, parted } = one;
    const found = { kind: "deviation", title, fields, parted, sign } as const;
    if (pieces === undefined) this.#add(own, { ...found, key: sign });
    else this.#add(own, { ...found, pieces, key: pieces.join(" + ") });
    return undefined;
  }

  #parts(unit: Unit, gap: ModelGap): void {
    const known = knownGap(gap, this.#rows);
    if (known === undefined) {
      const { key, title, fields } = gap;
      this.#add(unit, { key, kind: "gap", title, fields, sign: key });
    } else {
      this.#count(unit, known);
      this.#funnel.known++;
    }
  }

  #count(unit: Unit, { id }: Known): void {
    const seen = this.#known.get(id);
    if (seen === undefined) this.#known.set(id, { count: 1, unit });
    else seen.count++;
  }

  #add(
    unit: Unit,
    one: Omit<HuntFinding, "unit" | "count" | "parted"> & { readonly parted?: string },
  ): void {
    this.#funnel.unknown++;
    const found = this.#findings.get(one.key);
    if (found !== undefined) found.count++;
    else this.#findings.set(one.key, { parted: "", ...one, unit, count: 1 });
  }
}

const SILENT = "The kernel gives no answer, or none that can be read";

const NOTHING: Funnel = {
  asked: 0,
  answered: 0,
  steady: 0,
  foreseen: 0,
  differ: 0,
  known: 0,
  unknown: 0,
};
