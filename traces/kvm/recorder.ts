/**
 * Recording what this machine's own KVM does with scenarios.
 *
 * @module
 */
import type { TraceEvent } from "../../engine/event.ts";
import { checkByText } from "../../engine/checks/sets.ts";
import type { LabEvent, LabRecord, LabState } from "../../codecs/lab/record.ts";
import { MEMORY_SIZE } from "../scenarios/base.ts";
import { importLab } from "../scenarios/lab_import.ts";
import { bytesOf, type Scenario } from "../scenarios/scenario.ts";
import { askHost, type KvmHost, openKvm } from "./host.ts";
import { type Alarm, Libc, LIBC_PATHS } from "./libc.ts";
import { KvmMachine } from "./machine.ts";
import { OwnTrace } from "./tracefs.ts";

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
  readonly #libc: Libc;
  readonly #kvm: number;
  readonly #stack = new DisposableStack();
  readonly #alarm: Alarm;
  readonly #trace: OwnTrace | undefined;
  #machine: KvmMachine | undefined;
  #physicalBits = 0;

  /**
   * Opens KVM and looks for what is needed.
   *
   * @param scenarios What is to be run: what of KVM they need is looked for at once.
   * @param options How.
   * @throws {KvmError} When this machine's KVM cannot be recorded from, with what to do about it.
   */
  constructor(scenarios: readonly Scenario[], options: KvmOptions = {}) {
    const { device = "/dev/kvm", libc: paths = LIBC_PATHS, tracepoints = true } = options;
    using stack = new DisposableStack();
    const libc = stack.use(Libc.load(paths));
    this.#kvm = stack.adopt(openKvm(libc, device), (fd) => libc.close(fd));
    const needsSmm = scenarios.some(({ entry }) => entry === "rsm");
    const host = askHost(libc, this.#kvm, device, needsSmm);
    this.#alarm = stack.use(libc.alarm());
    this.#trace = tracepoints ? OwnTrace.open(libc) : undefined;
    if (this.#trace) stack.use(this.#trace);
    this.#libc = libc;
    this.host = { ...host, checks: this.#trace !== undefined };
    this.#stack = stack.move();
  }

  /** What a session says of this machine. */
  get session(): Readonly<Record<string, unknown>> {
    const { kernel, processor, npt, checks } = this.host;
    return {
      source: "kvm",
      kernel,
      processor,
      ...(npt === undefined ? {} : { npt: npt ? 1 : 0 }),
      sees: checks ? ["check"] : [],
      capabilities: { physical_bits: this.#physicalBits, memory: MEMORY_SIZE },
    };
  }

  /**
   * Runs one scenario.
   *
   * @param scenario The scenario.
   * @returns What was seen, in the form of the lab's records.
   * @throws {KvmError} `call`, when KVM refuses what it never should.
   */
  run(scenario: Scenario): LabRecord {
    if (this.#machine === undefined || !scenario.keepvm) this.#renew();
    const machine = this.#machine!;
    const events: LabEvent[] = [];
    const looked: Record<string, number> = {};
    const take = () => events.push(...this.#trace?.take() ?? []);

    const errors = machine.setUp(scenario);
    const pre: LabState = {
      ...machine.look(),
      vmcb12: machine.vmcb12,
      ...(Object.keys(errors).length === 0 ? {} : { setup_errors: errors }),
    };
    this.#trace?.take();
    const setstate = scenario.entry === "setstate" ? machine.restore(scenario) : undefined;
    let result = machine.run();
    let mid: LabState | undefined, smm: LabState | undefined;
    if (scenario.entry === "rsm") {
      mid = { ...machine.look(), rc: result.rc, port: "0", ...machine.exit() };
      take();
      looked["mid"] = events.length;
      machine.smi();
      result = machine.run();
      smm = {
        ...machine.look(),
        rc: result.rc,
        port: "0",
        ...machine.exit(),
        vmcb12: machine.vmcb12,
        hsave: machine.hsave,
        smram: machine.smram,
      };
      take();
      looked["smm"] = events.length;
      for (const change of scenario.late) {
        if (change.gpa !== undefined) machine.write(change.gpa, bytesOf(change));
      }
      result = machine.run();
    }
    const post: LabState = {
      ...machine.look(),
      ...result,
      ...machine.exit(),
      vmcb12: machine.vmcb12,
    };
    take();
    return {
      case: scenario.name,
      spec: scenario.spec,
      kernel: this.host.kernel,
      npt: this.host.npt === false ? 0 : 1,
      sees: this.host.checks ? ["check"] : [],
      events,
      pre,
      ...(mid ? { mid, looked } : {}),
      ...(smm ? { smm } : {}),
      ...(setstate ? { setstate } : {}),
      post,
    };
  }

  #renew(): void {
    this.#machine?.[Symbol.dispose]();
    this.#machine = undefined;
    this.#machine = new KvmMachine(this.#libc, this.#kvm, this.#alarm, this.host.smm);
    this.#physicalBits = this.#machine.physicalBits;
  }

  /** Ends the virtual machine, and lets go of KVM. */
  [Symbol.dispose](): void {
    this.#machine?.[Symbol.dispose]();
    this.#machine = undefined;
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
 * for await (const event of recordKvm(recorder, scenarios)) console.log(event.kind);
 * ```
 */
export async function* recordKvm(
  recorder: KvmRecorder,
  scenarios: Iterable<Scenario>,
): AsyncGenerator<TraceEvent> {
  const records = function* (): Generator<LabRecord> {
    for (const scenario of scenarios) yield recorder.run(scenario);
  };
  for await (const event of importLab(records())) {
    if (event.kind === "session") {
      const { shows } = event.meta ?? {};
      yield { ...event, meta: { ...recorder.session, shows } };
    } else if (event.kind === "check") {
      const id = checkByText(event.text ?? "")?.id;
      yield id === undefined ? event : { ...event, check: id };
    } else yield event;
  }
}
