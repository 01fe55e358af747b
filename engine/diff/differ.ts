/**
 * Running a trace under several policies side by side, and telling where they
 * end up differently and which step parted them.
 *
 * @module
 */
import type { TraceEvent } from "../event.ts";
import { onProcessor, type Policy } from "../policy.ts";
import type { Vcpu } from "../kvm/vcpu.ts";
import { type Repeatable, Repeats, type Rest } from "../repeat/repeats.ts";
import { Driver } from "../replay/drive.ts";
import {
  differingRows,
  endOf,
  keyOf,
  momentOf,
  partingOf,
  sameBytes,
  samePage,
  sameReports,
  sameState,
} from "./compare.ts";
import { type Unit, UnitCollector } from "../replay/units.ts";
import { PartialDiffer } from "./partial_differ.ts";
import { RefBook, type RepeatedReports } from "./ref_book.ts";
import type { FieldDifference, RunDifference, RunRef } from "./run_difference.ts";
import type { Place } from "../svm/view_source.ts";
import { placeOf } from "./areas.ts";
import { TransitionLog } from "./transitions.ts";

/** What one policy did in a run. */
export interface RunSide {
  /** The policy. */
  readonly policy: Policy;
  /** The vCPU after the run; not to be changed, and to be read before the next event is fed. */
  readonly vcpu: Vcpu;
  /** Its transitions and reports; to be read before the next event is fed. */
  readonly log: TransitionLog;
}

/** A run as each policy carried it out. */
export interface RunView extends RunRef {
  /** Address of its vmcb12. */
  readonly vmcb12: number;
  /** Each policy's side, in order. */
  readonly sides: readonly RunSide[];
}

/** What a comparison of policies found. */
export interface DiffResult {
  /** Names of the policies. */
  readonly policies: readonly string[];
  /** Events read. */
  readonly events: number;
  /** Runs carried out under each policy. */
  readonly runs: number;
  /** Runs that end up differently, for each policy after the first. */
  readonly different: readonly number[];
  /** Runs of which the trace shows too little to tell, for each policy after the first. */
  readonly unsettled: readonly number[];
  /** Runs whose inputs are not in the trace. */
  readonly skipped: number;
}

interface Side {
  readonly driver: Driver;
  readonly log: TransitionLog;
}

/** What is remembered of one policy beside the first. */
interface Pair {
  /** What the policy does from the first one's state; only while the states at the start differ. */
  shadow: Side | undefined;
  /** One that was needed before. */
  spare: Driver | undefined;
  readonly log: TransitionLog;
  /** Where the fields that differ come from. */
  origins: Map<string, RunRef>;
  /** The last run that made a difference of its own. */
  last: RunRef | undefined;
}

/** How a comparison goes about it. */
export interface DiffRunOptions {
  /** Receives every run, before its differences. */
  readonly look?: (run: RunView) => void;
  /**
   * Whether a run that begins in the same state as an earlier one, with the same events byte for
   * byte, may take over what that one came to. Never where somebody looks at every run, or where a
   * policy has steps of one's own.
   */
  readonly repeats?: boolean;
}

/** What a stretch of the trace came to. */
interface Repeated {
  readonly runs: number;
  readonly skipped: number;
  readonly different: readonly number[];
  readonly reports: RepeatedReports;
}

/** What a comparison at rest keeps beside the vCPUs. */
interface Context {
  readonly phases: readonly number[];
  readonly scenario: string | undefined;
  readonly spec: string | undefined;
  /** For each pair, where the fields that differ come from, and the last run that made a difference: numbers of refs. */
  readonly origins: readonly (readonly (readonly [string, number])[])[];
  readonly last: readonly (number | undefined)[];
}

/**
 * Runs a trace under several policies and compares each with the first.
 *
 * When an earlier run left the policies in different states, the run is carried
 * out once more under the other policy from the first one's state. What then no
 * longer differs is a follow-on of the earlier run.
 *
 * @example
 * ```ts
 * import { builtinScenarios, recordScenarios } from "@vmtape/vmtape/traces";
 * import { Differ, EARLY_EXIT, UNIFIED } from "@vmtape/vmtape/engine";
 * const found: string[] = [];
 * const differ = new Differ([EARLY_EXIT, UNIFIED], ({ fields }) => {
 *   for (const { area, field, a, b } of fields) {
 *     found.push(`${area} ${field.name} ${a.value} ${b.value}`);
 *   }
 * });
 * for await (const event of recordScenarios(builtinScenarios("gif-left-set"), EARLY_EXIT)) {
 *   differ.feed(event);
 * }
 * if (differ.finish().different[0] !== 1) throw new Error();
 * if (!found.includes("nested gif 1 0")) throw new Error(found.join());
 * ```
 */
