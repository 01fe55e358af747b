/**
 * The transitions of one run under one policy: which steps ran, and, when two
 * policies end up differently, which step wrote a field last.
 *
 * @module
 */
import { copyWords } from "../svm/copy_words.ts";
import type { Place } from "../svm/view_source.ts";
import { type Outcome, runList, type Step, type Way } from "../policy.ts";
import { copyLoose, type LooseState, looseState, type Writable } from "../kvm/loose_state.ts";
import { type Observer, type Repeated, Vcpu } from "../kvm/vcpu.ts";
import type { GuestMemory } from "../svm/memory.ts";
import { PageJournal } from "../svm/page_journal.ts";
import { FollowedPath, Start } from "./followed_path.ts";
import { Watch, wordsOf } from "./watch.ts";

/** A failed check or a broken assertion. */
export interface Incident {
  /** Which. */
  readonly kind: "check" | "warn";
  /** Id of the check; empty for an assertion. */
  readonly id: string;
  /** The kernel's text. */
  readonly text: string;
  /** The way it was met in; empty between transitions. */
  readonly way: Way | "";
  /** Name of the step that went wrong itself, if that is what the assertion is about. */
  readonly step?: string;
}

/** One transition: the way taken and its steps. */
export interface Transition {
  /** Which way into L2 or out of it. */
  readonly way: Way;
  /** Steps in the order they ran, those of handlers and contained transitions included. */
  readonly steps: Step[];
  /** How it ended. */
  outcome: Outcome;
}

/** A vCPU as it was when a transition began. */
interface Snapshot {
  readonly words: Uint32Array;
  readonly loose: Writable<LooseState>;
  /** What pages were that were written from then on, until the next snapshot. */
  readonly journal: PageJournal;
  resident: number;
}

/** 32-bit words that are watched at most: more take longer than repeating a run now and then. */
const MOST_WORDS = 512;

/**
 * What is kept of a run: the vCPU as each transition began, to repeat it; what tells who wrote a field
 * last, for which it may follow paths; or what was reported alone.
 */
export type Keeps = "starts" | "writers" | "reports";

/** The step that wrote a field last, and the transition it was part of. */
export interface Writer {
  /** Name of the step. */
  readonly step: string;
  /** In which transition it wrote. */
  readonly transition: Transition;
}

/**
 * Collects the transitions of one run.
 *
 * @example
 * ```ts
 * import { builtinScenarios, recordScenarios } from "@vmtape/vmtape/traces";
 * import { Driver, TransitionLog, UPSTREAM } from "@vmtape/vmtape/engine";
 * const log = new TransitionLog();
 * const driver = new Driver(UPSTREAM);
 * driver.observer = log.observer;
 * let index = 0;
 * for await (const event of recordScenarios(builtinScenarios("gif-left-set"), UPSTREAM)) {
 *   driver.feed(event, index++);
 * }
 * const [vmrun] = log.transitions;
 * if (vmrun?.way !== "vmrun" || vmrun.steps.length === 0) throw new Error();
 * if (log.reports[0]?.kind !== "check") throw new Error();
 * ```
 */
export class TransitionLog {
  /** Failed checks and broken assertions in order; valid until the next run. */
  reports: readonly Incident[] = [];
  /** Transitions in order; valid until the next run. */
  transitions: readonly Transition[] = [];
  /** The path whose log it is, of a run that did nothing but follow it. */
  path: object | undefined;
  readonly #live: Listener;
  /** The vCPU as it was when the transitions began that were carried out. */
  readonly #snapshots: Snapshot[] = [];
  /** Numbers of those transitions. */
  readonly #carriedOut: number[] = [];
  readonly #keeps: Keeps;
  #scratch: Vcpu | undefined;
  /** The memory of which the last snapshot keeps what pages were. */
  #memory: GuestMemory | undefined;
  /** What there was when paths were followed, and the paths. */
  readonly #starts: Start[] = [];
  readonly #followed: FollowedPath<Transition>[] = [];
  /** Places that were asked for in earlier runs, of which most are asked for again. */
  readonly #watch = new Watch<Transition>(MOST_WORDS);
  /** Places to be watched from the next run on. */
  #wanted: readonly Place[] = [];

  /** What a vCPU tells while it runs. */
  readonly observer: Observer;

