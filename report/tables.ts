/**
 * The tables and columns of a report, filled run by run or out of those of a part of the trace.
 *
 * @module
 */
import {
  type DiffResult,
  type ExplainedStep,
  type FieldDifference,
  fieldText,
  type Finding,
  Findings,
  type RunDifference,
  type RunRef,
  UNSEEN,
  valueTexts,
} from "../engine/diff/mod.ts";
import type { Incident } from "../engine/diff/transitions.ts";
import type {
  ReportData,
  ReportLatency,
  ReportPart,
  ReportRow,
  ReportStep,
  ReportWrites,
} from "./data.ts";
import { OUTCOMES, type ReportOutcome } from "./outcome.ts";
import { Table } from "./table.ts";

/** Distinct rows and lists that are kept; a trace with more differs in values nobody reads one by one. */
const MOST = 100_000;

/** Runs of which each step's writes are told, and writes of a step, at most. */
const MOST_EXPLAINED = 200, MOST_WRITES = 40;

/** Each policy's steps with what they wrote, null where that is not told. */
export type ToldSteps = (readonly ReportWrites[] | null)[];

/** One policy's side of a run. */
export interface ReportSide {
  /** What becomes of the run. */
  readonly outcome: ReportOutcome;
  /** The steps of its transitions. */
  readonly transitions: readonly { readonly way: string; readonly steps: readonly ReportStep[] }[];
  /** Whether the steps go on, and depend on what was not recorded. */
  readonly open?: boolean;
  /** Failed checks and broken assertions. */
  readonly reports: readonly Incident[];
}

/** A difference of one run, as another thread found it. */
export interface ReportDifference {
  /** Place of the policy that it is a difference from. */
  readonly from: number;
  /** The difference, in runs and events of the whole trace. */
  readonly difference: RunDifference;
}

/** What a report shows, while it grows. */
export class ReportTables {
  readonly #policies: readonly string[];
  /** For each policy that others are compared with, what was found. */
  readonly #findings: readonly Findings[];
  /** Findings as they came: whose, and its key there. */
  readonly #found: (readonly [number, string])[] = [];
  readonly #numbers = new Map<string, number>();
  // A memoized run is part of the same findings each time.
  readonly #setOf = new WeakMap<readonly string[], number>();
  readonly #texts = new Table<string>();
  readonly #steps = new Table<ReportStep>();
  readonly #stepLists = new Table<readonly number[]>();
  readonly #ways = new Table<string>();
  readonly #reportLists = new Table<readonly number[]>();
  readonly #rows = new Table<ReportRow>();
  readonly #lists = new Table<readonly number[]>();
  readonly #sets = new Table<readonly number[]>();
  readonly #events: number[] = [];
  readonly #names: number[] = [];
  readonly #recorded: number[] = [];
  readonly #outcomeOf: number[][];
  readonly #stepsOf: number[][];
  readonly #reportsOf: number[][];
  readonly #parts: ReportPart[];
  readonly #explained = new Map<number, ToldSteps>();

