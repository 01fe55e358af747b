/**
 * Runs scenarios on Bochs' SVM, a third opinion beside QEMU's and the model's.
 *
 * @module
 */
import {
  type ExecuteOptions,
  type ExecuteResult,
  executeScenarios,
  type ScenarioExecutor,
} from "../scenarios/execute.ts";
import type { Scenario } from "../scenarios/scenario.ts";
import { drain, type EventSink } from "../sink.ts";
import { BochsMachine } from "./bochs_machine.ts";

/** Name that Bochs' SVM has among kernels. */
export const BOCHS_KERNEL = "bochs";

/** How to run scenarios on Bochs. */
export interface BochsScenarioOptions extends ExecuteOptions {
  /** The processor that Bochs is to be, one with SVM: `ryzen` (when left out) or `zambezi`. */
  readonly cpu?: string;
  /** Milliseconds that L2 may run before it is stopped; 1000 when left out. */
  readonly limitMs?: number;
}

/** What became of the scenarios. */
export interface BochsScenarioResult extends ExecuteResult {
  /** Bochs' version. */
  readonly version: string;
}

/**
 * Runs scenarios, each on a Bochs of its own, and records them. GIF after a #VMEXIT is not seen, nor
 * what becomes of registers in a shutdown; both stay unknown.
 *
 * @param scenarios The scenarios, in order.
 * @param sink Takes the events; it is closed at the end, however that comes.
 * @param options How.
 * @returns What became of them.
 * @throws {BochsError} When Bochs cannot be started; the sink is closed first.
 * @example
 * ```ts
 * import { BochsError, parseScenarios, recordBochsScenarios } from "@vmtape/vmtape/traces";
 * const kinds: string[] = [];
 * const sink = { write: (event: { kind: string }) => void kinds.push(event.kind), close() {} };
 * try {
 *   const { recorded } = await recordBochsScenarios(parseScenarios("asid0 control.asid=0"), sink);
 *   if (recorded !== 1 || !kinds.includes("exit")) throw new Error(kinds.join());
 * } catch (error) {
 *   if (!(error instanceof BochsError)) throw error; // Bochs is not installed
 * }
 * ```
 */
export async function recordBochsScenarios(
  scenarios: Iterable<Scenario>,
  sink: EventSink,
  options: BochsScenarioOptions = {},
): Promise<BochsScenarioResult> {
  const folder = await Deno.makeTempDir({ prefix: "vmtape-bochs-" });
  try {
    return await run(scenarios, sink, options, folder);
  } finally {
    await sink.close();
    await Deno.remove(folder, { recursive: true });
  }
}

async function run(
  scenarios: Iterable<Scenario>,
  sink: EventSink,
  options: BochsScenarioOptions,
  folder: string,
): Promise<BochsScenarioResult> {
  const { cpu = "ryzen", limitMs = 1000 } = options;
  const machine = new BochsMachine(folder, cpu, limitMs);
  const executor: ScenarioExecutor = {
    source: "bochs",
    kernel: BOCHS_KERNEL,
    get details() {
      return {
        bochs: machine.version,
        processor: cpu,
        clock: "host, Bochs' start included",
      };
    },
    obstacle,
    run: (scenario, signal) => machine.run(scenario, signal),
  };
  const result = await drain(executeScenarios(executor, scenarios, options), sink);
  return { ...result, version: machine.version };
}

/** Why a scenario cannot be set up in Bochs; undefined when it can. */
function obstacle(scenario: Scenario): string | undefined {
  const { entry, irq, nmi, keepvm, keepmem, l1, cpuid, physicalBits } = scenario;
  const elsewhere = "; run it on the lab or with predict";
  if (entry !== "vmrun") return `entry=${entry} needs a hypervisor beneath L1${elsewhere}`;
  if (irq !== 0 || nmi) return `Bochs' debugger raises no interrupt or NMI${elsewhere}`;
  if (keepvm || keepmem) {
    return `it goes on from the case before it, and each is a Bochs of its own`;
  }
  if (l1.rflags !== 2n) return `Bochs' debugger sets no RFLAGS; only rflags=2 can be had`;
  if (cpuid.length > 0 || physicalBits !== undefined) {
    return `Bochs' processors are as they are: nocpu and pa change a hypervisor's${elsewhere}`;
  }
  return undefined;
}
