/**
 * Comparing two vCPUs after a run, part of the state by part.
 *
 * @module
 */
import { Buffer } from "node:buffer";
import type { Image } from "../event.ts";
import { diffImages, type FieldDiff } from "../image/diff.ts";
import { KVM_EXIT } from "../kvm/constants.ts";
import type { Vcpu } from "../kvm/vcpu.ts";
import { END, OK, type Step, type Way } from "../policy.ts";
import { checkGroupOf } from "../checks/sets.ts";
import { MACHINE_SIZE, STATE_SIZE } from "../svm/machine.ts";
import { VMCB_SIZE } from "../svm/vmcb_fields.ts";
import { type Area, AREAS } from "./areas.ts";
import type { Moment, Parting, RunEnd } from "./run_difference.ts";
import type { Incident, Transition, TransitionLog } from "./transitions.ts";

/** A field that differs, with the part of the state that it is in. */
export interface Row {
  readonly area: Area;
  readonly row: FieldDiff;
}

/**
 * The fields in which two vCPUs differ.
 *
 * @param a The parts of one's state, in the order of {@linkcode AREAS}.
 * @param b Those of the other's.
 */
export function differingRows(a: readonly Image[], b: readonly Image[]): Row[] {
  const found: Row[] = [];
  for (let i = 0; i < AREAS.length; i++) {
    const area = AREAS[i] as Area;
    for (const row of diffImages(area.layout, a[i] as Image, b[i] as Image, ONLY_KNOWN)) {
      if (area.omit?.has(row.field) !== true) found.push({ area, row });
    }
  }
  return found;
}

const ONLY_KNOWN = { onlyKnown: true };

/** Name of a differing field with its part of the state. */
export function keyOf({ area, row }: Row): string {
  return `${area.name} ${row.field}`;
}

/** How a vCPU's run ended. */
export function endOf(v: Vcpu): RunEnd {
  const { rc, exit } = v.result;
  if (rc !== 0) return v.guestMode ? "loops in L2" : "loops in L1";
  if (exit === KVM_EXIT.SHUTDOWN) return "shuts down";
  if (exit === KVM_EXIT.INTERNAL_ERROR) return "ends in an internal error";
  return v.guestMode ? "goes on in L2" : "goes on in L1";
}

/** The kind of transition a step was part of, as it went. */
export function momentOf({ way, outcome }: Transition, log: TransitionLog): Moment {
  switch (way) {
    case "vmrun": {
      if (outcome === OK) return "entry";
      if (outcome === END) return "refused";
      const check = log.reports.find((report) => report.kind === "check")?.id ?? "";
      return checkGroupOf(check) === "cr3" ? "late failure" : "failed check";
    }
    case "rsm":
      return outcome === OK ? "RSM" : "failed RSM";
    case "setstate":
      return outcome === OK ? "restore" : "failed restore";
    case "pages":
      return "pages";
    case "vmexit":
      return "#VMEXIT";
  }
}

/** Whether all state, the hypervisor's page tables and vmcb12 are the same at the start of a run. */
export function sameState(a: Vcpu, b: Vcpu, vmcb12: number): boolean {
  return sameBytes(a, b) && samePage(a, b, vmcb12) &&
    Buffer.compare(a.bytes.subarray(MACHINE_SIZE), b.bytes.subarray(MACHINE_SIZE)) === 0;
}

/** Whether the modelled state of two vCPUs is the same, memory aside. */
export function sameBytes(a: Vcpu, b: Vcpu): boolean {
  const x = a.bytes.subarray(0, STATE_SIZE), y = b.bytes.subarray(0, STATE_SIZE);
  return Buffer.compare(x, y) === 0;
}

/** Whether a page of guest memory is the same for two vCPUs. */
export function samePage(a: Vcpu, b: Vcpu, gpa: number): boolean {
  if (!a.memory.backed(gpa, VMCB_SIZE)) return true;
  return Buffer.compare(a.memory.page(gpa), b.memory.page(gpa)) === 0;
}

/** Whether two runs failed the same checks and broke the same assertions. */
export function sameReports(a: readonly Incident[], b: readonly Incident[]): boolean {
  return a.length === b.length && a.every((report, i) => report.text === b[i]?.text);
}

/** Where the steps of two runs part. */
export function partingOf(a: TransitionLog, b: TransitionLog): Parting {
  const x = new StepCursor(a.transitions), y = new StepCursor(b.transitions);
  let after = "";
  while (x.step !== undefined && x.step === y.step) {
    after = x.step.name;
    x.next();
    y.next();
  }
  return {
    after,
    a: x.step?.name ?? "",
    b: y.step?.name ?? "",
    way: x.way || y.way,
    check: failedCheck(a) ?? failedCheck(b),
  };
}

/** Goes through the steps of a run. */
class StepCursor {
  readonly #transitions: readonly Transition[];
  #transition = 0;
  #at = 0;

  constructor(transitions: readonly Transition[]) {
    this.#transitions = transitions;
    this.#settle();
  }

  /** The step; undefined behind the last. */
  get step(): Step | undefined {
    return this.#transitions[this.#transition]?.steps[this.#at];
  }

  /** The way of the transition that holds it. */
  get way(): Way | "" {
    return this.#transitions[this.#transition]?.way ?? "";
  }

  next(): void {
    this.#at++;
    this.#settle();
  }

  #settle(): void {
    const all = this.#transitions;
    while (this.#at === all[this.#transition]?.steps.length) {
      this.#transition++;
      this.#at = 0;
    }
  }
}

function failedCheck({ reports }: TransitionLog): string | undefined {
  return reports.find((report) => report.kind === "check")?.id;
}
