/**
 * Recording the emulator: scenarios run under a policy, as trace events.
 *
 * @module
 */
import { Buffer } from "node:buffer";
import type { LabRecord } from "../../codecs/lab/record.ts";
import type { EventOf, TraceEvent } from "../../engine/event.ts";
import type { Policy } from "../../engine/policy.ts";
import { GuestMemory, PAGE_SIZE } from "../../engine/svm/memory.ts";
import { MEMORY_SIZE } from "./base.ts";
import { Emulator } from "./emulator.ts";
import { FixedPoint } from "./fixed_point.ts";
import { importLab } from "./lab_import.ts";
import { parseScenario, type Scenario, setUpMemory } from "./scenario.ts";

/** How scenarios are recorded. */
export interface RecordOptions {
  /** Whether the hypervisor uses nested paging itself; yes when left out. */
  readonly npt?: boolean;
  /** How many times over the scenarios are run; more than once means all of them on one vCPU. */
  readonly repeat?: number;
  /** Whether every round is run, even when it is known to be the same as the one before. */
  readonly everyRound?: boolean;
  /**
   * Called when the emulator met what it does not model.
   *
   * @param scenario The scenario.
   * @param what What it met.
   */
  readonly onUnmodelled?: (scenario: Scenario, what: string) => void;
}

/** The scenarios so many times over, each with the number of its round. */
function* rounds(
  scenarios: readonly Scenario[],
  times: number,
): Generator<readonly [Scenario, number]> {
  const kept = times === 1
    ? scenarios
    : scenarios.map((s) => s.keepvm ? s : parseScenario(`${s.name} ${s.spec} keepvm`));
  for (let round = 0; round < times; round++) {
    for (const [i, scenario] of kept.entries()) {
      yield [round + i === 0 ? scenarios[0]! : scenario, round];
    }
  }
}

/** What scenarios set memory to, page by page. */
class SetUp {
  readonly #pages = new Map<Scenario, ReadonlyMap<number, Uint8Array>>();

  /** Addresses of the pages that hold already what a scenario will set them to. */
  unchanged(scenario: Scenario, memory: GuestMemory): ReadonlySet<bigint> {
    const found = new Set<bigint>();
    if (scenario.keepmem) return found;
    for (const [gpa, bytes] of this.#wanted(scenario)) {
      if (Buffer.compare(memory.page(gpa), bytes) === 0) found.add(BigInt(gpa));
    }
    return found;
  }

  #wanted(scenario: Scenario): ReadonlyMap<number, Uint8Array> {
    const known = this.#pages.get(scenario);
    if (known) return known;
    const memory = new GuestMemory(MEMORY_SIZE);
    setUpMemory(scenario, { write: (gpa, bytes) => memory.writeBytes(gpa, bytes) });
    const pages = new Map(
      [...memory.pages()].map((i) => [i * PAGE_SIZE, memory.page(i * PAGE_SIZE)]),
    );
    this.#pages.set(scenario, pages);
    return pages;
  }
}

const NONE: ReadonlySet<bigint> = new Set();

/**
 * Runs scenarios on the emulator and records what happens.
 *
 * From the second round on, a page that holds already what it would be set to is
 * left alone: a guest in a loop does not write its tables anew either. A round
 * that begins with the machine as the round before did is not run again: its
 * events are the same.
 *
 * @param scenarios The scenarios, in order.
 * @param policy The policy.
 * @param options How.
 * @returns The events, case after case.
 * @example
 * ```ts
 * import { builtinScenarios, recordScenarios } from "@vmtape/vmtape/traces";
 * import { UNIFIED } from "@vmtape/vmtape/engine";
 * const texts = [];
 * for await (const event of recordScenarios(builtinScenarios("gif-left-set"), UNIFIED)) {
 *   if (event.kind === "check") texts.push(event.text);
 * }
 * if (texts.join() !== "control->asid == 0") throw new Error();
 * ```
 */
export async function* recordScenarios(
  scenarios: readonly Scenario[],
  policy: Policy,
  options: RecordOptions = {},
): AsyncGenerator<TraceEvent> {
  const { npt = true, repeat = 1, everyRound = false, onUnmodelled } = options;
  const emulator = new Emulator(policy, { npt, full: true });
  const setUp = new SetUp();
  const settled = new FixedPoint();
  let unchanged = NONE;
  let left = 0;
  const records = function* (): Generator<LabRecord> {
    let last = 0;
    for (const [scenario, round] of rounds(scenarios, repeat)) {
      const memory = emulator.vcpu?.memory;
      if (round > last && !everyRound && emulator.vcpu && settled.begins(emulator.vcpu)) {
        left = repeat - round;
        return;
      }
      last = round;
      unchanged = round > 0 && memory ? setUp.unchanged(scenario, memory) : NONE;
      yield emulator.run(scenario);
      const what = emulator.vcpu?.unmodelled;
      if (what) onUnmodelled?.(scenario, what);
    }
  };
  for await (const event of importLab(records())) {
    if (event.kind === "session") yield ownSession(event, policy);
    else if (event.kind !== "memory" || !unchanged.has(event.gpa ?? -1n)) {
      settled.keep(event);
      yield event;
    }
  }
  for (; left > 0; left--) yield* settled.events;
}

/** Says in a session where the recording comes from. */
function ownSession(event: EventOf<"session">, policy: Policy): TraceEvent {
  const meta = { ...event.meta, source: "emulator", policy: policy.name };
  const { processor } = policy;
  return { ...event, meta: processor ? { ...meta, processor_model: processor.name } : meta };
}
