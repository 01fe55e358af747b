/**
 * Comparing policies over transitions that a log shows without memory.
 *
 * Each transition is carried out in several ways of filling in the unknown. What
 * differs in every way differs; what differs in some of them cannot be told, and
 * the inputs are named that would settle it.
 *
 * @module
 */
import type { Image } from "../event.ts";
import { type FieldValue, readField } from "../image/fields.ts";
import type { Field } from "../layout.ts";
import type { Policy } from "../policy.ts";
import { type Assumption, mixtures, VARIANTS } from "../replay/fill_unknown.ts";
import { assumptionOf, LoggedDriver, type Reached } from "../replay/logged_driver.ts";
import { contentOf, withOtherCopies } from "../replay/logged_content.ts";
import { agreeing } from "../replay/logged_judge.ts";
import type { LoggedRun } from "../replay/logged_runs.ts";
import type { Observer, Vcpu } from "../kvm/vcpu.ts";
import { builtIn } from "../steps/built_in.ts";
import { areaImage, placeOf } from "./areas.ts";
import { StateParts } from "./state_parts.ts";
import { differingRows, keyOf, momentOf, partingOf, type Row, sameReports } from "./compare.ts";
import type { FieldDifference, RunDifference, RunEnd } from "./run_difference.ts";
import { type Incident, TransitionLog } from "./transitions.ts";

/** How many answers are kept, to be used again for a VMRUN with the same inputs. */
const KEPT = 4096;

type Answer = Pick<RunDifference, "fields" | "reports" | "ends" | "parting"> | undefined;

/** One policy and what it makes of a transition. */
interface Side {
  readonly driver: LoggedDriver;
  readonly log: TransitionLog;
}

/** One way of filling in, carried out under both policies. */
interface Trial {
  readonly state: Assumption;
  readonly progress: readonly [Reached, Reached];
  readonly vcpus: readonly [Vcpu, Vcpu];
  readonly vmcb12: number;
  readonly reports: readonly [readonly Incident[], readonly Incident[]];
  readonly rows: readonly Row[];
}

/** What differs with one unseen input as another trial has it. */
interface MixedTrial {
  readonly name: string;
  readonly keys: ReadonlySet<string>;
}

/** Those by the trial that has the other inputs, and by the one that has the one. */
type Mixed = Map<Trial, Map<Trial, readonly MixedTrial[]>>;

/** Compares two policies over logged runs. */
export class PartialDiffer {
  /** Names of the policies. */
  readonly policies: readonly [string, string];
  /** Logged runs that were carried out, and were not only like others. */
  carriedOut = 0;
  readonly #sides: readonly [Side, Side];
  readonly #kept = new Map<number, Answer>();
  readonly #each: boolean;
  /** Whether it is known of the policies what they go by. */
  readonly #builtIn: boolean;
  /** What differs whatever is only copied. */
  readonly #shared = new Map<number, Answer>();
  /** Contents that were met before, apart from that, and whether it was looked at. */
  readonly #met = new Map<number, boolean>();

  /**
   * Begins with nothing compared.
   *
   * @param a One policy.
   * @param b The other.
   * @param each Whether every logged run is carried out, though one before was like it.
   */
  constructor(a: Policy, b: Policy, each = false) {
    this.#each = each;
    this.policies = [a.name, b.name];
    this.#sides = [sideOf(a), sideOf(b)];
    this.#builtIn = builtIn(a) && builtIn(b);
  }

