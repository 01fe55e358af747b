/**
 * Runs scenarios on QEMU's own SVM: the project's guest puts L1 into the state
 * that a scenario wants, a debugger sets memory and looks at what comes out.
 *
 * @module
 */
import {
  type ExecuteOptions,
  type ExecuteResult,
  executeScenarios,
  type ScenarioExecutor,
} from "../scenarios/execute.ts";
import type { ScenarioOutcome } from "../scenarios/outcome.ts";
import type { Scenario } from "../scenarios/scenario.ts";
import { drain, type EventSink } from "../sink.ts";
import { GdbError } from "./gdb_packets.ts";
import { buildGuest, type ScenarioGuest } from "./guest.ts";
import { MACHINE_CODE } from "./machine_code.ts";
import { type QemuOptions, QemuProcess } from "./process.ts";
import { ROM_FILE, ScenarioMachine } from "./scenario_machine.ts";

/** Name that QEMU's own SVM has among kernels and policies. */
export const QEMU_KERNEL = "qemu-tcg";

/** How to run scenarios on QEMU. */
export interface QemuScenarioOptions extends ExecuteOptions {
  /** How to start QEMU; `args` come after the guest's own. */
  readonly qemu?: QemuOptions;
  /** Milliseconds that L2 may run before it is stopped; 250 when left out. */
  readonly limitMs?: number;
}

/** One crash of QEMU. */
export interface QemuCrash {
  /** Scenario that ran. */
  readonly name: string;
  /** What QEMU said. */
  readonly words: string;
}

/** What became of the scenarios. */
export interface QemuScenarioResult extends ExecuteResult {
  /** Crashes of QEMU, after each of which it was started again: the scenario and QEMU's last words. */
  readonly crashes: readonly QemuCrash[];
  /** QEMU's version. */
  readonly version: string;
}

/**
 * Runs scenarios one after the other on a QEMU of our own and records them.
 *
 * Its vmrun events have L1's registers as QEMU had them; where L1 received a #VMEXIT there is an
 * exit event. The sink is closed at the end, also when QEMU dies or `signal` ends the recording; what
 * was written until then is valid.
 *
 * @param scenarios The scenarios, in order.
 * @param sink Takes the events.
 * @param options How.
 * @returns What became of them.
 * @throws {QemuError} When QEMU cannot be started; the sink is closed first.
 * @example
 * ```ts
 * import { parseScenarios, recordQemuScenarios } from "@vmtape/vmtape/traces";
 * const kinds: string[] = [];
 * const sink = { write: (event: { kind: string }) => void kinds.push(event.kind), close() {} };
 * try {
 *   const { recorded } = await recordQemuScenarios(parseScenarios("asid0 control.asid=0"), sink);
 *   if (recorded !== 1 || !kinds.includes("exit")) throw new Error(kinds.join());
 * } catch (error) {
 *   const { cause } = error as Error;
 *   if (!(cause instanceof Deno.errors.NotFound)) throw error; // QEMU is not installed
 * }
 * ```
 */
export async function recordQemuScenarios(
  scenarios: Iterable<Scenario>,
  sink: EventSink,
  options: QemuScenarioOptions = {},
): Promise<QemuScenarioResult> {
  try {
    return await run(scenarios, sink, options);
  } finally {
    await sink.close();
  }
}

async function run(
  scenarios: Iterable<Scenario>,
  sink: EventSink,
  options: QemuScenarioOptions,
): Promise<QemuScenarioResult> {
  const folder = await Deno.makeTempDir({ prefix: "vmtape-guest-" });
  const guest = buildGuest(MACHINE_CODE);
  await Deno.writeFile(`${folder}/${ROM_FILE}`, guest.bytes);
  const host = new Host(folder, guest, options);
  try {
    await host.start();
    const result = await drain(executeScenarios(host, scenarios, options), sink);
    return { ...result, crashes: host.crashes, version: host.version };
  } finally {
    await host[Symbol.asyncDispose]();
  }
}

/** A QEMU that is started again when it crashes. */
class Host implements ScenarioExecutor {
  readonly source = "qemu";
  readonly kernel = QEMU_KERNEL;
  readonly obstacle = obstacle;
  /** QEMU's version. */
  version = "unknown";
  /** Crashes so far. */
  readonly crashes: QemuCrash[] = [];
  readonly #folder: string;
  readonly #guest: ScenarioGuest;
  readonly #options: QemuScenarioOptions;
  #qemu: QemuProcess | undefined;
  #machine: ScenarioMachine | undefined;

  constructor(folder: string, guest: ScenarioGuest, options: QemuScenarioOptions) {
    this.#folder = folder;
    this.#guest = guest;
    this.#options = options;
  }

  get details(): Readonly<Record<string, unknown>> {
    return { qemu: this.version, clock: "host, with the debugger" };
  }

  async start(): Promise<void> {
    await this.#qemu?.stop();
    this.#qemu = await QemuProcess.start({
      cpu: "max,-apic",
      ...this.#options.qemu,
      args: [
        ...["-m", "16", "-nodefaults", "-vga", "none", "-bios", `${this.#folder}/${ROM_FILE}`],
        ...this.#options.qemu?.args ?? [],
      ],
    });
    const limitMs = this.#options.limitMs ?? 250;
    this.#machine = new ScenarioMachine(this.#qemu.gdb, this.#guest.labels, limitMs);
    this.version = await this.#machine.start();
  }

  /**
   * Runs a scenario; when QEMU crashes, once more on a new one, since what it ran before may be the cause.
   *
   * @returns The outcome; QEMU's last words when it crashed both times; undefined when someone ended it.
   */
  async run(scenario: Scenario): Promise<ScenarioOutcome | { failed: string } | undefined> {
    for (let attempt = 1;; attempt++) {
      try {
        return await this.#machine!.run(scenario);
      } catch (error) {
        if (!(error instanceof GdbError) || error.code !== "closed") throw error;
        const crash = await this.#qemu!.crash();
        if (crash === undefined) return undefined;
        await this.start();
        this.crashes.push({ name: scenario.name, words: crash });
        if (attempt === 2) return { failed: `QEMU crashed on it: ${crash}` };
      }
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#qemu?.stop();
    await Deno.remove(this.#folder, { recursive: true });
  }
}

/** Why a scenario cannot be set up from outside QEMU; undefined when it can. */
function obstacle(scenario: Scenario): string | undefined {
  if (scenario.entry === "setstate") {
    return "entry=setstate is an ioctl of KVM; run it on the lab or with predict";
  }
  if (scenario.entry === "rsm") {
    return "entry=rsm needs an SMI at a chosen instruction of L2, which QEMU's stub cannot raise; run it on the lab or with predict";
  }
  if (scenario.entry === "mid" || scenario.entry === "migrate") {
    return `entry=${scenario.entry} goes on with ioctls of KVM where L2 stopped; run it on the lab, with record kvm or with predict`;
  }
  if (scenario.cpuid.length > 0 || scenario.physicalBits !== undefined) {
    return "L1 has the processor that QEMU was started with; run it on the lab, with record kvm or with predict";
  }
  if (scenario.irq !== 0) {
    return "irq= queues a vector without an interrupt controller, which is an ioctl of KVM; run it on the lab or with predict";
  }
  return undefined;
}
