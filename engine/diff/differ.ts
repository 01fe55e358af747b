/**
 * Running a trace under several policies side by side, and telling where they
 * end up differently and which step parted them.
 *
 * @module
 */
import type { TraceEvent } from "../event.ts";
import type { Policy, Way } from "../policy.ts";
import { diffImages } from "../image/diff.ts";
import { MAPPED_AT, STATE_SIZE } from "../svm/machine.ts";
import { VMCB_SIZE } from "../svm/vmcb_fields.ts";
import type { Vcpu } from "../kvm/vcpu.ts";
import { Driver } from "../replay/drive.ts";
import { areaImage, type AreaName, AREAS } from "./areas.ts";
import { type Place, type Report, TransitionLog } from "./transitions.ts";

/** One field that two policies leave different. */
export interface FieldDifference {
  /** The part of the state. */
  readonly area: AreaName;
  /** The field. */
  readonly field: string;
  /** Its value under the first policy, bits decoded by name. */
  readonly a: string;
  /** Its value under the other. */
  readonly b: string;
  /** Names of the bits that differ, where they have names. */
  readonly bits: readonly string[];
  /** The step that wrote it last under the first policy; undefined when none did in this run. */
  readonly stepA: string | undefined;
  /** The same under the other. */
  readonly stepB: string | undefined;
  /** It already differed before this run, and no step wrote it: the cause is an earlier run. */
  readonly carried: boolean;
}

/** Where two policies' steps first part. */
export interface Parting {
  /** The step before, which both ran; empty at the very beginning. */
  readonly after: string;
  /** The step that follows under the first policy; empty when it was at its end. */
  readonly a: string;
  /** The step that follows under the other. */
  readonly b: string;
  /** The way into or out of L2 in which they part; empty when they do not. */
  readonly way: Way | "";
  /** The check that failed, if one did under either policy. */
  readonly check: string | undefined;
}

/** One run that ends up differently under two policies. */
export interface RunDifference {
  /** Number of the event that began the run: a VMRUN or a restore. */
  readonly event: number;
  /** Number of the run, from 0. */
  readonly run: number;
  /** Name of the scenario, when the trace names it. */
  readonly scenario: string | undefined;
  /** Its spec, when the trace has it. */
  readonly spec: string | undefined;
  /** Names of the two policies. */
  readonly policies: readonly [string, string];
  /** Fields that differ. */
  readonly fields: readonly FieldDifference[];
  /** Failed checks and broken assertions under each, when they differ. */
  readonly reports: readonly [readonly Report[], readonly Report[]] | undefined;
  /** Where the steps part. */
  readonly parting: Parting;
}

/** What a comparison of policies found. */
export interface DiffResult {
  /** Names of the policies. */
  readonly policies: readonly string[];
  /** Events read. */
  readonly events: number;
  /** Runs carried out under each policy. */
  readonly runs: number;
  /** Runs that end up differently, for each policy after the first. */
  readonly different: readonly number[];
  /** Runs whose inputs are not in the trace. */
  readonly skipped: number;
}

interface Side {
  readonly driver: Driver;
  readonly log: TransitionLog;
}

/** Runs a trace under several policies and compares each with the first. */
export class Differ {
  readonly #sides: readonly Side[];
  readonly #report: (difference: RunDifference) => void;
  readonly #different: number[];
  #index = 0;
  #runs = 0;
  #skipped = 0;
  #inUnit = false;
  #unitAt = 0;
  #vmcb12 = 0;
  #scenario: string | undefined;
  #spec: string | undefined;
  #startSame: boolean[] = [];

