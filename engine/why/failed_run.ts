/**
 * Finding, in a trace, the VMRUN that a question is about: the one that holds an event, or the last
 * that failed.
 *
 * @module
 */
import type { EventOf, Image, TraceEvent } from "../event.ts";
import { copyImage, fieldNamed, readField } from "../image/fields.ts";
import { capabilitiesOf } from "../replay/session_machine.ts";
import { recordedPolicy } from "../replay/context.ts";
import { showsTransitions } from "../replay/logged_runs.ts";
import type { Capabilities } from "../svm/machine.ts";
import { PerVcpu } from "../per_vcpu.ts";
import { VMCB_LAYOUT, VMCB_SIZE } from "../svm/vmcb_fields.ts";

/** A consistency check that failed, as it was recorded. */
export interface RecordedCheck {
  /** Number of its event. */
  readonly event: number;
  /** Stable id, where the text is known. */
  readonly id: string | undefined;
  /** The kernel's own text. */
  readonly text: string;
}

/** What L1 received. */
export interface FoundExit {
  /** Number of its event. */
  readonly event: number;
  /** vmcb12 as written, as far as it was seen. */
  readonly vmcb12: Image | undefined;
  /** L1's registers after it. */
  readonly regs: Image | undefined;
}

/** One way into L2 that was taken, with what the trace shows of it. */
export interface FoundRun {
  /** Number of the event that it began with. */
  readonly event: number;
  /** Number of its last event. */
  readonly last: number;
  /** Number of the event with which its session began; 0 without one. */
  readonly session: number;
  /** vCPU. */
  readonly vcpu: number;
  /** How L2 was to be entered. */
  readonly way: "vmrun" | "rsm" | "setstate";
  /** What the processor and the hypervisor can do. */
  readonly caps: Capabilities;
  /** Name of the policy or kernel that it was recorded under, if the session tells. */
  readonly recorded: string | undefined;
  /** The recording shows single transitions, not all inputs, so that it cannot be carried out again. */
  readonly partial: boolean;
  /** Scenario under way, if there is one. */
  readonly scenario: string | undefined;
  /** Its changes to the base, if there is one. */
  readonly spec: string | undefined;
  /** Address after the VMRUN. */
  readonly rip: bigint | undefined;
  /** Guest physical address of vmcb12. */
  readonly gpa: bigint | undefined;
  /** vmcb12 before it, as far as it was seen. */
  readonly vmcb12: Image;
  /** L1's registers before it, as far as they were seen. */
  readonly regs: Image | undefined;
  /** The check that failed, if the trace shows one. */
  readonly check: RecordedCheck | undefined;
  /** Exit code that L1 found in vmcb12 afterwards; undefined when that was not seen. */
  readonly exitCode: bigint | undefined;
  /** vmcb12 as L1 received it, and L1's registers then; undefined when no #VMEXIT was seen. */
  readonly exit: FoundExit | undefined;
  /** errno of KVM_SET_NESTED_STATE, of a restore. */
  readonly errno: number | undefined;
}

/** All of {@linkcode FoundRun} that changes while events come in. */
type Draft = { -readonly [K in keyof FoundRun]: FoundRun[K] };

/** What is known of a vCPU. */
interface Seen {
  session: number;
  caps: Capabilities;
  recorded: string | undefined;
  partial: boolean;
  scenario: string | undefined;
  spec: string | undefined;
  open: Draft | undefined;
  /** Pages that were seen last, by address: what vmcb12 holds where no event shows it. */
  gpa: bigint | undefined;
  page: Image | undefined;
}

function unseen(): Seen {
  return {
    session: 0,
    caps: capabilitiesOf(undefined),
    recorded: undefined,
    partial: false,
    scenario: undefined,
    spec: undefined,
    open: undefined,
    gpa: undefined,
    page: undefined,
  };
}

const UNSEEN: Image = { bytes: new Uint8Array(VMCB_SIZE), known: new Uint8Array(VMCB_SIZE) };
const EXIT_CODE = fieldNamed(VMCB_LAYOUT, "control.exit_code");
const EXIT_CODE_HI = fieldNamed(VMCB_LAYOUT, "control.exit_code_hi");

/** VMEXIT_INVALID, in the half that every kernel and processor writes. */
const INVALID = 0xffffffffn;

/** The exit code in a VMCB, as far as it was seen; the high half counts where it is known. */
function exitCodeIn(image: Image | undefined): bigint | undefined {
  if (image === undefined || image.bytes.length !== VMCB_SIZE) return undefined;
  const low = readField(image, EXIT_CODE), high = readField(image, EXIT_CODE_HI);
  if (low.known !== 0xffffffffn) return undefined;
  return high.known === 0xffffffffn ? high.value << 32n | low.value : low.value;
}

/**
 * Whether a run failed: a check of it did, L1 found VMEXIT_INVALID, or the restore was refused.
 *
 * @param run The run.
 * @returns Whether it did, as far as the trace shows.
 */
export function runFailed(run: FoundRun): boolean {
  return run.check !== undefined || (run.errno ?? 0) !== 0 ||
    run.exitCode !== undefined && (run.exitCode & INVALID) === INVALID;
}

/**
 * Goes through a trace and keeps the run that is asked for.
 *
 * @example
 * ```ts
 * import { builtinScenarios, recordScenarios } from "@vmtape/vmtape/traces";
 * import { FailureFinder, UNIFIED } from "@vmtape/vmtape/engine";
 * const finder = new FailureFinder(undefined);
 * for await (const event of recordScenarios(builtinScenarios("gif-left-set"), UNIFIED)) {
 *   finder.feed(event);
 * }
 * if (finder.finish()?.check?.id !== "asid-zero") throw new Error();
 * ```
 */