  /** @param policies Names of the policies; every two of them are compared. */
  constructor(policies: readonly string[]) {
    this.#policies = policies;
    this.#outcomeOf = policies.map(() => []);
    this.#stepsOf = policies.map(() => []);
    this.#reportsOf = policies.map(() => []);
    this.#parts = policies.flatMap((_, a) =>
      policies.slice(a + 1).map((_, i): ReportPart => (
        { pair: [a, a + 1 + i], different: 0, unsettled: 0, fields: [], findings: [], origins: [] }
      ))
    );
    this.#findings = policies.map(() => new Findings());
  }

  /**
   * Appends a run.
   *
   * @param run Which.
   * @param sides Each policy's side.
   * @param recorded What a log says became of it; undefined of a recording that is none.
   */
  run(
    { event, scenario, spec }: RunRef,
    sides: readonly ReportSide[],
    recorded?: ReportOutcome,
  ): void {
    if (recorded !== undefined || this.#recorded.length > 0) {
      // Runs before it have no log.
      this.#unseen(this.#events.length);
      this.#recorded.push(OUTCOMES.indexOf(recorded ?? "not seen"));
    }
    this.#events.push(event);
    const name = [scenario, spec].filter(Boolean).join(" ");
    this.#names.push(name === "" ? -1 : this.#text(name));
    sides.forEach(({ outcome, transitions, open, reports }, i) => {
      this.#outcomeOf[i]?.push(OUTCOMES.indexOf(outcome));
      this.#stepsOf[i]?.push(this.#stepList(transitions, open));
      this.#reportsOf[i]?.push(this.#reportList(reports));
    });
  }

  #unseen(runs: number): void {
    while (this.#recorded.length < runs) this.#recorded.push(OUTCOMES.indexOf("not seen"));
  }

  /** Appends a run that did what an earlier one did. */
  again(run: RunRef, like: number): void {
    this.#events.push(run.event);
    const columns = [this.#names, ...this.#outcomeOf, ...this.#stepsOf, ...this.#reportsOf];
    if (this.#recorded.length > 0) columns.push(this.#recorded);
    for (const column of columns) column.push(column[like] as number);
  }

  /**
   * Notes what differs in a run.
   *
   * @param difference What differs.
   * @param like Number of the run that it repeats; -1 for none.
   * @param explain Tells the steps of the run; called when a finding shows first.
   */
  differs({ from, difference }: ReportDifference, like: number, explain: () => ToldSteps): void {
    const part = this.#partOf(from, difference);
    if (part === undefined) return;
    const { run, fields } = difference;
    const origin = fields.find(({ origin }) => origin !== undefined)?.origin;
    if (origin !== undefined) part.origins.push([run, origin.run]);
    // What is repeated is the same but for where it comes from.
    put(part.fields, run, part.fields[like] ?? this.#list(fields));
    this.#find(part, { from, difference }, explain);
  }

  #partOf(from: number, { policies }: RunDifference): ReportPart | undefined {
    const b = this.#policies.findIndex((name, i) => i > from && name === policies[1]);
    return this.#parts.find(({ pair }) => pair[0] === from && pair[1] === b);
  }

  #find(part: ReportPart, { from, difference }: ReportDifference, explain: () => ToldSteps): void {
    const { run } = difference;
    const keys = (this.#findings[from] as Findings).add(difference);
    let set = this.#setOf.get(keys);
    if (set === undefined) {
      const known = this.#found.length;
      const numbers = keys.map((key) => this.#numberOf(from, key));
      if (this.#found.length > known) this.#tell(run, explain);
      this.#setOf.set(keys, set = this.#sets.add(numbers.join(), () => numbers));
    }
    put(part.findings, run, set);
  }

  #tell(run: number, explain: () => ToldSteps): void {
    const told = this.#explained.get(run) ?? this.#policies.map(() => null);
    if (!this.#explained.has(run) && this.#explained.size >= MOST_EXPLAINED) return;
    this.#explained.set(run, told);
    if (told.every((steps) => steps !== null)) return;
    explain().forEach((steps, i) => told[i] ??= steps);
  }

  /** Steps as they are told. */
  told(steps: readonly ExplainedStep[]): ReportWrites[] {
    return steps.map((step) => this.#writes(step));
  }

  /**
   * Appends a part of the trace that was gathered apart.
   *
   * @param part What was gathered.
   * @param event Number of its first event.
   * @param differences What differs in its runs.
   */
  append(part: ReportData, event: number, differences: Iterable<ReportDifference>): void {
    const first = this.#events.length;
    const texts = part.texts.map((text) => this.#text(text));
    const text = (n: number) => n < 0 ? n : texts[n] as number;
    const steps = part.steps.map((step) => this.#steps.add(step.name, () => step));
    const ways = part.ways.map((way) => this.#ways.add(way, () => way));
    const numbered =
      (table: Table<readonly number[]>, most?: number) => (list: readonly number[]) =>
        table.add(list.join(), () => list, most);
    const stepLists = part.stepLists.map((list) =>
      list.map((n) => n < 0 ? -1 - (ways[-1 - n] as number) : steps[n] as number)
    ).map(numbered(this.#stepLists));
    const reportLists = part.reportLists.map((list) => list.map(text)).map(
      numbered(this.#reportLists),
    );
    const rows = part.rows.map(({ field, a, b, bits, stepA, stepB }) => {
      const row = {
        field: text(field),
        a: text(a),
        b: text(b),
        bits: text(bits),
        stepA: text(stepA),
        stepB: text(stepB),
      };
      return this.#rows.add(Object.values(row).join(), () => row, MOST);
    });
    const lists = part.lists.map((list) =>
      list.map((n) =>
        n < 0 ? [rows[-1 - n] as number, true] as const : [rows[n] as number, false] as const
      )
        .flatMap(([n, carried]) => n < 0 ? [] : carried ? -1 - n : n)
    ).map(numbered(this.#lists, MOST));
    if (part.recorded.length > 0 || this.#recorded.length > 0) {
      this.#unseen(first);
      this.#recorded.push(...part.recorded);
      this.#unseen(first + part.events.length);
    }
    for (const at of part.events) this.#events.push(event + at);
    for (const name of part.names) this.#names.push(text(name));
    const columns = (
      own: number[][],
      other: readonly (readonly number[])[],
      map: readonly number[],
    ) =>
      other.forEach((column, i) => {
        for (const n of column) own[i]?.push(map[n] as number);
      });
    columns(this.#outcomeOf, part.outcomeOf, OUTCOMES.map((_, i) => i));
    columns(this.#stepsOf, part.stepsOf, stepLists);
    columns(this.#reportsOf, part.reportsOf, reportLists);
    part.parts.forEach(({ fields, origins }, i) => {
      const own = this.#parts[i] as ReportPart;
      fields.forEach((list, run) => {
        if (list >= 0) put(own.fields, first + run, lists[list] as number);
      });
      for (const [run, origin] of origins) own.origins.push([first + run, first + origin]);
    });
    const writes = (steps: readonly ReportWrites[]) =>
      steps.map((step) => ({
        ...step,
        writes: step.writes.map((one) => one.map(text) as [number, number, number, number]),
      }));
    for (const one of differences) {
      const own = this.#partOf(one.from, one.difference);
      const told = part.explained[one.difference.run - first] ?? [];
      if (own !== undefined) {
        this.#find(own, one, () => told.map((steps) => steps && writes(steps)));
      }
    }
  }

  /**
   * Everything that was gathered.
   *
   * @param title What to call the report.
   * @param results For each policy that others are compared with, the counts.
   * @param latency Latencies, when they were measured.
   */
  finish(
    title: string,
    results: readonly DiffResult[],
    latency: readonly ReportLatency[],
  ): ReportData {
    for (const part of this.#parts) {
      const [a, b] = part.pair;
      part.different = results[a]?.different[b - a - 1] ?? 0;
      part.unsettled = results[a]?.unsettled[b - a - 1] ?? 0;
      for (const column of [part.fields, part.findings]) fill(column, this.#events.length);
    }
    const { findings, place } = this.#sorted();
    return {
      title,
      policies: this.#policies,
      result: results[0] as DiffResult,
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

  /** The findings of all in one list, and the place in it of each as it came. */
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
