/**
 * What a report shows, gathered while a trace runs under several policies.
 *
 * Texts, step lists and lists of differing fields are stored once each, and runs
 * refer to them by number: a trace of a hundred thousand VMRUNs has few kinds.
 *
 * @module
 */
import type { TraceEvent } from "../engine/event.ts";
import {
  Differ,
  type DiffResult,
  type Finding,
  Findings,
  type RunDifference,
} from "../engine/diff/mod.ts";
import { fieldText, valueTexts } from "../engine/diff/mod.ts";
import { type ExplainedStep, stepsOf, stepsOfLogged, UNSEEN } from "../engine/diff/mod.ts";
import type { RunRef, RunView } from "../engine/diff/mod.ts";
import type { Incident } from "../engine/diff/transitions.ts";
import type { LoggedRun } from "../engine/replay/logged_runs.ts";
import { LoggedOutcomes, recordedOutcome } from "./logged_outcomes.ts";
import { outcomeOf, OUTCOMES } from "./outcome.ts";
import type { Policy } from "../engine/policy.ts";

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

/** Distinct rows and lists that are kept; a trace with more differs in values nobody reads one by one. */
const MOST = 100_000;

/** Runs of which each step's writes are told, and writes of a step, at most. */
const MOST_EXPLAINED = 200, MOST_WRITES = 40;

/** Numbers things that are the same once. */
class Table<T> {
  readonly items: T[] = [];
  readonly #index = new Map<string, number>();

  /** The number of an item; -1 when there is no room for another. */
  add(key: string, make: () => T, most = Infinity): number {
    let index = this.#index.get(key);
    if (index === undefined) {
      if (this.items.length >= most) return -1;
      index = this.items.length;
      this.items.push(make());
      this.#index.set(key, index);
    }
    return index;
  }
}

/**
 * Gathers a report.
 *
 * @example
 * ```ts
 * import { builtinScenarios, EARLY_EXIT, recordScenarios, UPSTREAM } from "@vmtape/vmtape";
 * import { ReportCollector } from "@vmtape/vmtape/report";
 * const collector = new ReportCollector([EARLY_EXIT, UPSTREAM]);
 * for await (const event of recordScenarios(builtinScenarios("gif-left-set"), EARLY_EXIT)) {
 *   collector.feed(event);
 * }
 * const { outcomes, outcomeOf, findings } = collector.finish("One VMRUN");
 * if (outcomes[outcomeOf[0]?.[0] ?? -1] !== "failed check") throw new Error();
 * if (!findings.some(({ title }) => title.startsWith("GIF stays set"))) throw new Error();
 * ```
 */
export class ReportCollector {
  readonly #policies: readonly Policy[];
  /** The first compares all others with the first policy, the next those behind with the second, and so on. */
  readonly #differs: readonly Differ[];
  readonly #findings = new Findings();
  readonly #keys = new Map<string, number>();
  readonly #texts = new Table<string>();
  readonly #steps = new Table<ReportStep>();
  readonly #stepLists = new Table<number[]>();
  readonly #ways = new Table<string>();
  readonly #reportLists = new Table<number[]>();
  readonly #rows = new Table<ReportRow>();
  readonly #lists = new Table<number[]>();
  readonly #sets = new Table<number[]>();
  readonly #events: number[] = [];
  readonly #names: number[] = [];
  readonly #outcomeOf: number[][];
  readonly #stepsOf: number[][];
  readonly #reportsOf: number[][];
  readonly #parts: ReportPart[];
  readonly #recorded: number[] = [];
  readonly #logged: LoggedOutcomes;
  readonly #explained = new Map<number, (readonly ReportWrites[] | null)[]>();
  /** For each differ, how the steps of its run are told. */
  readonly #explain: (() => readonly (readonly ExplainedStep[] | undefined)[])[] = [];

