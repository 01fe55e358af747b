/**
 * The transitions of one run under one policy: which steps ran, and, when two
 * policies end up differently, which step wrote a field last.
 *
 * @module
 */
import { copyWords } from "../svm/copy_words.ts";
import type { Place } from "../svm/view_source.ts";
import { type Outcome, runList, type Step, type Way } from "../policy.ts";
import type { Observer } from "../kvm/vcpu.ts";
import { copyLoose, type LooseState, looseState, Vcpu, type Writable } from "../kvm/vcpu.ts";
import type { GuestMemory } from "../svm/memory.ts";
import { PageJournal } from "../svm/page_journal.ts";
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
  /** Transitions in order. */
  readonly transitions: Transition[] = [];
  /** Failed checks and broken assertions in order. */
  readonly reports: Incident[] = [];
  readonly #snapshots: Snapshot[] = [];
  readonly #repeatable: boolean;
  #depth: Transition[] = [];
  #scratch: Vcpu | undefined;
  /** The memory of which the last snapshot keeps what pages were. */
  #memory: GuestMemory | undefined;
  /** Places that were asked for in earlier runs, of which most are asked for again. */
  readonly #watch = new Watch<Transition>(MOST_WORDS);
  /** Places to be watched from the next run on. */
  #wanted: readonly Place[] = [];
  /** The step that runs. */
  #running: Step | undefined;

  /** What a vCPU tells while it runs. */
  readonly observer: Observer = {
    begin: (way, v) => this.#begin(way, v),
    end: (_way, outcome, v) => {
      const transition = this.#depth.pop();
      if (transition === undefined) return;
      transition.outcome = outcome;
      if (this.#depth.length > 0) return;
      this.#watch.look(v.words, this.#running, transition);
      this.#running = undefined;
    },
    step: (step, v) => {
      const depth = this.#depth;
      this.#watch.look(v.words, this.#running, depth[0]);
      this.#running = step;
      for (let i = 0; i < depth.length; i++) (depth[i] as Transition).steps.push(step);
    },
    check: (id, text) => this.reports.push({ kind: "check", id, text, way: this.#way }),
    warn: (text, step) => this.reports.push(assertion(text, this.#way, step)),
    inner() {},
  };

  /**
   * Begins before the first run.
   *
   * @param repeatable Whether transitions can be repeated, for which the vCPU is kept as it was at
   * the beginning of each.
   */
  constructor(repeatable = true) {
    this.#repeatable = repeatable;
  }

  get #way(): Way | "" {
    return this.#depth.at(-1)?.way ?? "";
  }

  /** Forgets everything; the next run begins. */
  reset(): void {
    this.#memory?.keepBefore();
    this.#memory = undefined;
    this.transitions.length = 0;
    this.reports.length = 0;
    this.#depth = [];
    this.#running = undefined;
    this.#watch.reset();
    this.#want(this.#wanted);
    this.#wanted = [];
  }

  /** Watches places. When there are too many, those of before are given up. */
  #want(places: readonly Place[]): void {
    const watch = this.#watch;
    if (places.every((place) => place.size === 0 || watch.add(place))) return;
    watch.clear();
    for (const place of places) if (place.size > 0) watch.add(place);
  }

  #begin(way: Way, v: Vcpu): void {
    const transition: Transition = { way, steps: [], outcome: 0 };
    if (this.#depth.length === 0) {
      if (this.#repeatable) this.#keep(v);
      this.transitions.push(transition);
      this.#running = undefined;
      this.#watch.look(v.words, undefined, undefined);
    }
    this.#depth.push(transition);
  }

  /** Keeps the vCPU as it is. */
  #keep(v: Vcpu): void {
    const index = this.transitions.length;
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
    const watch = this.#watch;
    if (places.every((place) => place.size === 0 || watch.of(place) !== undefined)) {
      return writersOf(watch, places);
    }
    const own = new Watch<Transition>(places.reduce((sum, place) => sum + wordsOf(place), 0));
    for (const place of places) if (place.size > 0) own.add(place);
    this.transitions.forEach((transition, index) => {
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
    });
    this.#wanted = [...this.#wanted, ...places];
    return writersOf(own, places);
  }

  /**
   * The vCPU as it was when one of the run's transitions began.
   *
   * @param live The vCPU after the run; it is not changed.
   * @param index Number of the transition in {@linkcode TransitionLog.transitions}.
   * @returns A vCPU to repeat the transition on, until the live one goes on or the next is asked for.
   */
  start(live: Vcpu, index: number): Vcpu {
    const s = this.#snapshots[index] as Snapshot;
    const v = this.#scratch?.policy === live.policy && this.#scratch.caps === live.caps
      ? this.#scratch
      : this.#scratch = new Vcpu(live.caps, live.policy);
    // The live memory rests meanwhile, so its pages need not be parted from it.
    v.memory = live.memory.overlay(v.memory);
    for (let i = this.transitions.length - 1; i >= index; i--) {
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
