/**
 * One of the lab's records played again: a machine that shows what a kernel
 * did, whatever it is asked to do.
 *
 * @module
 */
import type { EventOf, TraceEvent } from "../../engine/event.ts";
import { overlayImage } from "../../engine/image/fields.ts";
import { type LabOutcome, labOutcome, migrationFields } from "../../codecs/lab/events.ts";
import { type LabRecord, PHASES } from "../../codecs/lab/record.ts";
import { MEMORY_SIZE, VMCB12_GPA } from "./base.ts";
import { VMRUN_LENGTH } from "./inputs.ts";
import { labCapabilities } from "./lab_processor.ts";
import type { Entry, Scenario } from "./scenario.ts";
import { bytesOf } from "./scenario_memory.ts";
import { PlayedVm } from "./played_vm.ts";
import {
  type LookPhase,
  SHOWN_PAGES,
  type VmChanges,
  type VmNestedState,
  type VmRun,
} from "./vm.ts";

/** Plays one record after another. */
export class LabPlayback extends PlayedVm {
  #record!: LabRecord;
  #outcome!: LabOutcome;
  #timeline!: Timeline;
  /** What told the machine under way apart from others. */
  #machine = "";
  #begun = false;
  #scenario!: Scenario;
  /** The points that were looked at; L1 is set up before the first. */
  readonly #shown = new Set<LookPhase>();
  /** Calls of KVM_RUN so far, and reports that were handed out. */
  #runs = 0;
  #reported = 0;
  #restored = false;

  /**
   * Takes the next record.
   *
   * @param record The record.
   * @throws {LabRecordError} When it holds something that an event has no place for.
   */
  load(record: LabRecord): void {
    this.#record = record;
    this.#outcome = labOutcome(record);
    this.#runs = 0;
    this.#reported = 0;
    this.#restored = false;
    this.#shown.clear();
  }