  /**
   * Begins before the trace's first event.
   *
   * @param policies Two or more; every two of them are compared.
   */
  constructor(policies: readonly Policy[]) {
    this.#policies = policies;
    this.#outcomeOf = policies.map(() => []);
    this.#stepsOf = policies.map(() => []);
    this.#reportsOf = policies.map(() => []);
    this.#parts = policies.flatMap((_, a) =>
      policies.slice(a + 1).map((_, i): ReportPart => (
        { pair: [a, a + 1 + i], different: 0, unsettled: 0, fields: [], findings: [], origins: [] }
      ))
    );
    const differ = (a: number, own: readonly Policy[]): Differ => {
      const differ: Differ = new Differ(own, (difference) => this.#difference(difference, a), {
        look: (run) => {
          if (a === 0) this.#run(run);
          this.#explain[a] = () => run.sides.map((side) => stepsOf(side, run.vmcb12));
        },
        lookLogged: (unit, run) => {
          if (a === 0) this.#loggedRun(unit, run);
          this.#explain[a] = () => differ.policies.map((policy) => stepsOfLogged(policy, unit));
        },
      });
      return differ;
    };
    const first = differ(0, policies);
    this.#logged = new LoggedOutcomes(first.policies);
    const others = policies.slice(1, -1).map((_, i) => differ(i + 1, first.policies.slice(i + 1)));
    this.#differs = [first, ...others];
  }

  /**
   * Takes the next event of the trace.
   *
   * @param event The event; its images need to be valid only during the call.
   * @throws {ReplayError} When an input lacks what is needed to carry it out.
   */
  feed(event: TraceEvent): void {
    for (const differ of this.#differs) differ.feed(event);
  }

  /**
   * Ends the trace.
   *
   * @param title What to call the report.
   * @param latency Latencies, when they were measured.
   * @returns What the page shows.
   */
  finish(title: string, latency: readonly ReportLatency[] = []): ReportData {
    const results = this.#differs.map((differ) => differ.finish());
    const [result] = results as [DiffResult, ...DiffResult[]];
    for (const part of this.#parts) {
      const [a, b] = part.pair;
      part.different = results[a]?.different[b - a - 1] ?? 0;
      part.unsettled = results[a]?.unsettled[b - a - 1] ?? 0;
    }
    // Findings were numbered as they came; the page has them in the order of the list.
    const place = [...this.#keys.keys()].map((key) => this.#findings.indexOf(key));
    return {
      title,
      policies: this.#policies.map((policy) => policy.name),
      result,
      findings: this.#findings.list(),
      outcomes: OUTCOMES,
      texts: this.#texts.items,
      steps: this.#steps.items,
      stepLists: this.#stepLists.items,
      ways: this.#ways.items,
      reportLists: this.#reportLists.items,
      rows: this.#rows.items,
      lists: this.#lists.items,
      sets: this.#sets.items.map((set) => set.map((n) => place[n] as number)),
      events: this.#events,
      names: this.#names,
      recorded: this.#recorded,
      explained: Object.fromEntries(this.#explained),
      outcomeOf: this.#outcomeOf,
      stepsOf: this.#stepsOf,
      reportsOf: this.#reportsOf,
      parts: this.#parts,
      latency,
    };
  }

  #text(text: string): number {
    return this.#texts.add(text, () => text);
  }

  #run(run: RunView): void {
    this.#begin(run);
    if (this.#recorded.length > 0) this.#recorded.push(OUTCOMES.indexOf("not seen"));
    run.sides.forEach((side, i) => {
      this.#outcomeOf[i]?.push(OUTCOMES.indexOf(outcomeOf(side)));
      this.#stepsOf[i]?.push(this.#stepList(side.log.transitions));
      this.#reportsOf[i]?.push(this.#reportList(side.log.reports));
    });
  }

  #loggedRun(unit: LoggedRun, run: RunRef): void {
    // Runs before it have no log.
    while (this.#recorded.length < this.#events.length) {
      this.#recorded.push(OUTCOMES.indexOf("not seen"));
    }
    this.#begin(run);
    this.#recorded.push(OUTCOMES.indexOf(recordedOutcome(unit)));
    this.#logged.of(unit).forEach(({ outcome, transitions, open, reports }, i) => {
      this.#outcomeOf[i]?.push(OUTCOMES.indexOf(outcome));
      this.#stepsOf[i]?.push(this.#stepList(transitions, open));
      this.#reportsOf[i]?.push(this.#reportList(reports));
    });
  }

  #begin({ event, scenario, spec }: RunRef): void {
    this.#events.push(event);
    const name = [scenario, spec].filter(Boolean).join(" ");
    this.#names.push(name === "" ? -1 : this.#text(name));
    for (const part of this.#parts) {
      part.fields.push(-1);
      part.findings.push(-1);
    }
  }

  #reportList(reports: readonly Incident[]): number {
    const texts = reports.map(({ kind, id, text }) =>
      this.#text(kind === "check" ? `${id}: ${text}` : `assertion: ${text}`)
    );
    return this.#reportLists.add(texts.join(), () => texts);
  }

  #stepList(
    transitions: readonly { readonly way: string; readonly steps: readonly ReportStep[] }[],
    open = false,
  ): number {
    const numbers: number[] = [];
    const add = (name: string, doc: string) =>
      numbers.push(this.#steps.add(name, () => ({ name, doc })));
    for (const { way, steps } of transitions) {
      numbers.push(-1 - this.#ways.add(way, () => way));
      for (const { name, doc } of steps) add(name, doc);
    }
    if (open) add(UNSEEN, "What follows is not the same for all that the log leaves open");
    return this.#stepLists.add(numbers.join(), () => numbers);
  }

  /** Tells the steps of the run that a differ is at, with what they write. */
  #explainRun(run: number, a: number): void {
    let told = this.#explained.get(run);
    if (told === undefined) {
      if (this.#explained.size >= MOST_EXPLAINED) return;
      this.#explained.set(run, told = this.#policies.map(() => null));
    }
    if (told.slice(a).every((steps) => steps !== null)) return;
    this.#explain[a]?.().forEach((steps, i) => {
      if (steps !== undefined) told[a + i] ??= steps.map((step) => this.#writes(step));
    });
  }

  #writes({ name, doc, way, depth, changes }: ExplainedStep): ReportWrites {
    const writes = changes.slice(0, MOST_WRITES).map((change) => {
      const { a, b, bits } = valueTexts(change);
      return [fieldText(change), a, b, bits.join(" ")].map((text) => this.#text(text)) as [
        number,
        number,
        number,
        number,
      ];
    });
    return { name, doc, way, depth, writes, more: changes.length - writes.length };
  }

  /** Takes what differs from the policy at a place. */
  #difference(difference: RunDifference, a: number): void {
    const { run, policies, fields } = difference;
    const b = this.#policies.findIndex(({ name }, i) => i > a && name === policies[1]);
    const part = this.#parts.find(({ pair }) => pair[0] === a && pair[1] === b);
    if (part === undefined) return;
    const list = fields.map((field) => {
      const { a, b, bits } = valueTexts(field);
      const row: ReportRow = {
        field: this.#text(fieldText(field)),
        a: this.#value(a),
        b: this.#value(b),
        bits: bits.length === 0 ? -1 : this.#text(bits.join(" ")),
        stepA: field.stepA === undefined ? -1 : this.#text(field.stepA),
        stepB: field.stepB === undefined ? -1 : this.#text(field.stepB),
      };
      const number = this.#rows.add(Object.values(row).join(), () => row, MOST);
      if (field.origin !== undefined) {
        const [last] = part.origins.slice(-1);
        if (last?.[0] !== run) part.origins.push([run, field.origin.run]);
      }
      return { number, carried: field.carried };
    }).filter(({ number }) => number >= 0)
      .map(({ number, carried }) => carried ? -1 - number : number);
    part.fields[run] = this.#lists.add(list.join(), () => list, MOST);
    const known = this.#keys.size;
    const found = this.#findings.add(difference).map((key) => {
      const number = this.#keys.get(key) ?? this.#keys.size;
      this.#keys.set(key, number);
      return number;
    });
    if (this.#keys.size > known) this.#explainRun(run, a);
    part.findings[run] = this.#sets.add(found.join(), () => found);
  }

  /** A value's number; values that nobody reads one by one are left out when there are too many. */
  #value(text: string): number {
    return this.#texts.add(text, () => text, 4 * MOST);
  }
}
