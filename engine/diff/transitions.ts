/**
 * The transitions of one run under one policy: which steps ran, and, when two
 * policies end up differently, which step wrote a field last.
 *
 * @module
 */
import { MAPPED_AT } from "../svm/machine.ts";
import { VMCB_SIZE } from "../svm/vmcb_fields.ts";
import type { Place } from "../svm/view_source.ts";
import { type Outcome, runList, type Step, type Way } from "../policy.ts";
import { copyWords } from "../paging/shadow_pages.ts";
import type { Observer } from "../kvm/vcpu.ts";
import { Vcpu } from "../kvm/vcpu.ts";

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

interface Snapshot {
  readonly words: Uint32Array;
  readonly page: Uint8Array;
  vmcb12: number;
  fromVmrun: boolean;
  restoreFlags: number;
  smram: Uint8Array | undefined;
}

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
  #vmcb12 = 0;

  /** What a vCPU tells while it runs. */
  readonly observer: Observer = {
    begin: (way, v) => this.#begin(way, v),
    end: (_way, outcome) => {
      const transition = this.#depth.pop();
      if (transition !== undefined) transition.outcome = outcome;
    },
    step: (step) => {
      for (const transition of this.#depth) transition.steps.push(step);
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

  /**
   * Forgets everything; the next run begins.
   *
   * @param vmcb12 Guest physical address of the run's vmcb12.
   */
  reset(vmcb12: number): void {
    this.transitions.length = 0;
    this.reports.length = 0;
    this.#depth = [];
    this.#vmcb12 = vmcb12;
  }

  #begin(way: Way, v: Vcpu): void {
    const transition: Transition = { way, steps: [], outcome: 0 };
    if (this.#depth.length === 0) {
      if (this.#repeatable) this.#keep(v);
      this.transitions.push(transition);
    }
    this.#depth.push(transition);
  }

  /** Keeps the vCPU as it is. */
  #keep(v: Vcpu): void {
    const index = this.transitions.length;
    const s = this.#snapshots[index] ??= {
      words: new Uint32Array(v.words.length),
      page: new Uint8Array(VMCB_SIZE),
      vmcb12: -1,
      fromVmrun: false,
      restoreFlags: 0,
      smram: undefined,
    };
    copyWords(s.words, v.words);
    s.vmcb12 = v.memory.backed(this.#vmcb12, VMCB_SIZE) ? this.#vmcb12 : -1;
    if (s.vmcb12 >= 0) s.page.set(v.memory.page(s.vmcb12));
    s.fromVmrun = v.fromVmrun;
    s.restoreFlags = v.restoreFlags;
    s.smram = v.smram;
  }

  /**
   * Repeats the run's transitions, watching fields.
   *
   * @param live The vCPU after the run; it is not changed.
   * @param places Fields to watch. Those of vmcb12 are watched in the work area.
   * @returns For each field the step that wrote it last, or undefined when no step did.
   */
  lastWriters(live: Vcpu, places: readonly Place[]): (Writer | undefined)[] {
    const writers: (Writer | undefined)[] = places.map(() => undefined);
    const values = new Uint8Array(places.reduce((sum, { size }) => sum + size, 0));
    this.transitions.forEach((transition, index) => {
      const v = this.start(live, index);
      changedPlaces(v.bytes, places, values, () => {});
      let running: Step | undefined;
      const settle = () =>
        changedPlaces(v.bytes, places, values, (i) => {
          if (running === undefined) return;
          const mapping = places[i]!.at >= MAPPED_AT && running.maps === true;
          if (!mapping) writers[i] = { step: running.name, transition };
        });
      v.observer = {
        step: (step) => {
          settle();
          running = step;
        },
        check() {},
        warn() {},
        inner() {},
      };
      runList(v, v.policy.ways[transition.way]);
      settle();
    });
    return writers;
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
    v.observer = undefined;
    v.pendingIo = -1n;
    v.unmodelled = "";
    if (s.vmcb12 >= 0) v.memory.writable(s.vmcb12).set(s.page);
    copyWords(v.words, s.words);
    v.fromVmrun = s.fromVmrun;
    v.restoreFlags = s.restoreFlags;
    v.smram = s.smram;
    return v;
  }
}

/** A broken assertion, or a step that went wrong. */
export function assertion(text: string, way: Way | "", step: Step | undefined): Incident {
  return { kind: "warn", id: "", text, way, ...(step && { step: step.name }) };
}

/** Takes over the bytes of places; calls back for each that is not as it was. */
function changedPlaces(
  bytes: Uint8Array,
  places: readonly Place[],
  values: Uint8Array,
  changed: (i: number) => void,
): void {
  let to = 0;
  for (let i = 0; i < places.length; i++) {
    const { at, size, mask = 0xff } = places[i] as Place;
    let differs = false;
    for (let k = 0; k < size; k++, to++) {
      const byte = (bytes[at + k] as number) & mask;
      if (byte === values[to]) continue;
      values[to] = byte;
      differs = true;
    }
    if (differs) changed(i);
  }
}
