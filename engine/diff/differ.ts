/**
 * Running a trace under several policies side by side, and telling where they
 * end up differently and which step parted them.
 *
 * @module
 */
import type { EventOf, TraceEvent } from "../event.ts";
import { shortTexts } from "../short_texts.ts";
import { onProcessor, type Policy } from "../policy.ts";
import type { Vcpu } from "../kvm/vcpu.ts";
import { RunPaths } from "../paths/paths.ts";
import { Driver, sharesEntry } from "../replay/drive.ts";
import { wholeRegs } from "../replay/load_regs.ts";
import { type LoggedRun, LoggedRunCollector } from "../replay/logged_runs.ts";
import { PolicyPair, type Side } from "./policy_pair.ts";
import { PartialDiffer } from "./partial_differ.ts";
import type { RunDifference, RunRef } from "./run_difference.ts";
import { StateParts } from "./state_parts.ts";
import { TransitionLog } from "./transitions.ts";

/** What one policy did in a run. */
export interface RunSide {
  /** Which of the compared policies this is. */
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
  /** What the model met under one policy or another and does not model, with how many runs it left unknown. */
  readonly unmodelled: Readonly<Record<string, number>>;
  /** Runs whose inputs are not in the trace. */
  readonly skipped: number;
}

/** Who else is told of the runs of a comparison. */
export interface DiffRunOptions {
  /** Receives every run, before its differences. */
  readonly look?: (run: RunView) => void;
  /** Receives every run of which a log shows a part, before its differences. */
  readonly lookLogged?: (unit: LoggedRun, run: RunRef) => void;
  /** Receives every run as it ends: the object that follow-ons of it refer to as their origin. */
  readonly ended?: (run: RunRef) => void;
  /**
   * Whether runs follow the paths of earlier ones that read the same words; each of their steps is
   * carried out when left out.
   */
  readonly paths?: boolean;
  /** Whether runs are taken over that begin as an earlier one did, so that none need follow a path. */
  readonly takenOver?: boolean;
  /** Whether every run of a log is carried out, though one before was like it; not when left out. */
  readonly each?: boolean;
}

/** Counts of a comparison. */
export interface DiffCounts {
  /** As in {@linkcode DiffResult}. */
  readonly runs: number;
  /** As in {@linkcode DiffResult}. */
  readonly skipped: number;
  /** As in {@linkcode DiffResult}. */
  readonly different: readonly number[];
  /** Events of vCPUs of which only transitions were recorded. */
  readonly claimed: number;
  /** Runs that met what is not modelled. */
  readonly missed: number;
}

