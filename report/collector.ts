/**
 * Gathers what a report shows while a trace runs under several policies.
 *
 * @module
 */
import type { TraceEvent } from "../engine/event.ts";
import {
  Differ,
  type DiffResult,
  type ExplainedStep,
  type FieldDifference,
  fieldText,
  type Finding,
  Findings,
  type RunDifference,
  type RunRef,
  type RunView,
  stepsOf,
  stepsOfLogged,
  UNSEEN,
  valueTexts,
} from "../engine/diff/mod.ts";
import type { Incident } from "../engine/diff/transitions.ts";
import { MemoizedDiffer } from "../engine/memo/mod.ts";
import type { Policy } from "../engine/policy.ts";
import type { LoggedRun } from "../engine/replay/logged_runs.ts";
import type {
  ReportData,
  ReportLatency,
  ReportPart,
  ReportRow,
  ReportStep,
  ReportWrites,
} from "./data.ts";
import { LoggedOutcomes, recordedOutcome } from "./logged_outcomes.ts";
import { outcomeOf, OUTCOMES } from "./outcome.ts";
import { Table } from "./table.ts";

/** Distinct rows and lists that are kept; a trace with more differs in values nobody reads one by one. */
const MOST = 100_000;

/** Runs of which each step's writes are told, and writes of a step, at most. */
const MOST_EXPLAINED = 200, MOST_WRITES = 40;

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
  readonly #differs: readonly Pick<Differ, "feed" | "finish" | "policies">[];
  /** For each of them, what it found. */
  readonly #findings: readonly Findings[];
  /** Findings as they came: which differ's, and its key there. */
  readonly #found: (readonly [number, string])[] = [];
  readonly #numbers = new Map<string, number>();
  /** For each of them, which run a run repeats. */
  readonly #likes: readonly number[][];
  // A memoized run is part of the same findings each time.
  readonly #setOf = new WeakMap<readonly string[], number>();
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
   * @param options Whether runs are carried out that repeat another byte for byte; what the report
   * shows is the same.
   */
  constructor(policies: readonly Policy[], { each = false }: { readonly each?: boolean } = {}) {
    this.#policies = policies;
    this.#outcomeOf = policies.map(() => []);
    this.#stepsOf = policies.map(() => []);
    this.#reportsOf = policies.map(() => []);
    this.#parts = policies.flatMap((_, a) =>
      policies.slice(a + 1).map((_, i): ReportPart => (
        { pair: [a, a + 1 + i], different: 0, unsettled: 0, fields: [], findings: [], origins: [] }
      ))
    );
    const differ = (a: number, own: readonly Policy[]) => {
      const report = (difference: RunDifference) => this.#difference(difference, a);
      const differ: Differ | MemoizedDiffer = new (each ? Differ : MemoizedDiffer)(own, report, {
        look: (run: RunView) => {
          if (a === 0) this.#run(run);
          this.#explain[a] = () => run.sides.map((side) => stepsOf(side, run.vmcb12));
        },
        lookLogged: (unit: LoggedRun, run: RunRef) => {
          if (a === 0) this.#loggedRun(unit, run);
          this.#explain[a] = () => differ.policies.map((policy) => stepsOfLogged(policy, unit));
        },
        repeated: (run: RunRef, like: number) => {
          if (a === 0) this.#repeatedRun(run, like);
          (this.#likes[a] as number[])[run.run] = like;
          // What its steps wrote is gone.
          this.#explain[a] = () => [];
        },
      });
      return differ;
    };
    const first = differ(0, policies);
    this.#logged = new LoggedOutcomes(first.policies);
    const others = policies.slice(1, -1).map((_, i) => differ(i + 1, first.policies.slice(i + 1)));
    this.#differs = [first, ...others];
    this.#findings = this.#differs.map(() => new Findings());
    this.#likes = this.#differs.map(() => []);
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
    for (const { fields, findings } of this.#parts) {
      for (const column of [fields, findings]) fill(column, this.#events.length);
    }
    const { findings, place } = this.#sorted();
    return {
      title,
      policies: this.#policies.map((policy) => policy.name),
      result,
      findings,
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

  /** The findings of all differs in one list, and the place in it of each as it came. */
  #sorted(): { findings: Finding[]; place: number[] } {
    const late = ({ kind }: Finding) => kind === "carried" ? 2 : kind === "unsettled" ? 1 : 0;
    const lists = this.#findings.map((one) => one.list());
    const findings = lists.flat().sort((a, b) => late(a) - late(b) || b.runs - a.runs);
    const at = new Map(findings.map((finding, i) => [finding, i]));
    const place = this.#found.map(([a, key]) =>
      at.get(lists[a]?.[this.#findings[a]?.indexOf(key) ?? -1] as Finding) as number
    );
    return { findings, place };
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

  /** A run that did what an earlier one did. */
  #repeatedRun(run: RunRef, like: number): void {
    this.#events.push(run.event);
    const columns = [this.#names, ...this.#outcomeOf, ...this.#stepsOf, ...this.#reportsOf];
    if (this.#recorded.length > 0) columns.push(this.#recorded);
    for (const column of columns) column.push(column[like] as number);
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
    const from = fields.find(({ origin }) => origin !== undefined)?.origin;
    if (from !== undefined) part.origins.push([run, from.run]);
    // What is repeated is the same but for where it comes from.
    const like = this.#likes[a]?.[run] ?? -1;
    put(part.fields, run, part.fields[like] ?? this.#list(fields));
    const keys = (this.#findings[a] as Findings).add(difference);
    let set = this.#setOf.get(keys);
    if (set === undefined) {
      const known = this.#found.length;
      const numbers = keys.map((key) => this.#numberOf(a, key));
      if (this.#found.length > known) this.#explainRun(run, a);
      this.#setOf.set(keys, set = this.#sets.add(numbers.join(), () => numbers));
    }
    put(part.findings, run, set);
  }

  /** Number of a finding as it came. */
  #numberOf(a: number, key: string): number {
    const name = `${a} ${key}`;
    let number = this.#numbers.get(name);
    if (number === undefined) {
      number = this.#found.push([a, key]) - 1;
      this.#numbers.set(name, number);
    }
    return number;
  }

  /** Number of a list of fields. */
  #list(fields: readonly FieldDifference[]): number {
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
      return number < 0 ? undefined : field.carried ? -1 - number : number;
    }).filter((number) => number !== undefined);
    return this.#lists.add(list.join(), () => list, MOST);
  }

  /** A value's number; values that nobody reads one by one are left out when there are too many. */
  #value(text: string): number {
    return this.#texts.add(text, () => text, 4 * MOST);
  }
}

/** Runs that differ nowhere, up to one. */
function fill(column: number[], run: number): void {
  while (column.length < run) column.push(-1);
}

function put(column: number[], run: number, value: number): void {
  fill(column, run);
  column[run] = value;
}
