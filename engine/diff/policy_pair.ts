/**
 * A policy beside the first one of a comparison: where its runs end up differently, by which steps,
 * and which earlier run it comes from.
 *
 * @module
 */
import type { Vcpu } from "../kvm/vcpu.ts";
import type { Driver } from "../replay/drive.ts";
import type { Place } from "../svm/view_source.ts";
import { placeOf } from "./areas.ts";
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
import type { FieldDifference, RunDifference, RunRef } from "./run_difference.ts";
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

/** What is remembered of one policy beside the first. */
export class PolicyPair {
  /** Where the fields that differ come from. */
  origins: Map<string, RunRef> = new Map();
  /** The last run that made a difference of its own. */
  last: RunRef | undefined;
  /** What the policy does from the first one's state; only while the states at the start differ. */
  #shadow: Driver | undefined;
  /** One that was needed before. */
  #spare: Driver | undefined;
  readonly #log = new TransitionLog(false);
  readonly #parts = new StateParts();

  /** Another machine begins. */
  forget(): void {
    this.origins.clear();
    this.last = undefined;
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
      this.origins.clear();
      return undefined;
    }
    b.parts.forget();
    const parts = a.parts.of(va, vmcb12);
    const rows = differingRows(parts, b.parts.of(vb, vmcb12));
    if (rows.length === 0 && reportsSame) {
      this.origins.clear();
      return undefined;
    }
    const vs = shadow?.vcpu;
    this.#parts.forget();
    const ownRows = vs &&
      new Set(differingRows(parts, this.#parts.of(vs, vmcb12)).map(keyOf));
    const endsSame = endOf(va) === endOf(vb);
    const ownReports = reportsSame && endsSame || vs === undefined ||
      !reportsSame && !sameReports(a.log.reports, this.#log.reports) ||
      !endsSame && endOf(va) !== endOf(vs);
    const places: Place[] = rows.map(({ area, row }) => placeOf(area, row.row));
    const writersA = a.log.lastWriters(va, places);
    const writersB = b.log.lastWriters(vb, places);
    const origins = new Map<string, RunRef>();
    const fields = rows.map((both, i): FieldDifference => {
      const { area, row } = both;
      const key = keyOf(both);
      const carried = ownRows !== undefined && !ownRows.has(key);
      const origin = carried ? this.origins.get(key) ?? this.last : undefined;
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
    const reportsOrigin = ownReports ? undefined : this.last;
    this.origins = origins;
    const own = fields.some((field) => !field.carried);
    if (own || !(reportsSame && endsSame) && ownReports) this.last = ref;
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