  /**
   * Begins before the first run.
   *
   * @param keeps What is kept of a run.
   */
  constructor(keeps: Keeps = "starts") {
    this.#keeps = keeps;
    this.#live = new Listener(
      (step, transition, v) => this.#watch.look(v.words, step, transition),
      (v) => this.#carryOut(v),
      () => this.#own(),
    );
    const { observer } = this.#live;
    this.observer = keeps === "starts" ? observer : {
      ...observer,
      follows: (repeated, v) => this.#follow(v, repeated),
    };
    this.reset();
  }

  /**
   * Whether it made no difference what a word of the state was when the run began.
   *
   * @param word Its number.
   * @returns False, too, where the run did anything but follow a path.
   */
  overwrites(word: number): boolean {
    const [path] = this.#followed;
    return path !== undefined && path === this.path && this.#followed.length === 1 &&
      path.overwrites(word);
  }

  /** The run is over: what becomes of the vCPU until the next is none of it. */
  rest(): void {
    this.#memory?.keepBefore();
    this.#memory = undefined;
  }

  /** Forgets everything; the next run begins. */
  reset(): void {
    this.rest();
    this.#live.reset();
    this.transitions = this.#live.transitions;
    this.reports = this.#live.reports;
    this.path = undefined;
    if (this.#followed.length > 0) this.#followed.length = 0;
    if (this.#carriedOut.length > 0) this.#forgetCarriedOut();
  }

  #forgetCarriedOut(): void {
    this.#carriedOut.length = 0;
    this.#watch.reset();
    if (this.#wanted.length > 0) this.#want(this.#wanted);
    this.#wanted = [];
  }

  /** Watches places. When there are too many, those of before are given up. */
  #want(places: readonly Place[]): void {
    const watch = this.#watch;
    if (places.every((place) => place.size === 0 || watch.add(place))) return;
    watch.clear();
    for (const place of places) if (place.size > 0) watch.add(place);
  }

  /** A path is about to be followed. */
  #follow(v: Vcpu, repeated: Repeated): void {
    const told = toldOf(repeated, v);
    if (this.#keeps === "writers") {
      const start = this.#starts[this.#followed.length] ??= new Start();
      start.keep(v, told.path);
    }
    this.#followed.push(told.path);
    if (this.transitions.length === 0 && this.reports.length === 0) {
      this.path = told.path;
      this.transitions = told.transitions;
      this.reports = told.reports;
    } else {
      this.#own();
      this.#live.transitions.push(...told.transitions);
      this.#live.reports.push(...told.reports);
    }
  }

  /** More is about to come than one path tells. */
  #own(): void {
    if (this.path === undefined) return;
    this.path = undefined;
    const { transitions, reports } = this.#live;
    transitions.unshift(...this.transitions);
    reports.unshift(...this.reports);
    this.transitions = transitions;
    this.reports = reports;
  }

  /** A transition is about to be carried out: the vCPU is kept as it is. */
  #carryOut(v: Vcpu): void {
    this.#own();
    if (this.#keeps === "reports") return;
    const index = this.#carriedOut.push(this.transitions.length) - 1;
    let s = this.#snapshots[index];
    // A machine of another session may have more memory, and so more words.
    if (s?.words.length !== v.words.length) {
      s = this.#snapshots[index] = {
        words: new Uint32Array(v.words.length),
        loose: looseState(),
        journal: new PageJournal(),
        resident: 0,
      };
    }
    copyWords(s.words, v.words);
    copyLoose(s.loose, v);
    s.resident = v.memory.resident;
    this.#memory = v.memory;
    v.memory.keepBefore(s.journal);
  }

  /**
   * The steps that wrote fields last. Of fields that an earlier run was asked for it is known; for
   * others the run's transitions are repeated.
   *
   * @param live The vCPU after the run; it is not changed.
   * @param places The fields. Those of vmcb12 are watched in the work area.
   * @returns For each field the step that wrote it last, or undefined when no step did.
   */
  lastWriters(live: Vcpu, places: readonly Place[]): (Writer | undefined)[] {
    const writers = this.#carriedOut.length > 0 ? this.#writersCarriedOut(live, places) : [];
    if (this.#followed.length === 0) return writers;
    return places.map((place, i) => {
      let last = writers[i];
      this.#followed.forEach((path, k) => {
        const owner = path.lastWriter(place, this.#starts[k] as Start);
        if (owner?.step === undefined || owner.transition === undefined) return;
        const writer = { step: owner.step.name, transition: owner.transition };
        if (last === undefined || this.#indexOf(last) <= this.#indexOf(writer)) last = writer;
      });
      return last;
    });
  }

  #indexOf({ transition }: Writer): number {
    return this.transitions.indexOf(transition);
  }

  /** The same of the transitions that were carried out. */
  #writersCarriedOut(live: Vcpu, places: readonly Place[]): (Writer | undefined)[] {
    const watch = this.#watch;
    if (places.every((place) => place.size === 0 || watch.of(place) !== undefined)) {
      return writersOf(watch, places);
    }
    const own = new Watch<Transition>(places.reduce((sum, place) => sum + wordsOf(place), 0));
    for (const place of places) if (place.size > 0) own.add(place);
    for (const index of this.#carriedOut) {
      const transition = this.transitions[index] as Transition;
      const v = this.start(live, index);
      own.look(v.words, undefined, undefined);
      let running: Step | undefined;
      v.observer = {
        step: (step) => {
          own.look(v.words, running, transition);
          running = step;
        },
        check() {},
        warn() {},
        inner() {},
      };
      runList(v, v.policy.ways[transition.way]);
      own.look(v.words, running, transition);
    }
    this.#wanted = [...this.#wanted, ...places];
    return writersOf(own, places);
  }

  /**
   * The vCPU as it was when one of the run's transitions began that was carried out: any, unless
   * paths were followed.
   *
   * @param live The vCPU after the run; it is not changed.
   * @param index Number of the transition in {@linkcode TransitionLog.transitions}.
   * @returns A vCPU to repeat the transition on, until the live one goes on or the next is asked for.
   */
  start(live: Vcpu, index: number): Vcpu {
    const first = this.#carriedOut.indexOf(index), s = this.#snapshots[first] as Snapshot;
    const v = this.#scratch?.policy === live.policy && this.#scratch.caps === live.caps
      ? this.#scratch
      : this.#scratch = new Vcpu(live.caps, live.policy);
    // The live memory rests meanwhile, so its pages need not be parted from it.
    v.memory = live.memory.overlay(v.memory);
    for (let i = this.#carriedOut.length - 1; i >= first; i--) {
      v.memory.undo((this.#snapshots[i] as Snapshot).journal);
    }
    v.memory.resident = s.resident;
    v.observer = undefined;
    v.adopt(s.loose);
    v.pendingIo = -1n;
    v.unmodelled = "";
    copyWords(v.words, s.words);
    return v;
  }
}

/** What a path tells, the same each time it is followed. */
interface Told {
  readonly path: FollowedPath<Transition>;
  readonly transitions: readonly Transition[];
  readonly reports: readonly Incident[];
}

const TOLD = new WeakMap<Repeated, Told>();

function toldOf(repeated: Repeated, v: Vcpu): Told {
  const known = TOLD.get(repeated);
  if (known !== undefined) return known;
  let listener: Listener | undefined;
  const path = new FollowedPath<Transition>(repeated, v, (look) => {
    listener = new Listener(look);
    return listener.observer;
  });
  const { transitions = [], reports = [] } = listener ?? {};
  const told = { path, transitions, reports };
  TOLD.set(repeated, told);
  return told;
}

/** Makes transitions and incidents of what a vCPU tells. */
class Listener {
  readonly transitions: Transition[] = [];
  readonly reports: Incident[] = [];
  readonly observer: Observer;
  readonly #depth: Transition[] = [];
  /** The step that runs. */
  #running: Step | undefined;

  /**
   * Begins before the first transition.
   *
   * @param look Called when it is to be looked what a step of a transition has changed; without one,
   * nobody.
   * @param begins Called when a transition that is in no other is about to begin.
   * @param reports Called when there is an incident.
   */
  constructor(
    look: (step: Step | undefined, transition: Transition | undefined, v: Vcpu) => void,
    begins?: (v: Vcpu) => void,
    reports?: () => void,
  ) {
    const { transitions } = this;
    const report = (incident: Incident) => {
      reports?.();
      this.reports.push(incident);
    };
    this.observer = {
      begin: (way, v) => {
        const transition: Transition = { way, steps: [], outcome: 0 };
        if (this.#depth.length === 0) {
          begins?.(v);
          transitions.push(transition);
          this.#running = undefined;
          look(undefined, undefined, v);
        }
        this.#depth.push(transition);
      },
      end: (_way, outcome, v) => {
        const transition = this.#depth.pop();
        if (transition === undefined) return;
        transition.outcome = outcome;
        if (this.#depth.length > 0) return;
        look(this.#running, transition, v);
        this.#running = undefined;
      },
      step: (step, v) => {
        const depth = this.#depth;
        look(this.#running, depth[0], v);
        this.#running = step;
        for (let i = 0; i < depth.length; i++) (depth[i] as Transition).steps.push(step);
      },
      check: (id, text) => report({ kind: "check", id, text, way: this.#way }),
      warn: (text, step) => report(assertion(text, this.#way, step)),
      inner() {},
    };
  }

  get #way(): Way | "" {
    return this.#depth.at(-1)?.way ?? "";
  }

  /** Forgets everything. */
  reset(): void {
    if (this.transitions.length > 0) this.transitions.length = 0;
    if (this.reports.length > 0) this.reports.length = 0;
    if (this.#depth.length > 0) this.#depth.length = 0;
    this.#running = undefined;
  }
}

/** A broken assertion, or a step that went wrong. */
export function assertion(text: string, way: Way | "", step: Step | undefined): Incident {
  return { kind: "warn", id: "", text, way, ...(step && { step: step.name }) };
}

function writersOf(watch: Watch<Transition>, places: readonly Place[]): (Writer | undefined)[] {
  return places.map((place) => {
    const { step, transition } = watch.of(place) ?? {};
    return step && transition && { step: step.name, transition };
  });
}
