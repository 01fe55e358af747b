/**
 * What became of a scenario on a processor that is not KVM's, and the machine
 * that plays it, so that the runner tells of it as of any other.
 *
 * @module
 */
import type { EventOf, Image, TraceEvent } from "../../engine/event.ts";
import { labCapabilities } from "./lab_processor.ts";
import { PlayedVm } from "./played_vm.ts";
import type { Scenario } from "./scenario.ts";
import { type LookPhase, SHOWN_PAGES, type VmRun } from "./vm.ts";

/** What became of one scenario. */
export interface ScenarioOutcome {
  /**
   * `exit`: L1 received a #VMEXIT; `l2-port`: L2 ran into L1's port write; `hlt`: L2 halted;
   * `shutdown`: a triple fault; `limit`: L2 still ran when its time was up.
   */
  readonly end: "exit" | "l2-port" | "hlt" | "shutdown" | "limit";
  /** Whether the machine was a new one, its memory all zero. */
  readonly fresh: boolean;
  /** L1's registers before VMRUN, of layout `regs`. */
  readonly before: Image;
  /** Registers after; undefined after a shutdown, which resets them. */
  readonly after: Image | undefined;
  /** Physical address of vmcb12. */
  readonly vmcb12Gpa: bigint;
  /** The page at the base's vmcb12 before. */
  readonly vmcb12Before: Uint8Array | undefined;
  /** The same after. */
  readonly vmcb12: Uint8Array | undefined;
  /** When L1 was let run, in milliseconds of `performance.now`. */
  readonly startedAt: number;
  /** When it stopped. */
  readonly stoppedAt: number;
}

/** KVM_EXIT_* numbers that the lab's rig would have got. */
const KVM_EXIT = { io: 2, hlt: 5, shutdown: 8 } as const;

/** What KVM_RUN would have come back with. */
const RESULTS: Readonly<Record<ScenarioOutcome["end"], Partial<EventOf<"regs">>>> = {
  exit: { rc: 0, errno: 0, exit: KVM_EXIT.io, port: 0x80 },
  "l2-port": { rc: 0, errno: 0, exit: KVM_EXIT.io, port: 0x80 },
  hlt: { rc: 0, errno: 0, exit: KVM_EXIT.hlt },
  shutdown: { rc: 0, errno: 0, exit: KVM_EXIT.shutdown },
  limit: { rc: -1, errno: 4 },
};

/** Where outcomes come from, as a session tells of it. */
export interface OutcomeSource {
  /** Name of the source, such as `qemu`. */
  readonly source: string;
  /** Its name among kernels. */
  readonly kernel: string;
  /** What a session says of it besides. */
  readonly details: Readonly<Record<string, unknown>>;
}

/** Plays one outcome after another. */
export class OutcomeVm extends PlayedVm {
  readonly #source: OutcomeSource;
  readonly #started = performance.now();
  #outcome!: ScenarioOutcome;
  #scenario!: Scenario;
  #ran = false;

  /** @param source Where the outcomes come from. */
  constructor(source: OutcomeSource) {
    super();
    this.#source = source;
  }

  /** Takes what became of the next scenario. */
  load(outcome: ScenarioOutcome): void {
    this.#outcome = outcome;
    this.#ran = false;
  }

  /** Metadata of a session. */
  get session(): Readonly<Record<string, unknown>> {
    const { source, kernel, details } = this.#source;
    return {
      source,
      kernel,
      npt: 1,
      capabilities: labCapabilities(this.#scenario),
      shows: SHOWN_PAGES,
      ...details,
      partial: true,
    };
  }

  /** Whether the scenario had a machine of its own. */
  protected begins(scenario: Scenario): boolean {
    this.#scenario = scenario;
    return this.#outcome.fresh;
  }

  /** What was seen of VMRUN itself: the registers are those that L1 had when it executed it. */
  get vmrun(): Pick<EventOf<"vmrun">, "time" | "regs"> {
    const { before, startedAt } = this.#outcome;
    return { time: this.#time(startedAt), regs: before };
  }

  /** What was seen before and after. */
  look(phase: LookPhase): EventOf<"regs"> | undefined {
    const { end, before, after, vmcb12Before, vmcb12 } = this.#outcome;
    const [regs, page, result] = phase === "pre"
      ? [before, vmcb12Before, {}]
      : [after, vmcb12, RESULTS[end]];
    return { kind: "regs", vcpu: 0, phase, ...result, ...(regs ? { regs } : {}), ...image(page) };
  }

  /** What KVM_RUN came back with is told by the look after it. */
  override run(): VmRun {
    this.#ran = true;
    return super.run();
  }

  /** The #VMEXIT that L1 received, if it did. */
  reports(): readonly TraceEvent[] {
    const { end, after, vmcb12Gpa, vmcb12, stoppedAt } = this.#outcome;
    if (!this.#ran || end !== "exit" || after === undefined) return [];
    return [{
      kind: "exit",
      vcpu: 0,
      time: this.#time(stoppedAt),
      vmcb12_gpa: vmcb12Gpa,
      regs: after,
      ...image(vmcb12),
    }];
  }

  /** Nanoseconds since the recording began. */
  #time(at: number): number {
    return Math.round((at - this.#started) * 1e6);
  }
}

function image(page: Uint8Array | undefined): { vmcb12?: Image } {
  return page === undefined ? {} : { vmcb12: { bytes: page } };
}
