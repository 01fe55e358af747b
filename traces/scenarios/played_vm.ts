/**
 * A machine that ran already: it is led through a scenario once more and shows
 * at each point what was seen there. All that is done to it is to set memory up.
 *
 * @module
 */
import type { EventOf, TraceEvent } from "../../engine/event.ts";
import { GuestMemory } from "../../engine/svm/memory.ts";
import { MEMORY_SIZE } from "./base.ts";
import type { Scenario } from "./scenario.ts";
import {
  type LookPhase,
  overlayPage,
  type PartialPage,
  type ScenarioVm,
  type ShownPage,
  type VmChanges,
  type VmNestedState,
  type VmRun,
  type VmSregs,
} from "./vm.ts";

/** What such machines have in common; of what a call brought nothing is known, unless told. */
export abstract class PlayedVm implements ScenarioVm {
  #memory = new GuestMemory(MEMORY_SIZE);

  /** Metadata of a session. */
  abstract readonly session: Readonly<Record<string, unknown>>;

  /** Whether the scenario had a machine of its own. */
  protected abstract begins(scenario: Scenario): boolean;

  /** What was seen of the registers at a point. */
  abstract look(
    phase: LookPhase,
    pages: readonly ShownPage[],
    run?: VmRun,
  ): EventOf<"regs"> | undefined;

  /** What was seen of the inside until the KVM_RUN under way was over. */
  abstract reports(): readonly TraceEvent[];

  /** Whether the scenario had a machine of its own; memory is all zero then. */
  begin(scenario: Scenario): boolean {
    const begins = this.begins(scenario);
    if (begins) this.#memory = new GuestMemory(MEMORY_SIZE);
    return begins;
  }

  /** A page as it was set up. */
  page(gpa: number): Uint8Array {
    return this.#memory.page(gpa).slice();
  }

  /** Nobody knows what the guest wrote. */
  holds(): boolean {
    return false;
  }

  /** Makes a page hold these bytes. */
  fill(gpa: number, bytes: Uint8Array): void {
    this.#memory.replace(gpa, bytes);
  }

  /** Writes bytes of a page. */
  overlay(gpa: number, page: PartialPage): void {
    overlayPage(this.#memory.writable(gpa), page);
  }

  /** Writes bytes. */
  write(gpa: number, bytes: Uint8Array): void {
    this.#memory.writeBytes(gpa, bytes);
  }

  /** Not recorded. */
  setSregs(_: VmSregs): number | undefined {
    return undefined;
  }

  /** Not recorded. */
  setRegs(): undefined {}

  /** Not recorded. */
  setHsave(): void {}

  /** Not recorded. */
  setNestedState(_: VmNestedState): number | undefined {
    return undefined;
  }

  /** Recorded by its effect. */
  nmi(): void {}

  /** Whether it was refused is in what was seen before the run. */
  interrupt(): undefined {}

  /** Recorded by its effect. */
  smi(): void {}

  /** What KVM_RUN came back with is in what was seen after it. */
  run(): VmRun {
    return { rc: 0, errno: 0 };
  }

  /** Not recorded. */
  complete(): void {}

  /** Not recorded. */
  save(): Partial<EventOf<"save">> {
    return {};
  }

  /** Not recorded. */
  restore(_: VmChanges): Partial<EventOf<"restore">> {
    return {};
  }
}