/** Between two runs, what decides how a comparison goes on. */
export interface DiffState {
  /** Each policy's vCPU. */
  readonly vcpus: readonly Vcpu[];
  /** Each driver's phase. */
  readonly phases: readonly number[];
  /** Name of the scenario under way. */
  readonly scenario: string | undefined;
  /** Its spec. */
  readonly spec: string | undefined;
  /** For each pair of policies, where the fields that differ come from. */
  readonly origins: readonly ReadonlyMap<string, RunRef>[];
  /** For each pair, the last run that made a difference of its own. */
  readonly last: readonly (RunRef | undefined)[];
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
  readonly #pairs: readonly PolicyPair[];
  /** The drivers of all sides, and of what stands in for them while a run begins in two states. */
  readonly #drivers: Driver[] = [];
  readonly #report: (difference: RunDifference) => void;
  readonly #look: ((run: RunView) => void) | undefined;
  readonly #lookLogged: ((unit: LoggedRun, run: RunRef) => void) | undefined;
  readonly #ended: ((run: RunRef) => void) | undefined;
  readonly #different: number[];
  readonly #partial: readonly PartialDiffer[];
  readonly #logged = new LoggedRunCollector((unit) => this.#transition(unit));
  readonly #unsettled: number[];
  /** Numbers of the pairs whose run began in two states, and was not forked yet. */
  #apart: number[] = [];
  #claimed = 0;
  /**
   * Events before the next one. Whoever knows the effect of some events already applies it
   * ({@linkcode Differ.restore}, {@linkcode Differ.add}), and sets this behind them.
   */
  events = 0;
  readonly #unmodelled = new Map<string, number>();
  #gap: string | undefined;
  #runs = 0;
  #missed = 0;
  #skipped = 0;
  #inRun = false;
  #runAt = 0;
  #vmcb12 = 0;
  #scenario: string | undefined;
  #spec: string | undefined;

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
    { look, lookLogged, ended, paths = false, takenOver = false, each = false }: DiffRunOptions =
      {},
  ) {
    policies = onOneProcessor(policies);
    this.#sides = policies.map((policy) => {
      const log = new TransitionLog(look === undefined ? "writers" : "starts");
      const driver = new Driver(policy);
      driver.observer = log.observer;
      if (paths) driver.paths = new RunPaths(policy, takenOver);
      return { driver, log, parts: new StateParts() };
    });
    this.#pairs = policies.slice(1).map(() => new PolicyPair());
    this.#drivers = this.#sides.map(({ driver }) => driver);
    this.#report = report;
    this.#look = look;
    this.#lookLogged = lookLogged;
    this.#ended = ended;
    this.#different = policies.slice(1).map(() => 0);
    this.#unsettled = policies.slice(1).map(() => 0);
    const [first, ...others] = policies;
    this.#partial = first === undefined
      ? []
      : others.map((other) => new PartialDiffer(first, other, each));
  }

  /**
   * Takes the next event of the trace.
   *
   * @param given The event; its images need to be valid only during the call.
   * @throws {ReplayError} When an input lacks what is needed to carry it out.
   */
  feed(given: TraceEvent): void {
    const event = shortTexts(given);
    const index = this.events++;
    if (this.#logged.claims(event)) {
      this.#claimed++;
      this.#endRun();
      this.#logged.feed(event, index);
      return;
    }
    switch (event.kind) {
      case "vmrun":
        if (event.regs === undefined) {
          if (!this.#inRun) this.#skipped++;
          return;
        }
        this.#begin(index, Number((event.vmcb12_gpa ?? 0n) & ~0xfffn));
        this.#vmrun(event, index);
        return;
      case "setstate":
        this.#begin(index, Number((event.vmcb_pa ?? 0n) & ~0xfffn));
        this.#fork(() => false);
        break;
      case "case":
        this.#endRun();
        this.#scenario = event.name;
        this.#spec = event.spec;
        break;
      case "session":
        this.#endRun();
        for (const pair of this.#pairs) pair.forget();
        this.#scenario = this.#spec = this.#gap = undefined;
        break;
      case "unmodelled":
        this.#gap = `${event.what ?? "something"} (in the recording)`;
        return;
      case "regs":
        this.#userspace(event.phase ?? "post");
        return;
      default:
        break;
    }
    const drivers = this.#drivers;
    for (let i = 0; i < drivers.length; i++) (drivers[i] as Driver).feed(event, index);
  }

  /**
   * Ends the trace.
   *
   * @returns What was found.
   */
  finish(): DiffResult {
    this.#endRun();
    this.#logged.finish();
    return {
      policies: this.#sides.map((side) => side.driver.policy.name),
      events: this.events,
      runs: this.#runs,
      different: this.#different,
      unsettled: this.#unsettled,
      unmodelled: Object.fromEntries(this.#unmodelled),
      skipped: this.#skipped,
    };
  }

  /** The policies, all on the first one's processor. */
  get policies(): readonly Policy[] {
    return this.#sides.map(({ driver }) => driver.policy);
  }

  /** Whether a run begins with the next event that may, so that the state is all there is. */
  get resting(): boolean {
    return this.#gap === undefined && this.#logged.idle &&
      this.#sides.every(({ driver }) => driver.resting);
  }

  /** One policy's vCPU, once there is one. */
  vcpu(number: number): Vcpu | undefined {
    return this.#sides[number]?.driver.vcpu;
  }

  /**
   * Ends the run under way.
   *
   * @returns The state from which the comparison goes on; undefined while there is none.
   */
  state(): DiffState | undefined {
    this.#endRun();
    const vcpus: Vcpu[] = [];
    for (const { driver } of this.#sides) {
      if (driver.vcpu === undefined) return undefined;
      vcpus.push(driver.vcpu);
    }
    return {
      vcpus,
      phases: this.#sides.map(({ driver }) => driver.phase),
      scenario: this.#scenario,
      spec: this.#spec,
      origins: this.#pairs.map(({ origins }) => origins),
      last: this.#pairs.map(({ last }) => last),
    };
  }

  /** Goes on from a state of this comparison. */
  restore({ vcpus, phases, scenario, spec, origins, last }: DiffState): void {
    this.#sides.forEach(({ driver }, i) => {
      driver.vcpu = vcpus[i];
      driver.phase = phases[i] as number;
    });
    this.#pairs.forEach((pair, i) => {
      pair.origins = origins[i] as ReadonlyMap<string, RunRef>;
      pair.last = last[i];
    });
    this.#scenario = scenario;
    this.#spec = spec;
  }

  /** Runs so far. */
  get runs(): number {
    return this.#runs;
  }

  /** The counts now. */
  counts(): DiffCounts {
    return {
      runs: this.#runs,
      skipped: this.#skipped,
      different: [...this.#different],
      claimed: this.#claimed,
      missed: this.#missed,
    };
  }

  /** Counts once more what events counted that need not be carried out again. */
  add({ runs, skipped, different }: Omit<DiffCounts, "claimed" | "missed">): void {
    this.#runs += runs;
    this.#skipped += skipped;
    for (let i = 0; i < different.length; i++) this.#different[i]! += different[i]!;
  }

  /** Compares the policies over a transition that was recorded without memory. */
  #transition(unit: LoggedRun): void {
    const ref = { event: unit.event, run: this.#runs++, scenario: undefined, spec: undefined };
    let explained = true;
    this.#lookLogged?.(unit, ref);
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

  #begin(index: number, vmcb12: number): void {
    this.#endRun();
    this.#inRun = true;
    this.#runAt = index;
    this.#vmcb12 = vmcb12;
    this.#runs++;
    for (const { log } of this.#sides) log.reset();
    const [first, ...others] = this.#sides;
    this.#apart.length = 0;
    this.#pairs.forEach((pair, i) => {
      if (pair.begin(first as Side, others[i] as Side, vmcb12)) this.#apart.push(i);
    });
  }

  /** Of the policies that begin in another state than the first, forks it for all but some. */
  #fork(shares: (other: Policy) => boolean): void {
    const [first, ...others] = this.#sides;
    this.#apart = this.#apart.filter((i) => {
      const other = others[i] as Side;
      if (shares(other.driver.policy)) return true;
      this.#drivers.push((this.#pairs[i] as PolicyPair).fork(first as Side, other));
      return false;
    });
  }

  #vmrun(event: EventOf<"vmrun">, index: number): void {
    const [first, ...others] = this.#sides;
    if (first === undefined) return;
    const { driver } = first;
    if (driver.paths !== undefined) {
      this.#followed(event, index);
      return;
    }
    this.#fork((other) => sharesEntry(driver.policy, other));
    const apart = this.#apart;
    const made = apart.length === 0 ? (driver.feed(event, index), []) : driver.feedForked(
      event,
      index,
      apart.map((i) => (this.#pairs[i] as PolicyPair).wants(others[i] as Side)),
    );
    for (const other of this.#drivers.slice(1)) other.feed(event, index);
    made.forEach((copy, k) => {
      this.#drivers.push((this.#pairs[apart[k] as number] as PolicyPair).take(copy));
    });
  }

  /** The same where paths may be followed: the first policy comes last, as its state is needed. */
  #followed(event: EventOf<"vmrun">, index: number): void {
    const [first, ...others] = this.#sides as [Side, ...Side[]];
    const whole = first.driver.resting && event.regs !== undefined &&
      wholeRegs(event.regs, index).known === undefined;
    if (whole) {
      for (const i of this.#apart) {
        (this.#pairs[i] as PolicyPair).foresee(first, others[i] as Side);
      }
    }
    for (const { driver } of others) driver.feed(event, index);
    for (const i of this.#apart) {
      const pair = this.#pairs[i] as PolicyPair, other = others[i] as Side;
      if (whole && pair.foreseen(other)) continue;
      const copy = pair.fork(first, other);
      copy.feed(event, index);
      this.#drivers.push(copy);
    }
    first.driver.feed(event, index);
  }

  /** Userspace looks: at the points where it has a turn, the vCPU must have run. */
  #userspace(phase: string): void {
    if (phase === "pre" || !this.#inRun) return;
    for (const driver of this.#drivers) {
      if (!driver.ran) driver.run();
      driver.ran = false;
    }
  }

  #endRun(): void {
    if (!this.#inRun) return;
    this.#inRun = false;
    const [first, ...others] = this.#sides;
    if (first === undefined) return;
    const ref: RunRef = {
      event: this.#runAt,
      run: this.#runs - 1,
      scenario: this.#scenario,
      spec: this.#spec,
    };
    this.#ended?.(ref);
    this.#look?.({
      ...ref,
      vmcb12: this.#vmcb12,
      sides: this.#sides.map(({ driver, log }) => (
        { policy: driver.policy, vcpu: driver.vcpu as Vcpu, log }
      )),
    });
    this.#compare(ref, first, others);
    for (const { log } of this.#sides) log.rest();
    this.#drivers.length = this.#sides.length;
  }

  /** Compares what a run came to under each policy. */
  #compare(ref: RunRef, first: Side, others: readonly Side[]): void {
    const what = this.#whatMissed();
    if (what !== undefined) {
      // What follows something that is not modelled is unknown: there is nothing to compare.
      this.#missed++;
      this.#unmodelled.set(what, (this.#unmodelled.get(what) ?? 0) + 1);
      return;
    }
    first.parts.forget();
    others.forEach((other, i) => {
      const difference = (this.#pairs[i] as PolicyPair).compare(ref, first, other, this.#vmcb12);
      if (difference === undefined) return;
      this.#different[i] = (this.#different[i] ?? 0) + 1;
      this.#report(difference);
    });
  }

  /** What the run that is over met and is not modelled, under any policy. */
  #whatMissed(): string | undefined {
    let what: string | undefined;
    for (const { vcpu } of this.#drivers) {
      if (vcpu === undefined || vcpu.unmodelled === "") continue;
      what ??= vcpu.unmodelled;
      vcpu.unmodelled = "";
    }
    what ??= this.#gap;
    this.#gap = undefined;
    return what;
  }
}

/**
 * The policies on the first one's processor: what hosts do otherwise is no difference of policy.
 * Where nothing but the processor differs, that is what is asked for.
 */
function onOneProcessor(policies: readonly Policy[]): Policy[] {
  const [first] = policies;
  if (policies.every(({ kernel, ways }) => kernel === first?.kernel && ways === first.ways)) {
    return [...policies];
  }
  const processor = first?.processor;
  return policies.map((policy) => onProcessor(policy, processor));
}
