/**
 * A policy beside the first one of a comparison: where its runs end up differently, by which steps,
 * and which earlier run it comes from.
 *
 * @module
 */
import type { Vcpu } from "../kvm/vcpu.ts";
import type { Driver } from "../replay/drive.ts";
import { BegunAlike } from "./begun_alike.ts";
import {
  endOf,
  momentOf,
  partingOf,
  type Row,
  sameBytes,
  samePage,
  sameReports,
  sameState,
} from "./compare.ts";
import type { Reasons } from "./explained_runs.ts";
import { KnownRows, sameField } from "./known_rows.ts";
import type { Parting, RunDifference, RunRef } from "./run_difference.ts";
import { StateParts } from "./state_parts.ts";
import { TransitionLog } from "./transitions.ts";

/** One policy as it carries out a trace. */
export interface Side {
  /** What carries out the inputs. */
  readonly driver: Driver;
  /** What happened in the run under way. */
  readonly log: TransitionLog;
  /** The state after the run. */
  readonly parts: StateParts;
}

/** Fields that differ, and for each the run that it comes from. */
interface Origins {
  readonly names: readonly string[];
  readonly refs: readonly RunRef[];
}

const NO_ORIGINS: Origins = { names: [], refs: [] };

/** What is remembered of one policy beside the first. */
export class PolicyPair {
  /** The last run that made a difference of its own. */
  last: RunRef | undefined;
  /** What the policy does from the first one's state; only while the states at the start differ. */
  #shadow: Driver | undefined;
  /** One that was needed before. */
  #spare: Driver | undefined;
  readonly #log = new TransitionLog("reports");
  readonly #parts = new StateParts();
  readonly #known = new KnownRows();
  readonly #begun = new BegunAlike();
  /** Words in which the states differ at the start, if nothing else does. */
  #words: readonly number[] | undefined;
  readonly #partings = new WeakMap<object, WeakMap<object, Parting>>();
  #origins = NO_ORIGINS;
  /** Why the fields differ, while it is found out. */
  readonly #reasons: Reasons = { stepsA: [], stepsB: [], whens: [], origins: [], carried: [] };

  /** Another machine begins. */
  forget(): void {
    this.#origins = NO_ORIGINS;
    this.last = undefined;
  }

  /** Where the fields that differ come from, by their names. */
  get origins(): ReadonlyMap<string, RunRef> {
    const { names, refs } = this.#origins;
    return new Map(names.map((name, i) => [name, refs[i] as RunRef]));
  }

  /** Goes on from others. */
  set origins(origins: ReadonlyMap<string, RunRef>) {
    this.#origins = { names: [...origins.keys()], refs: [...origins.values()] };
  }

  /**
   * A run begins.
   *
   * @param first The first policy.
   * @param other This one.
   * @param vmcb12 Guest physical address of the run's vmcb12.
   * @returns Whether the run begins in two states, so that {@linkcode PolicyPair.fork} or
   * {@linkcode PolicyPair.wants} and {@linkcode PolicyPair.take} have to be called.
   */
  begin(first: Side, other: Side, vmcb12: number): boolean {
    this.#shadow = undefined;
    const va = first.driver.vcpu, vb = other.driver.vcpu;
    if (va === undefined || vb === undefined || sameState(va, vb, vmcb12)) return false;
    this.#log.reset();
    return true;
  }

  /**
   * A run that began in two states is about to be carried out, and may follow paths.
   *
   * @param first The first policy.
   * @param other This one.
   */
  foresee(first: Side, other: Side): void {
    const va = first.driver.vcpu as Vcpu, vb = other.driver.vcpu as Vcpu;
    const alike = first.driver.phase === other.driver.phase;
    this.#words = alike ? this.#begun.words(va, vb) : undefined;
  }

  /**
   * Whether this policy would have done the same from the first one's state, to the bit.
   *
   * @param other This policy, after the run's first event.
   */
  foreseen({ log }: Side): boolean {
    const words = this.#words;
    this.#words = undefined;
    return words !== undefined && words.every((word) => log.overwrites(word));
  }

