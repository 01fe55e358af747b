/**
 * What a recording shows of one scenario, or of one VMRUN where it names no scenarios.
 *
 * @module
 */
import type { Incident } from "../diff/transitions.ts";
import type { AreaName } from "../diff/areas.ts";
import type { Moment, RunEnd } from "../diff/run_difference.ts";
import type { Image, TraceEvent } from "../event.ts";
import { copyImage, fieldNamed, readField } from "../image/fields.ts";
import { KVM_EXIT } from "../kvm/constants.ts";
import { ReplayError } from "../replay/replay_error.ts";
import { capabilitiesOf } from "../replay/session_machine.ts";
import { hostVmcbMask } from "../replay/views.ts";
import { VmtapeError } from "../error.ts";
import { PerVcpu } from "../per_vcpu.ts";
import { shortTexts } from "../short_texts.ts";
import { REGS_LAYOUT } from "../svm/regs_layout.ts";
import { VMCB_SIZE } from "../svm/vmcb_fields.ts";

/** A part of the state at some moment of a run. */
export interface RecordedPart {
  /** Which part. */
  readonly area: AreaName;
  /** When: the first that differs in a field tells. */
  readonly moment: Moment | undefined;
  /** The part, as far as it was seen; what only means something on the machine that was recorded is unknown. */
  readonly image: Image;
}

/** What a run is known by, without what is in it. */
export interface RunOutline {
  /** Number of its first event. */
  readonly event: number;
  /** vCPU. */
  readonly vcpu: number;
  /** Its scenario, if the recording names it. */
  readonly scenario: string | undefined;
  /** The scenario's changes to the base. */
  readonly spec: string | undefined;
  /** What stands for the same in another recording, from the most particular to the least. */
  readonly signs: readonly string[];
}

/** One run of a recording. */
export interface RecordedRun extends RunOutline {
  /** Failed checks and broken assertions. */
  readonly reports: readonly Incident[];
  /** Parts of the state, in the order in which they were seen. */
  readonly parts: readonly RecordedPart[];
  /** How it ended, where that was seen. */
  readonly end: RunEnd;
  /** Events were lost within it, so that what it lacks says nothing. */
  readonly broken: boolean;
}

type Draft = { -readonly [K in keyof RecordedRun]: RecordedRun[K] } & {
  reports: Incident[];
  parts: RecordedPart[];
};

const GUEST_MODE = fieldNamed(REGS_LAYOUT, "guest_mode");

function endOf(event: Extract<TraceEvent, { kind: "regs" }>): RunEnd {
  const { rc, exit, regs } = event;
  const inL2 = regs?.bytes.length === REGS_LAYOUT.size && readField(regs, GUEST_MODE).value === 1n;
  if (rc !== undefined && rc !== 0) return inL2 ? "loops in L2" : "loops in L1";
  if (exit === KVM_EXIT.SHUTDOWN) return "shuts down";
  if (exit === KVM_EXIT.INTERNAL_ERROR) return "ends in an internal error";
  return inL2 ? "goes on in L2" : "goes on in L1";
}

/** Runs of a recording that can be aligned with another's: more would take more than 512 MiB. */
const MOST_RUNS = 600_000;
/** Signs that are kept to be shared. */
const MOST_SIGNS = 100_000;
/** Reports, and parts of the state, that one run has at most: recorded runs have a few dozen. */
const MOST_OF_RUN = 1024;

/**
 * A recording that is too long to be aligned.
 *
 * @example
 * ```ts
 * import { TooManyRunsError } from "@vmtape/vmtape/engine";
 * if (!new TooManyRunsError().message.includes("vmtape cut")) throw new Error();
 * ```
 */
export class TooManyRunsError extends VmtapeError {
  /** Name of the class, for those who cannot use instanceof. */
  override readonly name = "TooManyRunsError";

  /** Says how many there may be. */
  constructor() {
    super(
      `A recording of more than ${MOST_RUNS} VMRUNs is too long to be aligned: ` +
        "compare a part of it, see vmtape cut",
    );
  }
}

/** A vCPU of a recording. */
interface Seen {
  npt: boolean;
  open: Draft | undefined;
  named: boolean;
  /** Whether a check failed in the open run. */
  failed: boolean;
}

function bounded(list: readonly unknown[], index: number): void {
  if (list.length <= MOST_OF_RUN) return;
  throw new ReplayError(`More than ${MOST_OF_RUN} outcomes are of one run`, index);
}

/**
 * Puts the runs of a recording together.
 *
 * @example
 * ```ts
 * import { builtinScenarios, recordScenarios } from "@vmtape/vmtape/traces";
 * import { RecordedRuns, UNIFIED } from "@vmtape/vmtape/engine";
 * const names: unknown[] = [];
 * const runs = new RecordedRuns((run) => names.push(run.scenario, run.reports[0]?.id));
 * for await (const event of recordScenarios(builtinScenarios("gif-left-set"), UNIFIED)) {
 *   runs.feed(event);
 * }
 * runs.finish();
 * if (names.join() !== "gif-left-set,asid-zero") throw new Error(names.join());
 * ```
 */
