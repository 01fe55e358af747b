/**
 * Measuring a replay, and the times that a recording holds itself.
 *
 * @module
 */
import type { TraceEvent } from "../engine/event.ts";
import type { Latency } from "../engine/latency.ts";
import type { StepCosts } from "../engine/step_costs.ts";
import type { Policy } from "../engine/policy.ts";
import { Driver } from "../engine/replay/drive.ts";

/** What the recording's own times are filed under. */
export const RECORDED = "recorded";

/** Runs a trace under several policies, step by step side by side, so that all meet the same noise. */
export class Measurement {
  readonly #drivers: readonly Driver[];
  #running = false;
  #index = 0;
  #first = 0;

  /**
   * Begins before the trace's first event.
   *
   * @param policies The policies.
   * @param latency Where times are filed, under each policy's name.
   */
  constructor(policies: readonly Policy[], latency: Pick<Latency | StepCosts, "observer">) {
    this.#drivers = policies.map((policy) => {
      const driver = new Driver(policy);
      driver.observer = latency.observer(policy.name);
      return driver;
    });
  }

  /** Takes the next event of the trace. */
  feed(event: TraceEvent): void {
    const index = this.#index++;
    if (event.kind === "session" || event.kind === "case") this.#running = false;
    if (event.kind === "vmrun" || event.kind === "setstate") this.#running = true;
    const looks = event.kind === "regs" && event.phase !== "pre" && this.#running;
    // Who goes first finds the caches cold, so they take turns.
    if (event.kind === "vmrun" || event.kind === "setstate") this.#first++;
    for (let i = 0; i < this.#drivers.length; i++) {
      const driver = this.#drivers[(this.#first + i) % this.#drivers.length] as Driver;
      driver.feed(event, index);
      if (!looks) continue;
      if (!driver.ran) driver.run();
      driver.ran = false;
    }
  }
}

/** Files the times that the recording itself holds. */
export class RecordedTimes {
  readonly #latency: Latency;
  readonly #began = new Map<number, { time: number; failed: boolean }>();

  /** @param latency Where times are filed, under {@linkcode RECORDED}. */
  constructor(latency: Latency) {
    this.#latency = latency;
  }

  /** Takes the next event of the trace. */
  feed(event: TraceEvent): void {
    const { kind, vcpu, time } = event;
    if (kind === "vmrun") {
      if (time === undefined) this.#began.delete(vcpu);
      else this.#began.set(vcpu, { time, failed: false });
      return;
    }
    const began = this.#began.get(vcpu);
    if (!began) return;
    if (kind === "check") {
      if (time !== undefined) {
        this.#latency.record(RECORDED, "check failure", Math.max(0, time - began.time));
      }
      this.#began.delete(vcpu);
    } else if (kind === "exit") {
      if (time !== undefined) {
        this.#latency.record(RECORDED, "round trip", Math.max(0, time - began.time));
      }
      this.#began.delete(vcpu);
    } else if (kind === "session" || kind === "lost") this.#began.delete(vcpu);
  }
}