  /**
   * What the policy does from the first one's state.
   *
   * @param first The first policy, before the run's first event.
   * @param other This one.
   * @returns A driver that is to be fed, too.
   */
  fork(first: Side, other: Side): Driver {
    const driver = first.driver.fork(other.driver.policy, this.#spare);
    driver.observer = this.#log.observer;
    driver.paths = other.driver.paths;
    return this.take(driver);
  }

  /** What {@linkcode Driver.feedForked} has to know for the same. */
  wants({ driver: { policy } }: Side): Parameters<Driver["feedForked"]>[2][number] {
    return { policy, observer: this.#log.observer, spare: this.#spare };
  }

  /** Takes the driver that it made. */
  take(driver: Driver): Driver {
    return this.#shadow = this.#spare = driver;
  }

  /**
   * Compares what a run came to.
   *
   * @param ref The run.
   * @param a The first policy.
   * @param b This one.
   * @param vmcb12 Guest physical address of the run's vmcb12.
   * @returns What differs; undefined when nothing does.
   */
  compare(ref: RunRef, a: Side, b: Side, vmcb12: number): RunDifference | undefined {
    const va = a.driver.vcpu as Vcpu, vb = b.driver.vcpu as Vcpu;
    const shadow = this.#shadow;
    this.#shadow = undefined;
    const reportsSame = sameReports(a.log.reports, b.log.reports);
    const pageSame = samePage(va, vb, vmcb12);
    if (reportsSame && pageSame && sameBytes(va, vb)) {
      this.#origins = NO_ORIGINS;
      return undefined;
    }
    b.parts.forget();
    const vs = shadow?.vcpu;
    // Then nothing that differs comes from before.
    const alike = vs === undefined || sameBytes(vb, vs) && samePage(vb, vs, vmcb12);
    a.parts.look(va, a.driver.paths?.look);
    b.parts.look(vb, b.driver.paths?.look);
    const rows = this.#known.between(va, a.parts, vb, b.parts, vmcb12);
    if (rows.list.length === 0 && reportsSame) {
      this.#origins = NO_ORIGINS;
      return undefined;
    }
    if (!alike) {
      this.#parts.forget();
      this.#parts.look(vs, b.driver.paths?.look, rows.seen);
    }
    const ends = [endOf(va), endOf(vb)] as const;
    const endsSame = ends[0] === ends[1];
    const ownReports = reportsSame && endsSame || vs === undefined ||
      !reportsSame && !sameReports(a.log.reports, this.#log.reports) ||
      !endsSame && ends[0] !== endOf(vs);
    const writersA = a.log.lastWriters(va, rows.places);
    const writersB = b.log.lastWriters(vb, rows.places);
    const { stepsA, stepsB, whens, origins, carried } = this.#reasons;
    const { names, refs } = this.#origins;
    const from: RunRef[] = [];
    let own = false;
    for (let i = 0; i < rows.list.length; i++) {
      const wa = writersA[i], wb = writersB[i];
      stepsA[i] = wa?.step;
      stepsB[i] = wb?.step;
      whens[i] = wa ? momentOf(wa.transition, a.log) : wb && momentOf(wb.transition, b.log);
      const follows = !alike &&
        sameField(rows.list[i] as Row, va, a.parts, vs, this.#parts, vmcb12);
      carried[i] = follows;
      const at = names === rows.names ? i : names.indexOf(rows.names[i] as string);
      origins[i] = follows ? refs[at] ?? this.last : undefined;
      from.push(origins[i] ?? ref);
      own ||= !follows;
    }
    const reportsOrigin = ownReports ? undefined : this.last;
    this.#origins = { names: rows.names, refs: from };
    if (own || !(reportsSame && endsSame) && ownReports) this.last = ref;
    const { policies, fields, reports, ends: told, parting } = rows.explained.of(
      rows.list,
      this.#reasons,
      {
        policies: [a.driver.policy.name, b.driver.policy.name],
        reports: reportsSame ? undefined : [[...a.log.reports], [...b.log.reports]],
        ends,
        parting: this.#partingOf(a.log, b.log),
      },
    );
    return { ...ref, policies, fields, reports, reportsOrigin, ends: told, parting };
  }

  /** Where the steps part; of two paths that is the same each time. */
  #partingOf(a: TransitionLog, b: TransitionLog): Parting {
    if (a.path === undefined || b.path === undefined) return partingOf(a, b);
    let others = this.#partings.get(a.path);
    if (others === undefined) this.#partings.set(a.path, others = new WeakMap());
    let parting = others.get(b.path);
    if (parting === undefined) others.set(b.path, parting = partingOf(a, b));
    return parting;
  }
}
