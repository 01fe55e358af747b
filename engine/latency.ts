/**
 * What each transition costs under each policy, as HdrHistograms.
 *
 * @module
 */
import {
  build,
  decodeFromCompressedBase64,
  encodeIntoCompressedBase64,
  HistogramLogWriter,
  initWebAssembly,
  type WasmHistogram,
} from "hdr-histogram-js";
import { checkGroupOf } from "./checks/sets.ts";
import { FAIL, type Outcome, type Way } from "./policy.ts";
import type { Observer } from "./kvm/vcpu.ts";

/** Kinds of transitions, as they are told apart in statistics. */
export const TRANSITION_KINDS = {
  entered: "VMRUN that entered L2",
  "check failure": "VMRUN refused by a consistency check",
  "late failure": "VMRUN refused when CR3 was loaded or the MSR bitmap merged",
  refused: "VMRUN that ended with a fault for L1",
  "#VMEXIT": "#VMEXIT from L2",
  rsm: "RSM back into L2",
  setstate: "KVM_SET_NESTED_STATE",
  "round trip": "From VMRUN to the #VMEXIT that gives control back to L1, by the recording's clock",
} as const;

/** One of {@linkcode TRANSITION_KINDS}. */
export type TransitionKind = keyof typeof TRANSITION_KINDS;

/** Longest time a histogram holds, in nanoseconds: a minute. */
const LONGEST_NS = 60e9;
/** Times the timer is read to find its cost. */
const CALIBRATION_READS = 20_000;

/** Latency of one kind of transition under one policy, in nanoseconds. */
export interface LatencyRow {
  /** Name of the policy, or of the recording's source. */
  readonly policy: string;
  /** Kind of transition. */
  readonly kind: TransitionKind;
  /** How many were measured. */
  readonly count: number;
  /** Shortest. */
  readonly min: number;
  /** Median. */
  readonly p50: number;
  /** 90th percentile. */
  readonly p90: number;
  /** 99th percentile. */
  readonly p99: number;
  /** 99.9th percentile. */
  readonly p999: number;
  /** Longest. */
  readonly max: number;
  /** Mean. */
  readonly mean: number;
}

/** One kind's samples. The ends are kept apart: a histogram that was encoded has them rounded. */
interface Samples {
  readonly histogram: WasmHistogram;
  /** Shortest that is not 0; 0 while there is none. */
  min: number;
  max: number;
}

/** The samples of one kind under one policy, to be filed elsewhere. */
export interface EncodedLatency {
  /** Name of the policy, or of the recording's source. */
  readonly policy: string;
  /** Kind of transition. */
  readonly kind: TransitionKind;
  /** HdrHistogram V2, compressed, as base64. */
  readonly histogram: string;
  /** Shortest that is not 0, in nanoseconds; 0 when there is none. */
  readonly min: number;
  /** Longest, in nanoseconds. */
  readonly max: number;
}

/**
 * Measures transitions while a replay runs. A clock read costs about as much as
 * a transition, so its cost is measured first and taken off every sample.
 *
 * @example
 * ```ts
 * import { Latency } from "@vmtape/vmtape/engine";
 * using latency = await Latency.create();
 * if (latency.rows().length !== 0 || latency.timerCost < 0) throw new Error();
 * ```
 */
export class Latency {
  /** Cost of reading the clock twice, in nanoseconds; taken off every sample. */
  readonly timerCost: number;
  readonly #histograms = new Map<string, Map<TransitionKind, Samples>>();

  private constructor(timerCost: number) {
    this.timerCost = timerCost;
  }

  /**
   * Makes the histograms' code ready and calibrates the clock.
   *
   * @returns An empty measurement.
   */
  static async create(): Promise<Latency> {
    await initWebAssembly();
    return new Latency(calibrate());
  }

  /**
   * An observer that measures what a vCPU does under a policy.
   *
   * @param policy Name to file the samples under.
   */
  observer(policy: string): Observer {
    let start = 0;
    let depth = 0;
    let check = "";
    return {
      begin: () => {
        check = "";
        if (depth++ === 0) start = performance.now();
      },
      end: (way, outcome) => {
        const stop = performance.now();
        if (--depth > 0) return;
        const kind = kindOf(way, outcome, check);
        if (kind === undefined) return;
        const ns = Math.max(0, Math.round((stop - start) * 1e6 - this.timerCost));
        this.record(policy, kind, ns);
      },
      check: (id) => {
        check = id;
      },
      warn() {},
      inner() {},
    };
  }

  /**
   * Files one sample.
   *
   * @param policy Name to file it under.
   * @param kind Kind of transition.
   * @param ns Nanoseconds, not negative.
   */
  record(policy: string, kind: TransitionKind, ns: number): void {
    const samples = this.#samples(policy, kind);
    const value = Math.min(ns, LONGEST_NS);
    samples.histogram.recordValue(value);
    extend(samples, value, value);
  }

