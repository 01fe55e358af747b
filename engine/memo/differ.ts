/**
 * A comparison of policies that carries out every run once.
 *
 * @module
 */
import {
  type DiffCounts,
  Differ,
  type DiffResult,
  type DiffRunOptions,
  type DiffState,
} from "../diff/differ.ts";
import type { RunDifference, RunRef } from "../diff/run_difference.ts";
import type { TraceEvent } from "../event.ts";
import type { Vcpu } from "../kvm/vcpu.ts";
import type { Policy } from "../policy.ts";
import { Memo, type Memoizable, type Rest } from "./memo.ts";
import { RefBook, type RepeatedReports } from "./ref_book.ts";

/** What a stretch of the trace counts and reports. */
interface Effect extends Omit<DiffCounts, "claimed" | "missed"> {
  readonly reports: RepeatedReports;
}

/** The state of a comparison without its vCPUs, runs referred to by number. */
interface DifferContext extends Pick<DiffState, "phases" | "scenario" | "spec"> {
  readonly origins: readonly (readonly (readonly [string, number])[])[];
  readonly last: readonly (number | undefined)[];
}

/** Who else is told of the runs of a memoized comparison. */
export interface MemoizedRunOptions extends Pick<DiffRunOptions, "look" | "lookLogged"> {
  /**
   * Receives every run that is not carried out, before its differences, with the number of an earlier
   * one that was and did the same. Those that are carried out go to the others.
   */
  readonly repeated?: (run: RunRef, like: number) => void;
}

/**
 * Compares as {@linkcode Differ} does, and finds the same; but a run that begins in the same state
 * as an earlier one, with the same events byte for byte, is not carried out again. Under policies
 * with steps or checks of one's own every run is.
 *
 * @example
 * ```ts
 * import { builtinScenarios, recordScenarios } from "@vmtape/vmtape/traces";
 * import { EARLY_EXIT, MemoizedDiffer, UNIFIED } from "@vmtape/vmtape/engine";
 * const differ = new MemoizedDiffer([EARLY_EXIT, UNIFIED], () => {});
 * const scenarios = builtinScenarios("gif-left-set");
 * for await (const event of recordScenarios(scenarios, EARLY_EXIT, { repeat: 20 })) {
 *   differ.feed(event);
 * }
 * if (differ.finish().different[0] !== 20 || differ.repeated === 0) throw new Error();
 * ```
 */
export class MemoizedDiffer {
  readonly #differ: Differ;
  readonly #report: (difference: RunDifference) => void;
  readonly #repeated: MemoizedRunOptions["repeated"];
  readonly #memo: Memo<Effect>;
  readonly #book = new RefBook();
  #events = 0;
  /** The counts at the beginning of the stretch whose effect is being collected. */
  #before: DiffCounts;

  /**
   * Begins before the trace's first event.
   *
   * @param policies Two or more; each is compared with the first, on the first one's processor.
   * @param report Receives every run that ends up differently.
   * @param options Who else is told of the runs.
   */
  constructor(
    policies: readonly Policy[],
    report: (difference: RunDifference) => void,
    { repeated, ...others }: MemoizedRunOptions = {},
  ) {
    this.#report = report;
    this.#repeated = repeated;
    this.#differ = new Differ(policies, (difference) => {
      this.#book.reported(difference);
      report(difference);
    }, { paths: true, takenOver: true, ...others, ended: (run) => this.#book.ran(run) });
    this.#before = this.#differ.counts();
    this.#memo = new Memo(this.#host(), this.#differ.policies);
  }

  /** The policies, all on the first one's processor. */
  get policies(): readonly Policy[] {
    return this.#differ.policies;
  }

  /** Events so far that were not carried out, since the same had been from the same state. */
  get repeated(): number {
    return this.#memo.repeated;
  }

  /**
   * Takes the next event of the trace.
   *
   * @param event The event; its images need to be valid only during the call.
   * @throws {ReplayError} When an input lacks what is needed to carry it out.
   */
  feed(event: TraceEvent): void {
    this.#memo.feed(event, this.#events++);
  }

  /**
   * Ends the trace.
   *
   * @returns What was found.
   */
  finish(): DiffResult {
    this.#memo.flush();
    this.#differ.events = this.#events;
    return this.#differ.finish();
  }

  #host(): Memoizable<Effect> {
    const differ = this.#differ, book = this.#book;
    return {
      carryOut: (event, index) => {
        differ.events = index;
        differ.feed(event);
      },
      get resting() {
        return differ.resting;
      },
      rest: () => this.#rest(),
      vcpu: (number) => differ.vcpu(number),
      restore: (vcpus, context) => this.#restore(vcpus, context as DifferContext),
      begin: (index) => {
        this.#before = differ.counts();
        book.begin(index, this.#before.runs);
      },
      end: () => this.#effect(),
      apply: (effect, index) => {
        book.repeat(effect.reports, index, differ.runs, this.#report, this.#repeated);
        differ.add(effect);
      },
    };
  }

  #effect(): Effect | undefined {
    const reports = this.#book.end();
    const before = this.#before, now = this.#differ.counts();
    const plain = now.claimed === before.claimed && now.missed === before.missed;
    return reports && plain
      ? {
        runs: now.runs - before.runs,
        skipped: now.skipped - before.skipped,
        different: now.different.map((count, i) => count - (before.different[i] as number)),
        reports,
      }
      : undefined;
  }

  #rest(): Rest | undefined {
    const state = this.#differ.state();
    if (state === undefined) return undefined;
    const { vcpus, phases, scenario, spec, origins, last } = state;
    const numbers = new Map<RunRef, number>();
    const number = (ref: RunRef) => {
      const found = numbers.get(ref) ?? numbers.size;
      numbers.set(ref, found);
      return found;
    };
    const rest: DifferContext = {
      phases,
      scenario,
      spec,
      origins: origins.map((map) => [...map].map(([key, ref]) => [key, number(ref)] as const)),
      last: last.map((ref) => ref && number(ref)),
    };
    this.#book.refs = [...numbers.keys()];
    return { vcpus, key: JSON.stringify(rest), rest };
  }

  #restore(vcpus: readonly Vcpu[], { phases, scenario, spec, origins, last }: DifferContext): void {
    const { refs } = this.#book;
    this.#differ.restore({
      vcpus,
      phases,
      scenario,
      spec,
      origins: origins.map((list) =>
        new Map(list.map(([key, number]) => [key, refs[number] as RunRef]))
      ),
      last: last.map((number) => number === undefined ? undefined : refs[number]),
    });
  }
}
