/**
 * How far two streams of records agree: a prediction and a real kernel, two
 * runs, two kernels.
 *
 * @module
 */
import type { LabRecord } from "../../codecs/lab/types.ts";
import { Holding } from "./holding.ts";
import { type CompareOptions, type ComparisonResult, Tally } from "./tally.ts";
import { Waiting } from "./waiting.ts";

export { CompareLimitError } from "./holding.ts";
export { type CaseComparison, type Disagreement, type Group, GROUPS } from "./groups.ts";
export { compareRecords } from "./records.ts";
export type {
  AgreementRow,
  CompareOptions,
  ComparisonResult,
  Example,
  FieldDisagreement,
  GroupCount,
} from "./tally.ts";
export { formatComparison } from "./format.ts";
export { type Skip, skipList, SkipListError } from "./skip_list.ts";

/**
 * Compares two streams of records. Records of the same case are paired by name;
 * of several of one name, the first with the first. Streams in the same order
 * are compared without holding more than one pair.
 *
 * @param a The first stream, as a rule the real kernel's.
 * @param b The second.
 * @param options What to leave out.
 * @returns The agreement, and every disagreement by field.
 * @throws {CompareLimitError} When too many wait for a partner, or differ, to be kept.
 * @example
 * ```ts
 * import { compare } from "@vmtape/vmtape/traces";
 * const a = { case: "x", spec: "", kernel: "unified", npt: 1, events: [], post: { gif: 1 } };
 * const result = await compare([a], [{ ...a, post: { gif: 0 } }]);
 * if (result.groups[4].agreed !== 0 || result.groups[1].agreed !== 1) throw new Error();
 * ```
 */
export async function compare(
  a: Iterable<LabRecord> | AsyncIterable<LabRecord>,
  b: Iterable<LabRecord> | AsyncIterable<LabRecord>,
  options: CompareOptions = {},
): Promise<ComparisonResult> {
  const holding = new Holding();
  const tally = new Tally(options, holding);
  const waitingA = new Waiting(holding);
  const waitingB = new Waiting(holding);
  const one = iterate(a);
  const two = iterate(b);
  try {
    for (;;) {
      const [x, y] = [await one.next(), await two.next()];
      if (x.done && y.done) break;
      if (
        !x.done && !y.done && x.value.case === y.value.case && !waitingA.has(x.value.case) &&
        !waitingB.has(x.value.case)
      ) {
        tally.pair(x.value, y.value);
        continue;
      }
      if (!x.done) {
        const other = waitingB.take(x.value.case);
        if (other) tally.pair(x.value, other);
        else waitingA.put(x.value);
      }
      if (!y.done) {
        const other = waitingA.take(y.value.case);
        if (other) tally.pair(other, y.value);
        else waitingB.put(y.value);
      }
    }
  } finally {
    await one.return?.();
    await two.return?.();
  }
  return tally.result(waitingA.names(), waitingB.names());
}

function iterate(
  records: Iterable<LabRecord> | AsyncIterable<LabRecord>,
): Iterator<LabRecord> | AsyncIterator<LabRecord> {
  return Symbol.asyncIterator in records
    ? records[Symbol.asyncIterator]()
    : records[Symbol.iterator]();
}