export class RecordedRuns {
  readonly #done: (run: RecordedRun) => void;
  readonly #vcpus = new PerVcpu<Seen>(() => ({
    npt: true,
    open: undefined,
    named: false,
    failed: false,
  }));
  /** One text for each sign, however many runs have it. */
  readonly #signs = new Map<string, readonly string[]>();
  #runs = 0;
  readonly #outlines: boolean;
  #index = 0;

  /**
   * Begins before the recording's first event.
   *
   * @param done Receives every run once it is complete.
   * @param outlines Whether only outlines are wanted: then runs have no parts.
   */
  constructor(done: (run: RecordedRun) => void, outlines = false) {
    this.#done = done;
    this.#outlines = outlines;
  }

  /**
   * Takes the next event.
   *
   * @param given The event; its images need to be valid only during the call.
   */
  feed(given: TraceEvent): void {
    const event = shortTexts(given);
    const index = this.#index++;
    const number = event.vcpu ?? 0;
    const seen = this.#vcpus.of(number);
    switch (event.kind) {
      case "session":
        this.#close(seen);
        seen.npt = capabilitiesOf(event.meta).npt;
        seen.named = false;
        return;
      case "case":
        this.#close(seen);
        seen.named = true;
        this.#open(seen, number, index, event.name, event.spec, [event.name ?? ""]);
        return;
      case "vmrun": {
        if (seen.named) return;
        this.#close(seen);
        const { rip = 0n, vmcb12_gpa = 0n } = event;
        const place = (rip & 0xfffn).toString(16);
        this.#open(seen, number, index, undefined, undefined, [
          `${rip.toString(16)} ${vmcb12_gpa.toString(16)}`,
          place,
          "vmrun",
        ]);
        return;
      }
    }
    this.#outcome(seen, event, index);
  }

  /** Ends the recording. */
  finish(): void {
    for (const seen of this.#vcpus.values()) this.#close(seen);
  }

  #open(
    seen: Seen,
    vcpu: number,
    event: number,
    scenario: string | undefined,
    spec: string | undefined,
    signs: readonly string[],
  ): Draft {
    if (++this.#runs > MOST_RUNS) throw new TooManyRunsError();
    const key = signs.join("|");
    const shared = this.#signs.get(key) ?? signs;
    if (this.#signs.size < MOST_SIGNS) this.#signs.set(key, shared);
    seen.failed = false;
    return seen.open = {
      ...{ event, vcpu, scenario, spec, signs: shared },
      reports: [],
      parts: [],
      end: "goes on in L1",
      broken: false,
    };
  }

  #outcome(seen: Seen, event: TraceEvent, index: number): void {
    if (event.kind === "check" && !seen.named && seen.open?.reports.length !== 0) {
      // A kernel may refuse a VMRUN before it says anything of it.
      this.#close(seen);
      this.#open(seen, event.vcpu ?? 0, index, undefined, undefined, ["refused", "vmrun", "vmrun"]);
    }
    const run = seen.open;
    if (run === undefined) return;
    const add = (area: AreaName, image: Image | undefined, moment: Moment | undefined) => {
      if (image === undefined || this.#outlines) return;
      run.parts.push({ area, moment, image: copyImage(image) });
      bounded(run.parts, index);
    };
    const report = (incident: Incident) => {
      run.reports.push(incident);
      bounded(run.reports, index);
    };
    // Not by a look at all reports: that would take ever longer.
    const { failed } = seen;
    switch (event.kind) {
      case "check":
        report({
          kind: "check",
          id: event.check ?? "",
          text: event.text ?? event.check ?? "",
          way: "vmrun",
        });
        seen.failed = true;
        break;
      case "warn":
        report({ kind: "warn", id: "", text: event.text ?? "", way: "" });
        break;
      case "lost":
        run.broken = true;
        break;
      case "exit":
        add("vmcb12", event.vmcb12, failed ? "failed check" : "#VMEXIT");
        add("L1", event.regs, failed ? "failed check" : "#VMEXIT");
        if (!seen.named) this.#close(seen);
        break;
      case "inner": {
        const moment = event.at === "vmexit" ? "#VMEXIT" : failed ? "failed check" : "entry";
        add("nested", event.inner, moment);
        add("vmcb01", hostFree(event.vmcb01, seen.npt), moment);
        add("vmcb02", hostFree(event.vmcb02, seen.npt), moment);
        break;
      }
      case "regs":
        if (event.phase === "pre") break;
        add("L1", event.regs, failed ? "failed check" : "#VMEXIT");
        add("vmcb12", event.vmcb12, failed ? "failed check" : "#VMEXIT");
        if (event.phase === "post") run.end = endOf(event);
        break;
    }
  }

  #close(seen: Seen): void {
    const run = seen.open;
    seen.open = undefined;
    if (run !== undefined) this.#done(run);
  }
}

/** A VMCB of the hypervisor's without the words that only mean something on its own machine. */
function hostFree(image: Image | undefined, npt: boolean): Image | undefined {
  if (image === undefined || image.bytes.length !== VMCB_SIZE) return image;
  const known = hostVmcbMask(npt).slice();
  for (let i = 0; i < known.length; i++) known[i]! &= image.known?.[i] ?? 0xff;
  return { bytes: image.bytes, known };
}
