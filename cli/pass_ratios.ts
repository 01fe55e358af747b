/**
 * How the policies' medians compare, pass by pass: a single ratio says nothing about its noise.
 *
 * @module
 */
import type { LatencyRow, TransitionKind } from "../engine/latency.ts";

/** Fewest passes whose spread says anything. */
const FEWEST = 3;
/** Medians that are no further apart than this part of them are alike: a clock tells no less. */
const ALIKE = 0.005;

/** The medians of one kind under a policy and under the first, as quotients. */
export interface PassRatio {
  /** Kind of transition. */
  readonly kind: TransitionKind;
  /** Name of the policy whose medians are divided by the first policy's. */
  readonly policy: string;
  /** Median of the passes' quotients. */
  readonly ratio: number;
  /** The smallest quotient of a pass. */
  readonly low: number;
  /** The largest. */
  readonly high: number;
  /** Whether a difference is not to be told from noise: not all passes agree which is faster, and that it is. */
  readonly noise: boolean;
}

/**
 * A ratio as text, with its range and whether it is noise.
 *
 * @param ratio The ratio.
 */
export function ratioText({ ratio, low, high, noise }: PassRatio): string {
  const range = `${ratio.toFixed(2)} (${low.toFixed(2)} to ${high.toFixed(2)})`;
  return noise ? `${range}, noise` : range;
}

/**
 * Compares policies by what each pass measured. In a pass the policies take turns, so that a quotient
 * is of measurements that met the same noise.
 *
 * @param passes The rows of each pass.
 * @param policies Names of the policies; all are compared with the first.
 * @returns One a kind and policy that every pass has.
 */
export function passRatios(
  passes: readonly (readonly LatencyRow[])[],
  [base, ...others]: readonly string[],
): PassRatio[] {
  const kinds = new Set(passes.flatMap((rows) => rows.map(({ kind }) => kind)));
  return [...kinds].flatMap((kind) =>
    others.flatMap((policy) => {
      const median = (rows: readonly LatencyRow[], name: string | undefined) =>
        rows.find((row) => row.kind === kind && row.policy === name)?.p50 ?? NaN;
      const quotients = passes.map((rows) => median(rows, policy) / median(rows, base));
      if (!quotients.every(Number.isFinite)) return [];
      quotients.sort((a, b) => a - b);
      const [low = 1, high = 1] = [quotients[0], quotients.at(-1)];
      const half = quotients.length >> 1;
      const ratio = ((quotients[half] ?? 1) + (quotients.at(-1 - half) ?? 1)) / 2;
      const noise = quotients.length < FEWEST || (low <= 1 + ALIKE && high >= 1 - ALIKE);
      return [{ kind, policy, ratio, low, high, noise }];
    })
  );
}
