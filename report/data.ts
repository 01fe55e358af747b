/**
 * What a report shows.
 *
 * Texts, step lists and lists of differing fields are stored once each, and runs
 * refer to them by number: a trace of a hundred thousand VMRUNs has few kinds.
 *
 * @module
 */
import type { DiffResult, Finding } from "../engine/diff/mod.ts";

/** A step as the page shows it. */
export interface ReportStep {
  /** Name. */
  readonly name: string;
  /** What it does. */
  readonly doc: string;
}

/** A differing field: indexes into {@linkcode ReportData.texts}, -1 for none. */
export interface ReportRow {
  /** Part of the state and field. */
  readonly field: number;
  /** Value under the first policy. */
  readonly a: number;
  /** Value under the other. */
  readonly b: number;
  /** Bits that differ, by name. */
  readonly bits: number;
  /** The step that wrote it last under the first policy. */
  readonly stepA: number;
  /** The same under the other. */
  readonly stepB: number;
}

/** A step of a run that is told in full. */
export interface ReportWrites {
  /** Name. */
  readonly name: string;
  /** What it does. */
  readonly doc: string;
  /** The way that it is part of; empty between transitions. */
  readonly way: string;
  /** How deep it lies within other transitions. */
  readonly depth: number;
  /** What it wrote: field, value before, value after, bits that changed, as texts. */
  readonly writes: readonly (readonly [number, number, number, number])[];
  /** What it changed besides these. */
  readonly more: number;
}

/** The differences of the runs under a pair of policies. */
export interface ReportPart {
  /** Which policies, by their place in {@linkcode ReportData.policies}. */
  readonly pair: readonly [number, number];
  /** Runs that end differently. */
  different: number;
  /** Runs of which too little was recorded to tell. */
  unsettled: number;
  /** For each run: which of `lists` its fields are, -1 when nothing differs. */
  readonly fields: number[];
  /** For each run: which of `sets` its findings are, -1 for none. */
  readonly findings: number[];
  /** Runs with follow-ons, and the number of the run that each comes from. */
  readonly origins: [number, number][];
}

/** Latency of one kind of transition under one policy. */
export interface ReportLatency {
  /** Kind of transition. */
  readonly kind: string;
  /** Policy, or `recorded`. */
  readonly policy: string;
  /** How many were measured. */
  readonly count: number;
  /** Nanoseconds at evenly spaced percentiles from 0 to 100. */
  readonly quantiles: readonly number[];
  /** How rare a time is, as 1/(1 - percentile), and the time in nanoseconds, as far as was counted. */
  readonly tail: readonly (readonly [number, number])[];
  /** The median's ratio to the first policy's, over the passes; empty where there is none. */
  readonly ratio: string;
  /** Nanoseconds at the 99.9th percentile. */
  readonly p999: number;
  /** Mean in nanoseconds. */
  readonly mean: number;
}

/** Everything that a page shows. */
export interface ReportData {
  /** Title of the page: the name of the trace. */
  readonly title: string;
  /** Names of the policies; every two of them are compared. */
  readonly policies: readonly string[];
  /** Counts, each policy compared with the first. */
  readonly result: DiffResult;
  /** Findings of all pairs, as a diff lists them. */
  readonly findings: readonly Finding[];
  /** Names of the outcomes. */
  readonly outcomes: readonly string[];
  /** Texts that the columns below refer to. */
  readonly texts: readonly string[];
  /** Steps by number. */
  readonly steps: readonly ReportStep[];
  /** Lists of steps; a negative number -1 - n begins the n-th of `ways`. */
  readonly stepLists: readonly (readonly number[])[];
  /** Ways into L2 and out of it. */
  readonly ways: readonly string[];
  /** Failed checks and broken assertions: lists of texts. */
  readonly reportLists: readonly (readonly number[])[];
  /** Differing fields. */
  readonly rows: readonly ReportRow[];
  /** Lists of differing fields; a row that is a follow-on is there as -1 - n. */
  readonly lists: readonly (readonly number[])[];
  /** Sets of findings. */
  readonly sets: readonly (readonly number[])[];
  /** For each run: number of its event. */
  readonly events: readonly number[];
  /** For each run: text of its scenario's name and spec, -1 when unknown. */
  readonly names: readonly number[];
  /** For each run, what a log says became of it; empty of a recording that is no log. */
  readonly recorded: readonly number[];
  /** The first runs of findings, by number: each policy's steps with what they wrote. */
  readonly explained: Readonly<Record<number, readonly (readonly ReportWrites[] | null)[]>>;
  /** For each policy and run: its outcome. */
  readonly outcomeOf: readonly (readonly number[])[];
  /** For each policy and run: its list of steps. */
  readonly stepsOf: readonly (readonly number[])[];
  /** For each policy and run: its list of reports. */
  readonly reportsOf: readonly (readonly number[])[];
  /** For every pair of policies, those with the first one first. */
  readonly parts: readonly ReportPart[];
  /** Latencies. */
  readonly latency: readonly ReportLatency[];
}