  /**
   * Compares the policies over one logged run.
   *
   * @param run The logged run.
   * @returns What differs or may differ; undefined when nothing does; `unexplained` when no state
   * is known that fits what was recorded.
   */
  compare(unit: LoggedRun): Answer | "unexplained" {
    if (this.#each) return this.#carryOut(unit);
    const { entered, all } = contentOf(unit);
    if (this.#shared.has(entered)) return this.#shared.get(entered);
    if (this.#kept.has(all)) return this.#kept.get(all);
    if (this.#builtIn && this.#met.has(entered) && this.#learn(entered, unit)) {
      return this.#shared.get(entered);
    }
    const answer = this.#carryOut(unit);
    this.carriedOut++;
    if (answer === "unexplained") return answer;
    if (this.#kept.size >= KEPT) this.#kept.clear();
    this.#kept.set(all, answer);
    if (this.#met.size >= KEPT) this.#met.clear();
    if (!this.#met.has(entered)) this.#met.set(entered, false);
    return answer;
  }

  /**
   * Looks whether logged runs differ alike whatever is only copied. They do where they do for values of
   * which none is like another, and for others: a copy that is not the same on both sides would show.
   */
  #learn(content: number, unit: LoggedRun): boolean {
    if (this.#met.get(content) === true) return false;
    this.#met.set(content, true);
    const [one, other] = withOtherCopies(unit).map((run) => this.#carryOut(run));
    if (one === "unexplained" || textOf(one) !== textOf(other)) return false;
    if (this.#shared.size >= KEPT) this.#shared.clear();
    this.#shared.set(content, one);
    return true;
  }

  #carryOut(unit: LoggedRun): Answer | "unexplained" {
    const trials: Trial[] = [];
    for (let variant = 0; variant < VARIANTS; variant++) {
      const state = assumptionOf(unit, variant);
      if (state === undefined) return "unexplained";
      trials.push(this.#try(unit, state));
    }
    const answer = this.#answer(unit, trials);
    for (const trial of trials) this.#release(trial);
    return answer;
  }

  /** A trial is over: its vCPUs are for others. */
  #release({ vcpus: [a, b] }: Trial): void {
    this.#sides[0].driver.giveBack(a);
    this.#sides[1].driver.giveBack(b);
  }

  #try(unit: LoggedRun, state: Assumption): Trial {
    const [a, b] = this.#sides;
    const run = ({ driver, log }: Side) => {
      log.reset();
      const progress = driver.runFrom(unit, state);
      return { progress, vcpu: driver.take() as Vcpu, reports: [...log.reports] };
    };
    const x = run(a), y = run(b);
    const vmcb12 = a.driver.vmcb12;
    return {
      state,
      progress: [x.progress, y.progress],
      vcpus: [x.vcpu, y.vcpu],
      vmcb12,
      reports: [x.reports, y.reports],
      rows: differingRows(new StateParts().of(x.vcpu, vmcb12), new StateParts().of(y.vcpu, vmcb12)),
    };
  }

  #answer(unit: LoggedRun, trials: readonly Trial[]): Answer {
    const last = trials.at(-1);
    if (last === undefined) return undefined;
    const mixed: Mixed = new Map();
    // The logs hold the last trial's transitions until there is another.
    const parting = partingOf(this.#sides[0].log, this.#sides[1].log);
    const counts = new Map<string, number>();
    for (const { rows } of trials) {
      for (const row of rows) counts.set(keyOf(row), (counts.get(keyOf(row)) ?? 0) + 1);
    }
    const reportsSame = trials.every(({ reports: [x, y] }) => sameReports(x, y));
    if (counts.size === 0 && reportsSame) return undefined;
    const told = new Set<string>();
    const fields = trials.flatMap((trial) => {
      const rows = trial.rows.filter((row) => !told.has(keyOf(row)));
      for (const row of rows) told.add(keyOf(row));
      return this.#fields(unit, trial, rows, trials, counts, mixed);
    });
    return {
      fields,
      reports: reportsSame ? undefined : last.reports,
      ends: last.progress.map(endOf) as [RunEnd, RunEnd],
      parting,
    };
  }

  /** Some of the fields that differ in a trial, with the steps that wrote them in it. */
  #fields(
    unit: LoggedRun,
    trial: Trial,
    rows: readonly Row[],
    trials: readonly Trial[],
    counts: ReadonlyMap<string, number>,
    mixed: Mixed,
  ): FieldDifference[] {
    if (rows.length === 0) return [];
    const again = this.#try(unit, trial.state);
    const { vcpus: [va, vb] } = again;
    const [{ log: logA }, { log: logB }] = this.#sides;
    const places = rows.map(({ area, row }) => placeOf(area, row.row));
    const writersA = logA.lastWriters(va, places), writersB = logB.lastWriters(vb, places);
    const written = rows.map((_, i) => {
      const wa = writersA[i], wb = writersB[i];
      const when = wa
        ? momentOf(wa.transition, logA)
        : wb
        ? momentOf(wb.transition, logB)
        : undefined;
      return { stepA: wa?.step, stepB: wb?.step, when };
    });
    this.#release(again);
    return rows.map((row, i): FieldDifference => {
      const certain = counts.get(keyOf(row)) === trials.length;
      // What cannot be told is shown as it is where it differs.
      const { a, b } = certain ? agreeingValues(row, trials) : row.row;
      return {
        area: row.area.name,
        field: row.row.row,
        a,
        b,
        differing: row.row.differing,
        ...written[i]!,
        carried: false,
        origin: undefined,
        needs: certain ? [] : this.#needs(unit, keyOf(row), trial, trials, mixed),
      };
    });
  }

  /** The unseen inputs of which each alone decides whether a field differs. */
  #needs(
    unit: LoggedRun,
    key: string,
    differs: Trial,
    trials: readonly Trial[],
    mixed: Mixed,
  ): string[] {
    const same = trials.find(({ rows }) => !rows.some((row) => keyOf(row) === key));
    if (same === undefined) return [];
    let ofTrial = mixed.get(differs);
    if (ofTrial === undefined) mixed.set(differs, ofTrial = new Map());
    let between = ofTrial.get(same);
    if (between === undefined) ofTrial.set(same, between = this.#mix(unit, differs, same));
    const needs = between.filter(({ keys }) => !keys.has(key)).map(({ name }) => name);
    return needs.length > 0 ? needs : ["more than one field that was not seen"];
  }

  /** What differs between two trials, with one unseen input of the other at a time. */
  #mix(unit: LoggedRun, from: Trial, other: Trial): MixedTrial[] {
    const [a, b] = this.#sides;
    const parts = [new StateParts(), new StateParts()] as const;
    // Which steps run does not matter here.
    a.driver.observer = b.driver.observer = NOBODY;
    const all: MixedTrial[] = [];
    for (const { name, state } of mixtures(unit, from.state, other.state)) {
      const [x, y] = this.#sides.map(({ driver }, i) => {
        driver.runFrom(unit, state);
        parts[i]!.forget();
        return parts[i]!.of(driver.vcpu as Vcpu, driver.vmcb12);
      });
      all.push({ name, keys: new Set(differingRows(x!, y!).map(keyOf)) });
    }
    a.driver.observer = a.log.observer;
    b.driver.observer = b.log.observer;
    return all;
  }
}

/** Hears what has to be heard, and does nothing about it. */
const NOBODY: Observer = { check() {}, warn() {}, inner() {} };

/** An answer as text, the same for the same. */
function textOf(answer: Answer | "unexplained"): string {
  return JSON.stringify(answer, (key, value) => {
    if (typeof value === "bigint") return value.toString(16);
    return key === "field" ? (value as Field).name : value as unknown;
  }) ?? "";
}

function sideOf(policy: Policy): Side {
  const log = new TransitionLog();
  const driver = new LoggedDriver(policy, 0);
  driver.observer = log.observer;
  return { driver, log };
}

function endOf(progress: Reached): RunEnd {
  return progress === "entered" ? "goes on in L2" : "goes on in L1";
}

/** What of a differing field is the same in every trial; the rest is unknown. */
function agreeingValues(
  { area, row }: Row,
  trials: readonly Trial[],
): { readonly a: FieldValue; readonly b: FieldValue } {
  const field = row.row;
  if (!area.layout.fields.includes(field)) return row;
  const image = (side: 0 | 1): Image =>
    agreeing(trials.map(({ vcpus, vmcb12 }) => areaImage(area, vcpus[side], vmcb12).bytes));
  return { a: readField(image(0), field), b: readField(image(1), field) };
}