export class FailureFinder {
  readonly #event: number | undefined;
  readonly #vcpus = new PerVcpu<Seen>(unseen);
  #index = 0;
  #found: FoundRun | undefined;
  #failures = 0;
  #runs = 0;

  /**
   * Begins before the trace's first event.
   *
   * @param event Number of an event: the run that it is part of; the last that failed when left out.
   */
  constructor(event: number | undefined) {
    this.#event = event;
  }

  /** Runs so far, and how many of them failed. */
  get counts(): { readonly runs: number; readonly failures: number } {
    return { runs: this.#runs, failures: this.#failures };
  }

  /** Whether later events do not matter. */
  get done(): boolean {
    return this.#event !== undefined && this.#found !== undefined;
  }

  /**
   * Takes the next event of the trace.
   *
   * @param event The event; its images need to be valid only during the call.
   */
  feed(event: TraceEvent): void {
    const index = this.#index++;
    const seen = this.#vcpus.of(event.vcpu ?? 0);
    switch (event.kind) {
      case "session":
        this.#close(seen);
        seen.session = index;
        seen.caps = capabilitiesOf(event.meta);
        seen.recorded = recordedPolicy(event);
        seen.partial = showsTransitions(event.meta);
        seen.scenario =
          seen.spec =
          seen.page =
          seen.gpa =
            undefined;
        return;
      case "case":
        this.#close(seen);
        seen.scenario = event.name;
        seen.spec = event.spec;
        return;
      case "memory":
        if (event.gpa !== undefined && event.gpa === seen.gpa && event.data !== undefined) {
          seen.page = copyImage(event.data);
        }
        return;
      case "vmrun":
        this.#close(seen);
        this.#open(seen, event.vcpu ?? 0, index, "vmrun", event);
        return;
      case "rsm":
        this.#close(seen);
        this.#open(seen, event.vcpu ?? 0, index, "rsm");
        return;
      case "setstate":
        this.#close(seen);
        this.#restore(seen, event, index);
        return;
    }
    this.#outcome(seen, event, index);
  }

  /**
   * Ends the trace.
   *
   * @returns The run; undefined when there is none.
   */
  finish(): FoundRun | undefined {
    for (const seen of this.#vcpus.values()) this.#close(seen);
    return this.#found;
  }

  #outcome(seen: Seen, event: TraceEvent, index: number): void {
    if (event.kind === "check" && (seen.open === undefined || seen.open.check !== undefined)) {
      // A kernel may refuse a VMRUN before it says anything of it.
      this.#close(seen);
      this.#open(seen, event.vcpu ?? 0, index, "vmrun");
    }
    const run = seen.open;
    if (run === undefined) return;
    if (event.kind === "check") {
      run.check = { event: index, id: event.check, text: event.text ?? event.check ?? "" };
    } else if (event.kind === "exit" || event.kind === "regs") {
      if (event.vcpu === run.vcpu) run.exitCode = exitCodeIn(event.vmcb12) ?? run.exitCode;
      run.last = index;
      if (event.kind !== "exit") return;
      run.exit = {
        event: index,
        vmcb12: event.vmcb12 && copyImage(event.vmcb12),
        regs: event.regs && copyImage(event.regs),
      };
      this.#close(seen);
      return;
    } else if (event.kind === "lost") {
      this.#close(seen);
      return;
    }
    run.last = index;
  }

  #open(
    seen: Seen,
    vcpu: number,
    index: number,
    way: FoundRun["way"],
    vmrun?: EventOf<"vmrun">,
  ): Draft {
    if (vmrun?.vmcb12_gpa !== undefined) {
      if (vmrun.vmcb12_gpa !== seen.gpa) seen.page = undefined;
      seen.gpa = vmrun.vmcb12_gpa;
    }
    if (vmrun?.vmcb12 !== undefined) seen.page = copyImage(vmrun.vmcb12);
    const { session, caps, recorded, partial, scenario, spec } = seen;
    const known = way === "vmrun" && vmrun === undefined ? undefined : seen.page;
    return seen.open = {
      ...{ event: index, last: index, session, vcpu, way, caps, recorded, partial, scenario, spec },
      rip: vmrun?.rip,
      gpa: vmrun?.vmcb12_gpa ?? (way === "rsm" ? seen.gpa : undefined),
      vmcb12: known ?? UNSEEN,
      regs: vmrun?.regs && copyImage(vmrun.regs),
      check: undefined,
      exitCode: undefined,
      exit: undefined,
      errno: undefined,
    };
  }

  #restore(seen: Seen, event: EventOf<"setstate">, index: number): void {
    const run = this.#open(seen, event.vcpu ?? 0, index, "setstate");
    run.gpa = event.vmcb_pa;
    run.errno = event.errno;
    run.vmcb12 = event.state === undefined ? UNSEEN : copyImage(event.state);
  }

  #close(seen: Seen): void {
    const run = seen.open;
    seen.open = undefined;
    if (run === undefined || this.done) return;
    this.#runs++;
    const failed = runFailed(run);
    if (failed) this.#failures++;
    if (this.#event === undefined ? failed : run.event <= this.#event && this.#event <= run.last) {
      this.#found = run;
    }
  }
}
