/**
 * A part of a report, and putting parts together.
 *
 * @module
 */
import type { TraceFile } from "../../codecs/mod.ts";
import type { DiffResult } from "../../engine/diff/mod.ts";
import type { Policy } from "../../engine/policy.ts";
import { ReportCollector, type ReportData, type ReportDifference } from "../../report/mod.ts";
import { ReportTables } from "../../report/tables.ts";
import { sumResults } from "./diff_share.ts";
import { eachEvent, type Group } from "./groups.ts";
import { DifferencePacker, type PackedDifferences, unpackDifferences } from "./packed.ts";

/** What a report shows of one group. */
export interface ReportShare {
  /** Number of the group's first event. */
  readonly from: number;
  /** Number of the first event behind it. */
  readonly to: number;
  /** For each policy that others are compared with, the counts. */
  readonly results: readonly DiffResult[];
  /** Tables and columns, without findings. */
  readonly data: ReportData;
  /** For each policy that others are compared with, what differs. */
  readonly differences: readonly PackedDifferences[];
}

/** Gathers a group. */
export async function reportShare(
  trace: TraceFile,
  group: Group,
  whole: boolean,
  policies: readonly Policy[],
  each: boolean,
): Promise<ReportShare> {
  const packers = policies.map(() => new DifferencePacker());
  const collector = new ReportCollector(policies, {
    each,
    difference: ({ from, difference }) => packers[from]?.add(difference),
  });
  await eachEvent(trace, group, whole, (event) => collector.feed(event));
  const results = collector.end();
  const data = collector.finish("", [], results);
  const { from, to } = group;
  const differences = packers.map(({ packed }) => packed);
  return { from, to, results, data: { ...data, findings: [], sets: [] }, differences };
}

/** Puts groups together again, in order. */
export class ReportTotal {
  readonly #tables: ReportTables;
  #results: readonly DiffResult[] | undefined;

  /** @param policies The policies. */
  constructor(policies: readonly Policy[]) {
    this.#tables = new ReportTables(policies.map(({ name }) => name));
  }

  /** Adds the next group. */
  add(share: ReportShare): void {
    const before = this.#results;
    this.#tables.append(share.data, share.from, differencesOf(share, before?.[0]?.runs ?? 0));
    this.#results = share.results.map((result, i) => sumResults(before?.[i], result));
  }

  /** What the page shows of all groups. */
  finish(title: string): ReportData {
    return this.#tables.finish(title, this.#results ?? [], []);
  }
}

/** What differs in the runs of a group, behind so many others. */
function* differencesOf(
  { from, differences }: ReportShare,
  runs: number,
): Generator<ReportDifference> {
  for (const [a, packed] of differences.entries()) {
    for (const { difference, times, ...step } of unpackDifferences(packed, from, runs)) {
      for (let i = 0; i < times; i++) {
        const event = difference.event + i * step.events, run = difference.run + i * step.runs;
        yield { from: a, difference: i === 0 ? difference : { ...difference, event, run } };
      }
    }
  }
}
