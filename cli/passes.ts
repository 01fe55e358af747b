/**
 * Measuring a trace in several passes, for `stats` and `report` alike.
 *
 * @module
 */
import type { TraceEvent } from "../engine/event.ts";
import { Latency, type LatencyRow, TRANSITION_KINDS } from "../engine/latency.ts";
import type { Policy } from "../engine/policy.ts";
import type { StepCosts } from "../engine/step_costs.ts";
import { openTrace } from "./inputs.ts";
import { Measurement, RECORDED, RecordedTimes } from "./measurement.ts";
import { type PassRatio, passRatios } from "./pass_ratios.ts";
import { plural } from "../engine/plural.ts";

/** How a trace is measured. */
export interface Passes {
  /** How many passes, after one to warm up. */
  readonly passes: number;
  /** Where samples are filed. */
  readonly latency: Latency;
  /** Where the costs of steps are filed, in a pass of their own. */
  readonly steps?: StepCosts | undefined;
  /** So many VMRUNs are measured in each pass; all when left out. */
  readonly most?: number | undefined;
  /** Receives, now and then, how many events were read and VMRUNs measured. */
  readonly update: (events: number, runs: number) => void;
}

/** Whether an event begins a run that is measured. */
function begins({ kind }: TraceEvent): boolean {
  return kind === "vmrun" || kind === "setstate";
}

/**
 * Measures a trace.
 *
 * @param path The trace's file.
 * @param policies The policies.
 * @param options How.
 * @returns How the passes compare the policies with the first.
 */
export async function measurePasses(
  path: string,
  policies: readonly Policy[],
  { passes, latency, steps, most = Infinity, update }: Passes,
): Promise<PassRatio[]> {
  const medians: LatencyRow[][] = [];
  const last = steps === undefined ? passes : passes + 1;
  let events = 0, runs = 0;
  for (let pass = 0; pass <= last; pass++) {
    using samples = await Latency.create();
    const stepping = pass > passes ? steps : undefined;
    const measurement = new Measurement(policies, stepping ?? samples);
    let left = most;
    const trace = await openTrace(path);
    reading: for await (const block of trace.blocks()) {
      for (const event of block.shared()) {
        if (begins(event)) {
          if (left-- === 0) break reading;
          runs++;
        }
        measurement.feed(event);
        events++;
      }
      update(events, runs);
    }
    if (pass === 0 || stepping !== undefined) continue;
    medians.push(samples.rows());
    for (const encoded of samples.encode()) latency.add(encoded);
  }
  return passRatios(medians, policies.map(({ name }) => name));
}

/**
 * Files the times that a recording holds itself.
 *
 * @param path The trace's file.
 * @param latency Where to file them.
 */
export async function recordedTimes(path: string, latency: Latency): Promise<void> {
  const recorded = new RecordedTimes(latency);
  for await (const block of (await openTrace(path)).blocks()) {
    for (const event of block.shared()) recorded.feed(event);
  }
}

/** What is said beside a table of latencies. */
export interface LatencyNotes {
  /** Cost of the clock in nanoseconds, taken off each sample. */
  readonly timerCost: number;
  /** How often the trace was replayed. */
  readonly passes: number;
  /** VMRUNs that each pass measured, where these were not all. */
  readonly most?: number | undefined;
  /** Names of the policies. */
  readonly policies: readonly string[];
  /** How the passes compare the policies, where that is known. */
  readonly ratios?: readonly PassRatio[] | undefined;
}

/**
 * What a table of latencies does not say itself.
 *
 * @param rows The table.
 * @param notes How it was measured.
 * @returns A sentence or two each.
 */
export function latencyNotes(
  rows: readonly Pick<LatencyRow, "policy">[],
  { timerCost, passes, most, policies, ratios = [] }: LatencyNotes,
): string[] {
  const notes: string[] = [];
  if (rows.some((row) => row.policy !== RECORDED)) {
    const part = most === undefined ? "" : `the first ${most.toLocaleString("en")} VMRUNs, `;
    notes.push(
      `Replayed times are of the model on this machine: ${part}in ${
        plural(passes, "pass", "passes")
      } after one to warm up; two clock reads (${
        Math.round(timerCost)
      } ns, calibrated) are taken off each sample.`,
    );
  }
  if (ratios.length > 0) {
    notes.push(
      `p50 ratio: to ${
        policies[0]
      }, median of the passes (lowest to highest); noise: the passes do not agree which is faster, ` +
        "by half a percent or more, or are fewer than 3.",
    );
  }
  if (rows.some((row) => row.policy === RECORDED)) {
    notes.push(
      `Rows "${RECORDED}" are by the recording's own clock, not to be compared with replays.`,
    );
  }
  return notes;
}

/**
 * Rows of one kind together, the recording's own first, then the policies in their order.
 *
 * @param rows The rows.
 * @param policies Names of the policies.
 */
export function orderedRows<T extends Pick<LatencyRow, "kind" | "policy">>(
  rows: readonly T[],
  policies: readonly string[],
): T[] {
  return Object.keys(TRANSITION_KINDS).flatMap((kind) => {
    const ofKind = rows.filter((row) => row.kind === kind);
    return [RECORDED, ...policies].flatMap((name) => ofKind.filter((row) => row.policy === name));
  });
}
