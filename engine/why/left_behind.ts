/**
 * What each policy leaves behind after one run of a trace.
 *
 * @module
 */
import type { TraceEvent } from "../event.ts";
import { KVM_EXIT } from "../kvm/constants.ts";
import { gif } from "../kvm/control.ts";
import type { Vcpu } from "../kvm/vcpu.ts";
import type { Policy } from "../policy.ts";
import { Driver } from "../replay/drive.ts";
import { C, V } from "../svm/machine.ts";
import { VMCB_SIZE } from "../svm/vmcb_fields.ts";
import type { FoundRun } from "./failed_run.ts";

/** How a run ended under a policy, as L1 and userspace see it. */
export interface LeftBehind {
  /** Name of the policy. */
  readonly policy: string;
  /** In words: refused, L2 in, shut down and the like. */
  readonly outcome: string;
  /** Id of the check that failed first; undefined when none did. */
  readonly check: string | undefined;
  /** Exit code in vmcb12; undefined when nothing backs it. */
  readonly exitCode: bigint | undefined;
  /** EVENTINJ in vmcb12. */
  readonly eventInj: number | undefined;
  /** Whether GIF is set; undefined when it depends on what was not recorded, as all others. */
  readonly gif: boolean | undefined;
  /** Whether L2 is left in place. */
  readonly guestMode: boolean | undefined;
  /** Texts of kernel assertions that did not hold. */
  readonly assertions: readonly string[];
}

/** One policy on its way through the trace. */
class Side {
  readonly driver: Driver;
  readonly checks: string[] = [];
  readonly assertions = new Set<string>();
  listening = false;

  constructor(policy: Policy) {
    this.driver = new Driver(policy);
    this.driver.observer = {
      check: (id) => {
        if (this.listening) this.checks.push(id);
      },
      warn: (text) => {
        if (this.listening) this.assertions.add(text);
      },
      inner() {},
    };
  }

  left(gpa: bigint | undefined): LeftBehind | undefined {
    const v = this.driver.vcpu;
    if (v === undefined) return undefined;
    const at = Number((gpa ?? v.u64(V.last_vmcb12_gpa)) & ~0xfffn);
    const page = v.memory.backed(at, VMCB_SIZE) ? v.memory.page(at) : undefined;
    const view = page && new DataView(page.buffer, page.byteOffset, page.byteLength);
    const [check] = this.checks;
    return {
      policy: this.driver.policy.name,
      outcome: outcomeOf(v, check !== undefined, this.driver.setStateErrno),
      check,
      exitCode: view?.getBigUint64(C.exit_code, true),
      eventInj: view?.getUint32(C.event_inj, true),
      gif: gif(v),
      guestMode: v.guestMode,
      assertions: [...this.assertions],
    };
  }
}

function outcomeOf(v: Vcpu, failed: boolean, errno: number): string {
  const { rc, exit } = v.result;
  if (v.unmodelled !== "") return `not modelled: ${v.unmodelled}`;
  if (rc !== 0) return v.guestMode ? "L2 faults for ever" : "L1 faults for ever";
  if (exit === KVM_EXIT.SHUTDOWN) return "shut down";
  if (exit === KVM_EXIT.INTERNAL_ERROR) return "emulation error";
  if (errno !== 0) return "refused";
  return failed ? "refused" : v.guestMode ? "L2 is in" : "L2 ran";
}

/**
 * Carries out a run under several policies, and says what each leaves behind.
 *
 * @example
 * ```ts
 * import { builtinScenarios, recordScenarios } from "@vmtape/vmtape/traces";
 * import { EARLY_EXIT, FailureFinder, LeftBehindBy, UNIFIED } from "@vmtape/vmtape/engine";
 * const events = await Array.fromAsync(
 *   recordScenarios(builtinScenarios("gif-left-set"), UNIFIED),
 * );
 * const finder = new FailureFinder(undefined);
 * for (const event of events) finder.feed(event);
 * const by = new LeftBehindBy([EARLY_EXIT, UNIFIED], finder.finish()!);
 * events.forEach((event, index) => by.feed(event, index));
 * if (by.finish().map((left) => left.gif).join() !== "true,false") throw new Error();
 * ```
 */
export class LeftBehindBy {
  readonly #run: FoundRun;
  readonly #sides: readonly Side[];

  /**
   * Begins before the run's session.
   *
   * @param policies The policies.
   * @param run The run, of a recording with all inputs.
   */
  constructor(policies: readonly Policy[], run: FoundRun) {
    this.#run = run;
    this.#sides = policies.map((policy) => new Side(policy));
  }

  /**
   * Takes an event of the trace; those before the run's session or behind the run do not matter.
   *
   * @param event The event.
   * @param index Its number in the trace.
   * @throws {ReplayError} When an input lacks what is needed to carry it out.
   */
  feed(event: TraceEvent, index: number): void {
    const { session, last, vcpu, event: begins } = this.#run;
    if (index < session || index > last || (event.vcpu ?? 0) !== vcpu) return;
    for (const side of this.#sides) {
      if (index >= begins) side.listening = true;
      side.driver.feed(event, index);
    }
  }

  /** What each policy left, in the order of the policies. */
  finish(): LeftBehind[] {
    return this.#sides.flatMap((side) => side.left(this.#run.gpa) ?? []);
  }
}