export class Differ {
  readonly #sides: readonly Side[];
  readonly #pairs: readonly Pair[];
  readonly #report: (difference: RunDifference) => void;
  readonly #look: ((run: RunView) => void) | undefined;
  readonly #repeats: Repeats<Repeated>;
  readonly #book = new RefBook();
  readonly #different: number[];
  readonly #partial: readonly PartialDiffer[];
  readonly #units = new UnitCollector((unit) => this.#transition(unit));
  readonly #unsettled: number[];
  #index = 0;
  #runs = 0;
  #skipped = 0;
  #inUnit = false;
  #unitAt = 0;
  #vmcb12 = 0;
  #scenario: string | undefined;
  #spec: string | undefined;

  /**
   * Begins before the trace's first event.
   *
   * @param policies Two or more; each is compared with the first, on the first one's processor.
   * @param report Receives every run that ends up differently.
   * @param options How to go about it.
   */
  constructor(
    policies: readonly Policy[],
    report: (difference: RunDifference) => void,
    { look, repeats = true }: DiffRunOptions = {},
  ) {
    policies = onOneProcessor(policies);
    this.#sides = policies.map((policy) => {
      const log = new TransitionLog();
      const driver = new Driver(policy);
      driver.observer = log.observer;
      return { driver, log };
    });
    this.#pairs = policies.slice(1).map(() => ({
      shadow: undefined,
      spare: undefined,
      log: new TransitionLog(false),
      origins: new Map(),
      last: undefined,
    }));
    this.#report = report;
    this.#look = look;
    this.#repeats = new Repeats(this.#host(), policies, repeats && look === undefined);
    this.#different = policies.slice(1).map(() => 0);
    this.#unsettled = policies.slice(1).map(() => 0);
    const [first, ...others] = policies;
    this.#partial = first === undefined
      ? []
      : others.map((other) => new PartialDiffer(first, other));
  }

  /**
   * Takes the next event of the trace.
   *
   * @param event The event; its images need to be valid only during the call.
   * @throws {ReplayError} When an input lacks what is needed to carry it out.
   */
  feed(event: TraceEvent): void {
    this.#repeats.feed(event, this.#index++);
  }

  /** Events so far that repeat others from the same state, and were not carried out once more. */
  get repeated(): number {
    return this.#repeats.repeated;
  }

  #carryOut(event: TraceEvent, index: number): void {
    if (this.#units.claims(event)) {
      this.#endUnit();
      this.#units.feed(event, index);
      return;
    }
    switch (event.kind) {
      case "vmrun":
        if (event.regs === undefined) {
          if (!this.#inUnit) this.#skipped++;
          return;
        }
        this.#begin(index, Number((event.vmcb12_gpa ?? 0n) & ~0xfffn));
        break;
      case "setstate":
        this.#begin(index, Number((event.vmcb_pa ?? 0n) & ~0xfffn));
        break;
      case "case":
        this.#endUnit();
        this.#scenario = event.name;
        this.#spec = event.spec;
        break;
      case "session":
        this.#endUnit();
        for (const pair of this.#pairs) forget(pair);
        this.#scenario = this.#spec = undefined;
        break;
      case "regs":
        this.#userspace(event.phase ?? "post");
        return;
      default:
        break;
    }
    for (const driver of this.#drivers()) driver.feed(event, index);
  }

  /**
   * Ends the trace.
   *
   * @returns What was found.
   */
  finish(): DiffResult {
    this.#repeats.flush();
    this.#endUnit();
    this.#units.finish();
    return {
      policies: this.#sides.map((side) => side.driver.policy.name),
      events: this.#index,
      runs: this.#runs,
      different: this.#different,
      unsettled: this.#unsettled,
      skipped: this.#skipped,
    };
  }

  /** This comparison, for what takes over results of runs that come again. */
  #host(): Repeatable<Repeated> {
    // deno-lint-ignore no-this-alias
    const differ = this;
    let runs = 0, skipped = 0;
    let different: readonly number[] = [];
    return {
      carryOut: (event, index) => this.#carryOut(event, index),
      get resting() {
        return differ.#units.idle && differ.#sides.every(({ driver }) => driver.resting);
      },
      rest: () => this.#rest(),
      vcpu: (number) => this.#sides[number]?.driver.vcpu,
      restore: (vcpus, rest) => this.#restore(vcpus, rest as Context),
      begin: (index) => {
        runs = this.#runs;
        skipped = this.#skipped;
        different = [...this.#different];
        this.#book.begin(index, runs);
      },
      end: () => {
        const reports = this.#book.end();
        return reports && {
          runs: this.#runs - runs,
          skipped: this.#skipped - skipped,
          different: this.#different.map((count, i) => count - (different[i] as number)),
          reports,
        };
      },
      repeat: ({ runs, skipped, different, reports }, index) => {
        this.#book.repeat(reports, index, this.#runs, this.#report);
        this.#runs += runs;
        this.#skipped += skipped;
        for (let i = 0; i < different.length; i++) this.#different[i]! += different[i]!;
      },
    };
  }

  #rest(): Rest | undefined {
    this.#endUnit();
    const vcpus: Vcpu[] = [];
    for (const { driver } of this.#sides) {
      if (driver.vcpu === undefined) return undefined;
      vcpus.push(driver.vcpu);
    }
    const numbers = new Map<RunRef, number>();
    const number = (ref: RunRef) => {
      const found = numbers.get(ref) ?? numbers.size;
      numbers.set(ref, found);
      return found;
    };
    const rest: Context = {
      phases: this.#sides.map(({ driver }) => driver.phase),
      scenario: this.#scenario,
      spec: this.#spec,
      origins: this.#pairs.map(({ origins }) =>
        [...origins].map(([key, ref]) => [key, number(ref)] as const)
      ),
      last: this.#pairs.map(({ last }) => last && number(last)),
    };
    this.#book.refs = [...numbers.keys()];
    return { vcpus, key: JSON.stringify(rest), rest };
  }

  #restore(vcpus: readonly Vcpu[], { phases, scenario, spec, origins, last }: Context): void {
    const refs = this.#book.refs;
    this.#sides.forEach(({ driver }, i) => {
      driver.vcpu = vcpus[i];
      driver.phase = phases[i] as number;
    });
    this.#pairs.forEach((pair, i) => {
      pair.origins = new Map(
        (origins[i] ?? []).map(([key, number]) => [key, refs[number] as RunRef]),
      );
      const number = last[i];
      pair.last = number === undefined ? undefined : refs[number];
    });
    this.#scenario = scenario;
    this.#spec = spec;
  }

  /** Compares the policies over a transition that was recorded without memory. */
  #transition(unit: Unit): void {
    const ref = { event: unit.event, run: this.#runs++, scenario: undefined, spec: undefined };
    let explained = true;
    this.#partial.forEach((pair, i) => {
      const answer = pair.compare(unit);
      if (answer === "unexplained") explained = false;
      else if (answer !== undefined) {
        if (answer.reports !== undefined || answer.fields.some(({ needs }) => needs.length === 0)) {
          this.#different[i] = (this.#different[i] ?? 0) + 1;
        } else this.#unsettled[i] = (this.#unsettled[i] ?? 0) + 1;
        this.#report({ ...ref, ...answer, policies: pair.policies, reportsOrigin: undefined });
      }
    });
    if (!explained) this.#skipped++;
  }

  *#drivers(): Generator<Driver> {
    for (const { driver } of this.#sides) yield driver;
    for (const { shadow } of this.#pairs) if (shadow !== undefined) yield shadow.driver;
  }

  #begin(index: number, vmcb12: number): void {
    this.#endUnit();
    this.#inUnit = true;
    this.#unitAt = index;
    this.#vmcb12 = vmcb12;
    this.#runs++;
    for (const { log } of this.#sides) log.reset(vmcb12);
    const first = this.#sides[0]?.driver;
    this.#pairs.forEach((pair, i) => {
      const other = this.#sides[i + 1]?.driver;
      if (first?.vcpu === undefined || other?.vcpu === undefined) return;
      if (sameState(first.vcpu, other.vcpu, vmcb12)) return;
      const driver = pair.spare = first.fork(other.policy, pair.spare);
      driver.observer = pair.log.observer;
      pair.log.reset(vmcb12);
      pair.shadow = { driver, log: pair.log };
    });
  }

  /** Userspace looks: at the points where it has a turn, the vCPU must have run. */
  #userspace(phase: string): void {
    if (phase === "pre" || !this.#inUnit) return;
    for (const driver of this.#drivers()) {
      if (!driver.ran) driver.run();
      driver.ran = false;
    }
  }

  #endUnit(): void {
    if (!this.#inUnit) return;
    this.#inUnit = false;
    const [first, ...others] = this.#sides;
    if (first === undefined) return;
    const ref: RunRef = {
      event: this.#unitAt,
      run: this.#runs - 1,
      scenario: this.#scenario,
      spec: this.#spec,
    };
    this.#book.ran(ref);
    this.#look?.({
      ...ref,
      vmcb12: this.#vmcb12,
      sides: this.#sides.map(({ driver, log }) => (
        { policy: driver.policy, vcpu: driver.vcpu as Vcpu, log }
      )),
    });
    others.forEach((other, i) => {
      const pair = this.#pairs[i] as Pair;
      const difference = this.#compare(ref, first, other, pair);
      pair.shadow = undefined;
      if (difference === undefined) return;
      this.#different[i] = (this.#different[i] ?? 0) + 1;
      this.#book.reported(difference);
      this.#report(difference);
    });
  }

  #compare(ref: RunRef, a: Side, b: Side, pair: Pair): RunDifference | undefined {
    const va = a.driver.vcpu as Vcpu, vb = b.driver.vcpu as Vcpu;
    const reportsSame = sameReports(a.log.reports, b.log.reports);
    const pageSame = samePage(va, vb, this.#vmcb12);
    if (reportsSame && pageSame && sameBytes(va, vb)) {
      pair.origins.clear();
      return undefined;
    }
    const rows = differingRows(va, vb, this.#vmcb12);
    if (rows.length === 0 && reportsSame) {
      pair.origins.clear();
      return undefined;
    }
    const { shadow } = pair;
    const ownRows = shadow &&
      new Set(differingRows(va, shadow.driver.vcpu as Vcpu, this.#vmcb12).map(keyOf));
    const endsSame = endOf(va) === endOf(vb);
    const vs = shadow?.driver.vcpu;
    const ownReports = reportsSame && endsSame || shadow === undefined || vs === undefined ||
      !reportsSame && !sameReports(a.log.reports, shadow.log.reports) ||
      !endsSame && endOf(va) !== endOf(vs);
    const places: Place[] = rows.map(({ area, row }) => placeOf(area, row.row));
    const writersA = a.log.lastWriters(va, places);
    const writersB = b.log.lastWriters(vb, places);
    const origins = new Map<string, RunRef>();
    const fields = rows.map((both, i): FieldDifference => {
      const { area, row } = both;
      const key = keyOf(both);
      const carried = ownRows !== undefined && !ownRows.has(key);
      const origin = carried ? pair.origins.get(key) ?? pair.last : undefined;
      origins.set(key, origin ?? ref);
      const wa = writersA[i], wb = writersB[i];
      return {
        area: area.name,
        field: row.row,
        a: row.a,
        b: row.b,
        differing: row.differing,
        stepA: wa?.step,
        stepB: wb?.step,
        when: wa ? momentOf(wa.transition, a.log) : wb ? momentOf(wb.transition, b.log) : undefined,
        carried,
        origin,
        needs: [],
      };
    });
    const reportsOrigin = ownReports ? undefined : pair.last;
    pair.origins = origins;
    const own = fields.some((field) => !field.carried);
    if (own || !(reportsSame && endsSame) && ownReports) pair.last = ref;
    return {
      ...ref,
      policies: [a.driver.policy.name, b.driver.policy.name],
      fields,
      reports: reportsSame ? undefined : [[...a.log.reports], [...b.log.reports]],
      reportsOrigin,
      ends: [endOf(va), endOf(vb)],
      parting: partingOf(a.log, b.log),
    };
  }
}

function forget(pair: Pair): void {
  pair.origins.clear();
  pair.last = undefined;
}

/** The policies on the first one's processor: what hosts do otherwise is no difference of policy. */
function onOneProcessor(policies: readonly Policy[]): Policy[] {
  const processor = policies[0]?.processor;
  return policies.map((policy) => onProcessor(policy, processor));
}