  /** What the record tells besides, when the scenario is over: nothing of it may be lost. */
  rest(): TraceEvent[] {
    const { states, console } = this.#outcome;
    const left = PHASES.filter((phase) => !this.#shown.has(phase)).map((phase) => states[phase]);
    return [...left, console].filter((event) => event !== undefined);
  }

  /** Metadata of a session. */
  get session(): Readonly<Record<string, unknown>> {
    const { kernel, npt, sees } = this.#record;
    return {
      ...{
        source: "lab",
        kernel,
        npt,
        capabilities: labCapabilities(this.#scenario),
        shows: SHOWN_PAGES,
      },
      ...(sees ? { sees } : {}),
    };
  }

  /** A record begins a machine unless its case goes on with the one before, on the same kernel. */
  protected begins(scenario: Scenario): boolean {
    const machine = `${this.#record.kernel}/${this.#record.npt}`;
    this.#scenario = scenario;
    this.#timeline = timeline(this.#record, scenario.entry);
    this.#begun = !scenario.keepvm || machine !== this.#machine;
    this.#machine = machine;
    return this.#begun;
  }

  /** A page as far as it is known: what an earlier run left is only known from what was seen of it. */
  override page(gpa: number): Uint8Array {
    const bytes = super.page(gpa);
    const seen = this.#outcome.states.pre?.vmcb12;
    const left = !this.#begun && this.#scenario.keepmem;
    if (gpa === VMCB12_GPA && seen !== undefined && left) overlayImage(bytes, seen);
    return bytes;
  }

  /** Whether those of L1 were refused is in what was seen before the run. */
  override setSregs(): number | undefined {
    return this.#shown.size > 0 ? this.#record.setstate?.sregs_errno : undefined;
  }

  /** As recorded. */
  override setNestedState({ state }: VmNestedState): number | undefined {
    return state === undefined ? undefined : this.#record.setstate?.errno;
  }

  /** What KVM_RUN came back with is in what was seen after it. */
  override run(): VmRun {
    this.#runs++;
    return super.run();
  }

  /** As recorded. */
  override save(): Partial<EventOf<"save">> {
    const { migrate } = this.#record;
    return migrate === undefined ? {} : migrationFields(migrate).save;
  }

  /** As recorded. */
  override restore({ memory }: VmChanges): Partial<EventOf<"restore">> {
    for (const change of memory) this.write(change.gpa as number, bytesOf(change));
    const { migrate } = this.#record;
    const fields = migrate === undefined ? {} : migrationFields(migrate).restore;
    this.#restored = true;
    // The lab copies all memory, zeroes too.
    return { ...fields, resident: BigInt(MEMORY_SIZE) };
  }

  /** As recorded. */
  look(phase: LookPhase): EventOf<"regs"> | undefined {
    this.#shown.add(phase);
    return this.#outcome.states[phase];
  }

  /** What the kernel reported until the KVM_RUN under way was over. */
  reports(): TraceEvent[] {
    const { runs } = this.#timeline;
    const { reports } = this.#outcome;
    const events: TraceEvent[] = [];
    const end = this.#end();
    for (let i = this.#reported; i < end; i++) {
      if (runs.has(i)) {
        const rip = this.#scenario.l1.rip + BigInt(VMRUN_LENGTH);
        events.push({ kind: "vmrun", vcpu: 0, rip });
      }
      events.push(...reports[i] ?? []);
    }
    this.#reported = Math.max(this.#reported, end);
    return events;
  }

  /** Number of the report before which the step under way was over. */
  #end(): number {
    const all = this.#outcome.reports.length;
    if (this.#runs === 0) return 0;
    // Without a look in the middle there is but one run to tell of.
    if (this.#outcome.states.mid === undefined) return all;
    const { mid, smm, restored } = this.#timeline;
    switch (this.#scenario.entry) {
      case "rsm":
        return [mid, smm][this.#runs - 1] ?? all;
      case "mid":
      case "migrate":
        return this.#runs > 1 ? all : this.#restored ? restored : mid;
      default:
        return all;
    }
  }
}

/** Where, counted in reports, things happened that a record does not number. */
interface Timeline {
  /** Before this report userspace looked the first time, L2 (or L1) stopped at a port. */
  readonly mid: number;
  /** Before this one userspace looked while the handler ran. */
  readonly smm: number;
  /** Before this one it looked at the machine that the state was restored into. */
  readonly restored: number;
  /** Before these L1 executed VMRUN again. */
  readonly runs: ReadonlySet<number>;
}

const SMI_EXIT = /^reason: 0xf0000000/;
/** How a tracepoint tells that L2 stopped at a port. */
const PORT_EXIT = /^vcpu \d+ reason io /;

/**
 * Reconstructs the order. Each run of reports up to an inner state belongs to
 * one function; a run that ends in `vmrun` after the first is another VMRUN of
 * L1's loop. KVM makes a software #VMEXIT of an SMI that hits L2.
 */
function timeline(record: LabRecord, entry: Entry): Timeline {
  const { looked } = record;
  const end = record.events.length;
  if (looked) {
    const { mid = end, smm = end, restored = end } = looked;
    return { mid, smm, restored, runs: new Set() };
  }
  const groups: { start: number; end: number; at: string }[] = [];
  let start = 0;
  record.events.forEach((event, i) => {
    if (!("at" in event)) return;
    groups.push({ start, end: i + 1, at: event.at });
    start = i + 1;
  });
  const vmruns = groups.filter((group) => group.at === "vmrun");
  const runs = new Set(vmruns.slice(1).map((group) => group.start));
  const tracepoint = (name: string, text: RegExp) =>
    record.events.findIndex((event) =>
      "tracepoint" in event && event.tracepoint === name && text.test(event.text)
    );
  const turn = (n: number) => {
    const first = groups.findIndex((group) => group === vmruns[n]);
    const next = groups.find((group, i) =>
      i > first && (group.at === "vmrun" || group.at === "rsm")
    );
    return first < 0 ? end : next?.start ?? end;
  };
  const stopped = record.mid?.guest_mode === 1;
  if (entry === "mid" || entry === "migrate") {
    const port = tracepoint("kvm_nested_vmexit", PORT_EXIT);
    const set = groups.find(({ at }) => at === "setstate");
    const before = Math.min(set?.start ?? end, turn(0));
    const mid = !stopped ? before : port < 0 ? vmruns[0]?.end ?? 0 : port + 1;
    return { mid, smm: end, restored: Math.max(set?.end ?? mid, mid), runs };
  }
  if (stopped) {
    const exit = tracepoint("kvm_nested_vmexit_inject", SMI_EXIT);
    const mid = exit < 0 ? end : exit;
    const after = groups.find((group) => group.end > mid);
    return { mid, smm: after?.end ?? end, restored: end, runs };
  }
  const mid = turn(0);
  return { mid, smm: record.smm?.smm === 1 ? mid : turn(1), restored: end, runs };
}