  #samples(policy: string, kind: TransitionKind): Samples {
    let kinds = this.#histograms.get(policy);
    if (kinds === undefined) this.#histograms.set(policy, kinds = new Map());
    let samples = kinds.get(kind);
    if (samples === undefined) {
      const histogram = build({
        useWebAssembly: true,
        bitBucketSize: 32,
        highestTrackableValue: LONGEST_NS,
        numberOfSignificantValueDigits: 3,
      }) as WasmHistogram;
      kinds.set(kind, samples = { histogram, min: 0, max: 0 });
    }
    return samples;
  }

  /**
   * The histograms in HdrHistogram's own compressed form, for another process.
   *
   * @returns One a policy and kind.
   */
  encode(): EncodedLatency[] {
    return [...this.#histograms].flatMap(([policy, kinds]) =>
      [...kinds].map(([kind, { histogram, min, max }]) => ({
        policy,
        kind,
        histogram: encodeIntoCompressedBase64(histogram),
        min,
        max,
      }))
    );
  }

  /**
   * Files all samples that another measurement filed.
   *
   * @param encoded A histogram of {@linkcode Latency.encode}.
   */
  add({ policy, kind, histogram, min, max }: EncodedLatency): void {
    const other = decodeFromCompressedBase64(histogram, 32, true) as WasmHistogram;
    const samples = this.#samples(policy, kind);
    samples.histogram.add(other);
    other.destroy();
    extend(samples, min, max);
  }

  /** The table, by policy and kind. */
  rows(): LatencyRow[] {
    const rows: LatencyRow[] = [];
    for (const [policy, kinds] of this.#histograms) {
      for (const kind of Object.keys(TRANSITION_KINDS) as TransitionKind[]) {
        const samples = kinds.get(kind);
        if (samples === undefined) continue;
        const { histogram: h, min, max } = samples;
        const at = (percentile: number) => valueAt(samples, percentile);
        rows.push({
          policy,
          kind,
          count: h.totalCount,
          min,
          p50: at(50),
          p90: at(90),
          p99: at(99),
          p999: at(99.9),
          max,
          mean: h.mean,
        });
      }
    }
    return rows;
  }

  /**
   * The percentile distribution of one kind in HdrHistogram's own text form.
   *
   * @param policy Name it was filed under.
   * @param kind Kind of transition.
   * @returns The text, or undefined when nothing was filed.
   */
  distribution(policy: string, kind: TransitionKind): string | undefined {
    const samples = this.#histograms.get(policy)?.get(kind);
    if (samples === undefined) return undefined;
    // As another process would see it: encoding rounds the longest.
    const encoded = encodeIntoCompressedBase64(samples.histogram);
    const copy = decodeFromCompressedBase64(encoded, 32, true) as WasmHistogram;
    const text = copy.outputPercentileDistribution();
    copy.destroy();
    return text;
  }

  /**
   * Everything measured in HdrHistogram's log format 1.3, as its plotters and analyzers read it: one
   * interval a kind and policy, with the two as its tag, its values in nanoseconds, its length the
   * time that all samples took together, and its largest value in milliseconds.
   *
   * @returns The log's text.
   */
  log(): string {
    let text = "";
    const writer = new HistogramLogWriter((part) => text += part);
    writer.outputLogFormatVersion();
    writer.outputComment("[Values in nanoseconds, Interval_Max in milliseconds]");
    writer.outputLegend();
    for (const [policy, kinds] of this.#histograms) {
      for (const [kind, { histogram }] of kinds) {
        // A comma or a blank would end the tag.
        histogram.tag = `${kind}:${policy}`.replace(/[\s,]+/g, "-");
        const seconds = histogram.totalCount * histogram.mean / 1e9;
        writer.outputIntervalHistogram(histogram, 0, seconds, 1e6);
      }
    }
    return text;
  }

  /**
   * The latency of one kind at evenly spaced percentiles.
   *
   * @param policy Name it was filed under.
   * @param kind Kind of transition.
   * @param steps How many steps from the shortest to the longest.
   * @returns `steps + 1` times in nanoseconds, rising; undefined when nothing was filed.
   */
  quantiles(policy: string, kind: TransitionKind, steps: number): number[] | undefined {
    return this.valuesAt(
      policy,
      kind,
      Array.from({ length: steps + 1 }, (_, i) => 100 * i / steps),
    );
  }

  /**
   * The latency of one kind at given percentiles.
   *
   * @param policy Name it was filed under.
   * @param kind Kind of transition.
   * @param percentiles From 0 to 100.
   * @returns A time in nanoseconds for each; undefined when nothing was filed.
   */
  valuesAt(
    policy: string,
    kind: TransitionKind,
    percentiles: readonly number[],
  ): number[] | undefined {
    const samples = this.#histograms.get(policy)?.get(kind);
    return samples && percentiles.map((percentile) => valueAt(samples, percentile));
  }

  /** Gives the histograms' memory back. */
  [Symbol.dispose](): void {
    for (const kinds of this.#histograms.values()) {
      for (const { histogram } of kinds.values()) histogram.destroy();
    }
    this.#histograms.clear();
  }
}

/** A histogram gives the end of the bucket that a percentile falls in, which may lie above all samples. */
function valueAt({ histogram, max }: Samples, percentile: number): number {
  return Math.min(histogram.getValueAtPercentile(percentile), max);
}

function extend(samples: Samples, min: number, max: number): void {
  if (min > 0 && (samples.min === 0 || min < samples.min)) samples.min = min;
  if (max > samples.max) samples.max = max;
}

function kindOf(way: Way, outcome: Outcome, check: string): TransitionKind | undefined {
  switch (way) {
    case "vmrun": {
      if (outcome === 0) return "entered";
      if (outcome !== FAIL) return "refused";
      return checkGroupOf(check) === "cr3" ? "late failure" : "check failure";
    }
    case "vmexit":
      return "#VMEXIT";
    case "rsm":
      return "rsm";
    case "setstate":
      return "setstate";
    default:
      return undefined;
  }
}

/** The smallest cost of two clock reads that is seen often, in nanoseconds. */
function calibrate(): number {
  const costs = new Float64Array(CALIBRATION_READS);
  for (let i = 0; i < CALIBRATION_READS; i++) {
    const start = performance.now();
    costs[i] = performance.now() - start;
  }
  costs.sort();
  return (costs[CALIBRATION_READS >> 1] as number) * 1e6;
}
