/**
 * Recording what this machine's own KVM does with scenarios.
 *
 * @module
 */
import type { TraceEvent } from "../../engine/event.ts";
import { ScenarioRunner } from "../scenarios/runner.ts";
import type { Entry, Scenario } from "../scenarios/scenario.ts";
import { askHost, type KvmHost, openKvm } from "./host.ts";
import { Libc, LIBC_PATHS } from "./libc.ts";
import { OwnTrace } from "./tracefs.ts";
import { KvmVm } from "./vm.ts";

/** How to record from KVM. */
export interface KvmOptions {
  /** KVM's device; /dev/kvm when left out. */
  readonly device?: string;
  /** Where the C library may be; the usual places when left out. */
  readonly libc?: readonly string[];
  /** Whether to take tracepoints where tracefs allows it; yes when left out. */
  readonly tracepoints?: boolean;
}

/** What was found out about the machine before the first scenario. */
export interface KvmFindings extends KvmHost {
  /** Whether failed checks have their names, by tracepoints. */
  readonly checks: boolean;
}

/**
 * KVM, ready to run scenarios one after another.
 *
 * @example
 * ```ts
 * import { KvmError, KvmRecorder } from "@vmtape/vmtape/traces";
 * try {
 *   using recorder = new KvmRecorder([], { libc: ["/none/libc.so"] });
 *   console.log(recorder.host.kernel);
 * } catch (error) {
 *   if (!(error instanceof KvmError)) throw error;
 *   console.log(error.message);
 * }
 * ```
 */
export class KvmRecorder implements Disposable {
  /** The machine that KVM runs on. */
  readonly host: KvmFindings;
  readonly #stack: DisposableStack;
  readonly #runner: ScenarioRunner;

  /**
   * Opens KVM and looks for what is needed.
   *
   * @param scenarios What is to be run: what of KVM they need is looked for at once.
   * @param options How.
   * @throws {KvmError} When this machine's KVM cannot be recorded from, with what to do about it.
   */
  constructor(scenarios: readonly Scenario[], options: KvmOptions = {}) {
    const { device = "/dev/kvm", libc: paths = LIBC_PATHS, tracepoints = true } = options;
    const stack = new DisposableStack();
    try {
      const libc = stack.use(Libc.load(paths));
      const kvm = stack.adopt(openKvm(libc, device), (fd) => libc.close(fd));
      const needs = (entry: Entry) => scenarios.some((scenario) => scenario.entry === entry);
      const host = askHost(libc, kvm, device, needs("rsm"), needs("migrate"));
      const alarm = stack.use(libc.alarm());
      const trace = tracepoints ? OwnTrace.open(libc) : undefined;
      if (trace) stack.use(trace);
      this.host = { ...host, checks: trace !== undefined };
      const vm = stack.use(new KvmVm({ libc, kvm, alarm, trace }, this.host));
      this.#runner = new ScenarioRunner(vm);
      this.#stack = stack.move();
    } finally {
      // Empty by now, unless something failed.
      stack.dispose();
    }
  }

  /**
   * Runs one scenario.
   *
   * @param scenario The scenario.
   * @returns What happened, in the order in which it happened.
   * @throws {KvmError} `call`, when KVM refuses what it never should.
   */
  run(scenario: Scenario): Generator<TraceEvent> {
    return this.#runner.run(scenario);
  }

  /** Ends the virtual machine, and lets go of KVM. */
  [Symbol.dispose](): void {
    this.#stack.dispose();
  }
}

/**
 * Runs scenarios on this machine's KVM and records what it does.
 *
 * @param recorder KVM.
 * @param scenarios The scenarios, in order.
 * @returns The events, case after case, as an import of the lab's records gives them.
 * @throws {KvmError} `call`, when KVM refuses what it never should.
 * @example
 * ```ts ignore
 * import { builtinScenarios, KvmRecorder, recordKvm } from "@vmtape/vmtape/traces";
 * const scenarios = builtinScenarios("gif-left-set");
 * using recorder = new KvmRecorder(scenarios);
 * for (const event of recordKvm(recorder, scenarios)) console.log(event.kind);
 * ```
 */
export function* recordKvm(
  recorder: KvmRecorder,
  scenarios: Iterable<Scenario>,
): Generator<TraceEvent> {
  for (const scenario of scenarios) yield* recorder.run(scenario);
}
