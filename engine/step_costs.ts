/**
 * What each step of a transition costs.
 *
 * @module
 */
import type { Observer } from "./kvm/vcpu.ts";

/** What one step costs under one policy. */
export interface StepCost {
  /** Name of the policy it was measured under. */
  readonly policy: string;
  /** Name of the step. */
  readonly step: string;
  /** How often it ran. */
  readonly count: number;
  /** Median in nanoseconds, exact to a sixteenth. */
  readonly p50: number;
  /** Mean in nanoseconds. */
  readonly mean: number;
  /** Part of all steps' time under the policy, from 0 to 1. */
  readonly share: number;
}

/** Buckets of a binary order of magnitude. */
const FINE = 16;
/** Buckets: up to 2^40 ns, some 18 minutes. */
const BUCKETS = 40 * FINE;

class Samples {
  readonly buckets = new Uint32Array(BUCKETS);
  count = 0;
  total = 0;

  add(ns: number): void {
    this.count++;
    this.total += ns;
    const at = ns < 1 ? 0 : Math.min(BUCKETS - 1, Math.floor(Math.log2(ns) * FINE));
    this.buckets[at]!++;
  }

  median(): number {
    let left = this.count / 2;
    for (let i = 0; i < BUCKETS; i++) {
      left -= this.buckets[i]!;
      if (left <= 0) return i === 0 ? 0 : Math.round(2 ** ((i + 0.5) / FINE));
    }
    return 0;
  }
}

/**
 * Collects the costs of steps. Reading the clock at every step slows all of
 * them; its cost is taken off, and steps are to be compared with each other only.
 *
 * @example
 * ```ts
 * import { Driver, StepCosts, UPSTREAM } from "@vmtape/vmtape/engine";
 * import { builtinScenarios, recordScenarios } from "@vmtape/vmtape/traces";
 * const costs = new StepCosts(0);
 * const driver = new Driver(UPSTREAM);
 * driver.observer = costs.observer("upstream");
 * let index = 0;
 * for await (const event of recordScenarios(builtinScenarios("enter"), UPSTREAM)) {
 *   driver.feed(event, index++);
 * }
 * if (!costs.rows().some(({ step }) => step === "cache whole vmcb12")) throw new Error();
 * ```
 */
export class StepCosts {
  readonly #timerCost: number;
  readonly #policies = new Map<string, Map<string, Samples>>();

  /**
   * Begins with nothing collected.
   *
   * @param timerCost Cost of reading the clock twice, in nanoseconds.
   */
  constructor(timerCost: number) {
    this.#timerCost = timerCost;
  }

  /**
   * An observer that measures the steps of a vCPU.
   *
   * @param policy Name to file them under.
   * @returns The observer.
   */
  observer(policy: string): Observer {
    let steps = this.#policies.get(policy);
    if (steps === undefined) this.#policies.set(policy, steps = new Map());
    const filed = steps;
    let running = "";
    let began = 0;
    const stop = () => {
      if (running === "") return;
      const ns = Math.max(0, (performance.now() - began) * 1e6 - this.#timerCost);
      let samples = filed.get(running);
      if (samples === undefined) filed.set(running, samples = new Samples());
      samples.add(ns);
      running = "";
    };
    return {
      begin: stop,
      end: stop,
      step(step) {
        stop();
        running = step.name;
        began = performance.now();
      },
      check() {},
      warn() {},
      inner() {},
    };
  }

  /** The table: by policy, the step with the largest share first. */
  rows(): StepCost[] {
    return [...this.#policies].flatMap(([policy, steps]) => {
      const all = [...steps.values()].reduce((sum, { total }) => sum + total, 0);
      return [...steps].map(([step, samples]): StepCost => ({
        policy,
        step,
        count: samples.count,
        p50: samples.median(),
        mean: samples.count === 0 ? 0 : samples.total / samples.count,
        share: all === 0 ? 0 : samples.total / all,
      })).sort((a, b) => b.share - a.share);
    });
  }
}