  /**
   * @param policies Two or more; each is compared with the first.
   * @param report Receives every run that ends up differently.
   */
  constructor(policies: readonly Policy[], report: (difference: RunDifference) => void) {
    this.#sides = policies.map((policy) => {
      const log = new TransitionLog();
      const driver = new Driver(policy);
      driver.observer = log.observer;
      return { driver, log };
    });
    this.#report = report;
    this.#different = policies.slice(1).map(() => 0);
  }

  /**
   * Takes the next event of the trace.
   *
   * @param event The event; its images need to be valid only during the call.
   * @throws {ReplayError} When an input lacks what is needed to carry it out.
   */
  feed(event: TraceEvent): void {
    const index = this.#index++;
    switch (event.kind) {
      case "vmrun":
        if (event.regs === undefined) {
          if (!this.#inUnit) this.#skipped++;
          return;
        }
        this.#begin(index, Number((event.vmcb12_gpa ?? 0n) & ~0xfffn));
        break;
      case "setstate":
        this.#begin(index, Number((event.vmcb_pa ?? 0n) & ~0xfffn));
        break;
      case "case":
        this.#endUnit();
        this.#scenario = event.name;
        this.#spec = event.spec;
        break;
      case "session":
        this.#endUnit();
        break;
      case "regs":
        this.#look(event.phase ?? "post");
        return;
      default:
        break;
    }
    for (const { driver } of this.#sides) driver.feed(event, index);
  }

  /**
   * Ends the trace.
   *
   * @returns What was found.
   */
  finish(): DiffResult {
    this.#endUnit();
    return {
      policies: this.#sides.map((side) => side.driver.policy.name),
      events: this.#index,
      runs: this.#runs,
      different: this.#different,
      skipped: this.#skipped,
    };
  }

  #begin(index: number, vmcb12: number): void {
    this.#endUnit();
    this.#inUnit = true;
    this.#unitAt = index;
    this.#vmcb12 = vmcb12;
    this.#runs++;
    const first = this.#sides[0]?.driver.vcpu;
    this.#startSame = this.#sides.map(({ driver, log }) => {
      log.reset(vmcb12);
      return first === undefined || driver.vcpu === undefined || sameBytes(first, driver.vcpu);
    });
  }

  /** Userspace looks: at the points where it has a turn, the vCPU must have run. */
  #look(phase: string): void {
    if (phase === "pre" || !this.#inUnit) return;
    for (const { driver } of this.#sides) {
      if (!driver.ran) driver.run();
      driver.ran = false;
    }
  }

  #endUnit(): void {
    if (!this.#inUnit) return;
    this.#inUnit = false;
    const [first, ...others] = this.#sides;
    if (first === undefined) return;
    others.forEach((other, i) => {
      const difference = this.#compare(first, other, this.#startSame[i + 1] ?? true);
      if (difference === undefined) return;
      this.#different[i] = (this.#different[i] ?? 0) + 1;
      this.#report(difference);
    });
  }

  #compare(a: Side, b: Side, startSame: boolean): RunDifference | undefined {
    const va = a.driver.vcpu as Vcpu, vb = b.driver.vcpu as Vcpu;
    const reportsSame = sameReports(a.log.reports, b.log.reports);
    const pageSame = samePage(va, vb, this.#vmcb12);
    if (reportsSame && pageSame && sameBytes(va, vb)) return undefined;
    const rows = AREAS.flatMap((area) =>
      diffImages(
        area.layout,
        areaImage(area, va, this.#vmcb12),
        areaImage(area, vb, this.#vmcb12),
        { onlyKnown: true },
      ).filter((row) => !(area.omit?.has(row.field) ?? false)).map((row) => ({ area, row }))
    );
    if (rows.length === 0 && reportsSame) return undefined;
    const places: Place[] = rows.map(({ area, row }) => placeOf(area.name, area.at, row));
    const writersA = a.log.lastWriters(va, places);
    const writersB = b.log.lastWriters(vb, places);
    const fields = rows.map(({ area, row }, i): FieldDifference => ({
      area: area.name,
      field: row.field,
      a: row.aText,
      b: row.bText,
      bits: row.bits.filter((bit) => bit.verdict === "differs").map((bit) => bit.name),
      stepA: writersA[i],
      stepB: writersB[i],
      carried: !startSame && writersA[i] === undefined && writersB[i] === undefined,
    }));
    return {
      event: this.#unitAt,
      run: this.#runs - 1,
      scenario: this.#scenario,
      spec: this.#spec,
      policies: [a.driver.policy.name, b.driver.policy.name],
      fields,
      reports: reportsSame ? undefined : [[...a.log.reports], [...b.log.reports]],
      parting: partingOf(a.log, b.log),
    };
  }
}

function sameBytes(a: Vcpu, b: Vcpu): boolean {
  const x = a.words, y = b.words;
  for (let i = 0; i < STATE_SIZE / 4; i++) if (x[i] !== y[i]) return false;
  return true;
}

function samePage(a: Vcpu, b: Vcpu, gpa: number): boolean {
  if (!a.memory.backed(gpa, VMCB_SIZE)) return true;
  const x = a.memory.page(gpa), y = b.memory.page(gpa);
  for (let i = 0; i < VMCB_SIZE; i++) if (x[i] !== y[i]) return false;
  return true;
}

function sameReports(a: readonly Report[], b: readonly Report[]): boolean {
  return a.length === b.length && a.every((report, i) => report.text === b[i]?.text);
}

/** Where in the machine's bytes a differing field is, so that its last writer can be found. */
function placeOf(
  name: AreaName,
  base: number | undefined,
  row: { readonly field: string; readonly offset: number; readonly size: number },
): Place {
  if (base !== undefined) return { at: base + row.offset, size: row.size };
  if (name === "vmcb12") return { at: MAPPED_AT + row.offset, size: row.size };
  const shown = VIEW_PLACES[`${name}.${row.field}`];
  return shown ?? { at: 0, size: 0 };
}

/** Computed fields, and what of the machine they come from. */
const VIEW_PLACES: Readonly<Record<string, Place>> = viewPlaces();

function viewPlaces(): Record<string, Place> {
  const places: Record<string, Place> = {};
  const vcpu = AREAS.find((area) => area.name === "vcpu")?.layout.fields ?? [];
  const at = (name: string) => {
    const field = vcpu.find((row) => row.name === name);
    return field === undefined ? undefined : { at: field.offset, size: field.size };
  };
  const same = ["vmcb12_gpa", "last_vmcb12_gpa", "run_pending", "mmu", "msrpm_recalc", "active"];
  const named: Record<string, string> = {
    "nested.walk": "walk_mmu",
    "nested.cpu_role": "root_cpu_role",
    "nested.root_role": "root_root_role",
    "nested.gcpu_role": "guest_cpu_role",
    "nested.groot_role": "guest_root_role",
    "nested.ncpu_role": "nested_cpu_role",
    "nested.req": "requests",
    "nested.exc_pend": "exception_pending",
    "nested.exc_inj": "exception_injected",
    "nested.exc_vec": "exception_vector",
    "nested.int_inj": "interrupt_injected",
    "nested.nmi_inj": "nmi_injected",
    "nested.nmi_l1l2": "nmi_l1_to_l2",
    "nested.soft": "soft_int_injected",
    "nested.guest_mode": "hflags",
  };
  for (const name of same) named[`nested.${name}`] = name;
  for (const area of AREAS) {
    if (area.name !== "L1") continue;
    for (const field of area.layout.fields) named[`L1.${field.name}`] ??= field.name;
  }
  for (const [key, name] of Object.entries(named)) {
    const place = at(name);
    if (place !== undefined) places[key] = place;
  }
  const vmcb01 = AREAS.find((area) => area.name === "vmcb01");
  const base = vmcb01?.at ?? 0;
  const control = (name: string) =>
    vmcb01?.layout.fields.find((field) => field.name === `control.${name}`)?.offset ?? 0;
  places["nested.gif"] = { at: base + control("int_ctl"), size: 4 };
  places["nested.msrpm01"] = { at: base + control("msrpm_base_pa"), size: 8 };
  const vmcb02 = AREAS.find((area) => area.name === "vmcb02")?.at ?? 0;
  places["nested.msrpm02"] = { at: vmcb02 + control("msrpm_base_pa"), size: 8 };
  return places;
}

/** The way of the transition that holds the n-th step of a run. */
function wayAt(log: TransitionLog, n: number): Way | "" {
  let left = n;
  for (const transition of log.transitions) {
    if (left < transition.steps.length) return transition.way;
    left -= transition.steps.length;
  }
  return "";
}

function partingOf(a: TransitionLog, b: TransitionLog): Parting {
  const x = a.transitions.flatMap((transition) => transition.steps);
  const y = b.transitions.flatMap((transition) => transition.steps);
  let i = 0;
  while (i < x.length && i < y.length && x[i] === y[i]) i++;
  const failed = (log: TransitionLog) => log.reports.find((report) => report.kind === "check")?.id;
  return {
    after: x[i - 1]?.name ?? "",
    a: x[i]?.name ?? "",
    b: y[i]?.name ?? "",
    way: wayAt(a, i) || wayAt(b, i),
    check: failed(a) ?? failed(b),
  };
}
