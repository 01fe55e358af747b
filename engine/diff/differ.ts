/**
 * Running a trace under several policies side by side, and telling where they
 * end up differently and which step parted them.
 *
 * @module
 */
import { Buffer } from "node:buffer";
import type { TraceEvent } from "../event.ts";
import { END, OK, type Policy, type Way } from "../policy.ts";
import { diffImages, type FieldDiff } from "../image/diff.ts";
import { CHECK_SETS } from "../svm/checks.ts";
import { MACHINE_SIZE, MAPPED_AT, STATE_SIZE } from "../svm/machine.ts";
import { VMCB_SIZE } from "../svm/vmcb_fields.ts";
import { KVM_EXIT } from "../kvm/constants.ts";
import type { Vcpu } from "../kvm/vcpu.ts";
import { Driver } from "../replay/drive.ts";
import { type Area, areaImage, type AreaName, AREAS, CACHE_AT } from "./areas.ts";
import { type Place, type Report, TransitionLog, type Writer } from "./transitions.ts";

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
  /** When the step ran that made the difference; undefined when none did. */
  readonly when: Moment | undefined;
  /**
   * A follow-on: had the second policy begun this run with the first one's state,
   * the field would be the same. The cause is an earlier run.
   */
  readonly carried: boolean;
  /** The run that left the state behind which a follow-on comes from. */
  readonly origin: RunRef | undefined;
}

/** The kind of transition that a difference was made in. */
export type Moment =
  | "entry"
  | "failed check"
  | "late failure"
  | "refused"
  | "#VMEXIT"
  | "RSM"
  | "failed RSM"
  | "restore"
  | "failed restore"
  | "pages";

/** A run of the trace. */
export interface RunRef {
  /** Number of the event that began it. */
  readonly event: number;
  /** Number of the run, from 0. */
  readonly run: number;
  /** Name of its scenario, when the trace names it. */
  readonly scenario: string | undefined;
  /** Its spec, when the trace has it. */
  readonly spec: string | undefined;
}

/** What one policy did in a run. */
export interface RunSide {
  /** The policy. */
  readonly policy: Policy;
  /** The vCPU after the run; not to be changed. */
  readonly vcpu: Vcpu;
  /** Its transitions and reports; to be read before the next event is fed. */
  readonly log: TransitionLog;
}

/** A run as each policy carried it out. */
export interface RunView extends RunRef {
  /** Address of its vmcb12. */
  readonly vmcb12: number;
  /** Each policy's side, in order. */
  readonly sides: readonly RunSide[];
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
export interface RunDifference extends RunRef {
  /** Names of the two policies. */
  readonly policies: readonly [string, string];
  /** Fields that differ. */
  readonly fields: readonly FieldDifference[];
  /** Failed checks and broken assertions under each, when they differ. */
  readonly reports: readonly [readonly Report[], readonly Report[]] | undefined;
  /**
   * The run that left the state behind because of which the reports or the ends
   * differ, when they would not have from the same state.
   */
  readonly reportsOrigin: RunRef | undefined;
  /** How the run ends under each. */
  readonly ends: readonly [RunEnd, RunEnd];
  /** Where the steps part. */
  readonly parting: Parting;
}

/** How a run ends: what KVM_RUN says last, and who was running. */
export type RunEnd =
  | "goes on in L1"
  | "goes on in L2"
  | "loops in L1"
  | "loops in L2"
  | "shuts down"
  | "ends in an internal error";

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

/** What is remembered of one policy beside the first. */
interface Pair {
  /** What the policy does from the first one's state; only while the states at the start differ. */
  shadow: Side | undefined;
  readonly log: TransitionLog;
  /** Where the fields that differ come from. */
  origins: Map<string, RunRef>;
  /** The last run that made a difference of its own. */
  last: RunRef | undefined;
}

/**
 * Runs a trace under several policies and compares each with the first.
 *
 * When an earlier run left the policies in different states, the run is carried
 * out once more under the other policy from the first one's state. What then no
 * longer differs is a follow-on of the earlier run.
 *
 * @example
 * ```ts
 * import { builtinScenarios, recordScenarios } from "@vmtape/vmtape/traces";
 * import { Differ, EARLY_EXIT, UNIFIED } from "@vmtape/vmtape/engine";
 * const found: string[] = [];
 * const differ = new Differ([EARLY_EXIT, UNIFIED], ({ fields }) => {
 *   for (const { area, field, a, b } of fields) found.push(`${area} ${field} ${a} ${b}`);
 * });
 * for await (const event of recordScenarios(builtinScenarios("gif-left-set"), EARLY_EXIT)) {
 *   differ.feed(event);
 * }
 * if (differ.finish().different[0] !== 1) throw new Error();
 * if (!found.includes("nested gif 0x1 0x0")) throw new Error(found.join());
 * ```
 */
export class Differ {
  readonly #sides: readonly Side[];
  readonly #pairs: readonly Pair[];
  readonly #report: (difference: RunDifference) => void;
  readonly #look: ((run: RunView) => void) | undefined;
  readonly #different: number[];
  #index = 0;
  #runs = 0;
  #skipped = 0;
  #inUnit = false;
  #unitAt = 0;
  #vmcb12 = 0;
  #scenario: string | undefined;
  #spec: string | undefined;

  /**
   * Begins before the trace's first event.
   *
   * @param policies Two or more; each is compared with the first.
   * @param report Receives every run that ends up differently.
   * @param look Receives every run, before its differences.
   */
  constructor(
    policies: readonly Policy[],
    report: (difference: RunDifference) => void,
    look?: (run: RunView) => void,
  ) {
    this.#sides = policies.map((policy) => {
      const log = new TransitionLog();
      const driver = new Driver(policy);
      driver.observer = log.observer;
      return { driver, log };
    });
    this.#pairs = policies.slice(1).map(() => ({
      shadow: undefined,
      log: new TransitionLog(),
      origins: new Map(),
      last: undefined,
    }));
    this.#report = report;
    this.#look = look;
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
        for (const pair of this.#pairs) forget(pair);
        break;
      case "regs":
        this.#userspace(event.phase ?? "post");
        return;
      default:
        break;
    }
    for (const driver of this.#drivers()) driver.feed(event, index);
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

  *#drivers(): Generator<Driver> {
    for (const { driver } of this.#sides) yield driver;
    for (const { shadow } of this.#pairs) if (shadow !== undefined) yield shadow.driver;
  }

  #begin(index: number, vmcb12: number): void {
    this.#endUnit();
    this.#inUnit = true;
    this.#unitAt = index;
    this.#vmcb12 = vmcb12;
    this.#runs++;
    for (const { log } of this.#sides) log.reset(vmcb12);
    const first = this.#sides[0]?.driver;
    this.#pairs.forEach((pair, i) => {
      const other = this.#sides[i + 1]?.driver;
      if (first?.vcpu === undefined || other?.vcpu === undefined) return;
      if (sameState(first.vcpu, other.vcpu, vmcb12)) return;
      const driver = first.fork(other.policy);
      driver.observer = pair.log.observer;
      pair.log.reset(vmcb12);
      pair.shadow = { driver, log: pair.log };
    });
  }

  /** Userspace looks: at the points where it has a turn, the vCPU must have run. */
  #userspace(phase: string): void {
    if (phase === "pre" || !this.#inUnit) return;
    for (const driver of this.#drivers()) {
      if (!driver.ran) driver.run();
      driver.ran = false;
    }
  }

  #endUnit(): void {
    if (!this.#inUnit) return;
    this.#inUnit = false;
    const [first, ...others] = this.#sides;
    if (first === undefined) return;
    const ref: RunRef = {
      event: this.#unitAt,
      run: this.#runs - 1,
      scenario: this.#scenario,
      spec: this.#spec,
    };
    this.#look?.({
      ...ref,
      vmcb12: this.#vmcb12,
      sides: this.#sides.map(({ driver, log }) => (
        { policy: driver.policy, vcpu: driver.vcpu as Vcpu, log }
      )),
    });
    others.forEach((other, i) => {
      const pair = this.#pairs[i] as Pair;
      const difference = this.#compare(ref, first, other, pair);
      pair.shadow = undefined;
      if (difference === undefined) return;
      this.#different[i] = (this.#different[i] ?? 0) + 1;
      this.#report(difference);
    });
  }

  #compare(ref: RunRef, a: Side, b: Side, pair: Pair): RunDifference | undefined {
    const va = a.driver.vcpu as Vcpu, vb = b.driver.vcpu as Vcpu;
    const reportsSame = sameReports(a.log.reports, b.log.reports);
    const pageSame = samePage(va, vb, this.#vmcb12);
    if (reportsSame && pageSame && sameBytes(va, vb)) {
      pair.origins.clear();
      return undefined;
    }
    const rows = this.#rows(va, vb);
    if (rows.length === 0 && reportsSame) {
      pair.origins.clear();
      return undefined;
    }
    const { shadow } = pair;
    const ownRows = shadow && new Set(this.#rows(va, shadow.driver.vcpu as Vcpu).map(keyOf));
    const endsSame = endOf(va) === endOf(vb);
    const vs = shadow?.driver.vcpu;
    const ownReports = reportsSame && endsSame || shadow === undefined || vs === undefined ||
      !reportsSame && !sameReports(a.log.reports, shadow.log.reports) ||
      !endsSame && endOf(va) !== endOf(vs);
    const places: Place[] = rows.map(({ area, row }) => placeOf(area.name, area.at, row));
    const writersA = a.log.lastWriters(va, places);
    const writersB = b.log.lastWriters(vb, places);
    const origins = new Map<string, RunRef>();
    const fields = rows.map((both, i): FieldDifference => {
      const { area, row } = both;
      const key = keyOf(both);
      const carried = ownRows !== undefined && !ownRows.has(key);
      const origin = carried ? pair.origins.get(key) ?? pair.last : undefined;
      origins.set(key, origin ?? ref);
      const wa = writersA[i], wb = writersB[i];
      return {
        area: area.name,
        field: row.field,
        a: row.aText,
        b: row.bText,
        bits: row.bits.filter((bit) => bit.verdict === "differs").map((bit) => bit.name),
        stepA: wa?.step,
        stepB: wb?.step,
        when: wa ? momentOf(wa, a.log) : wb ? momentOf(wb, b.log) : undefined,
        carried,
        origin,
      };
    });
    const reportsOrigin = ownReports ? undefined : pair.last;
    pair.origins = origins;
    const own = fields.some((field) => !field.carried);
    if (own || !(reportsSame && endsSame) && ownReports) pair.last = ref;
    return {
      ...ref,
      policies: [a.driver.policy.name, b.driver.policy.name],
      fields,
      reports: reportsSame ? undefined : [[...a.log.reports], [...b.log.reports]],
      reportsOrigin,
      ends: [endOf(va), endOf(vb)],
      parting: partingOf(a.log, b.log),
    };
  }

  #rows(va: Vcpu, vb: Vcpu): Row[] {
    return AREAS.flatMap((area) =>
      diffImages(
        area.layout,
        areaImage(area, va, this.#vmcb12),
        areaImage(area, vb, this.#vmcb12),
        { onlyKnown: true },
      ).filter((row) => !(area.omit?.has(row.field) ?? false)).map((row) => ({ area, row }))
    );
  }
}

interface Row {
  readonly area: Area;
  readonly row: FieldDiff;
}

function keyOf({ area, row }: Row): string {
  return `${area.name} ${row.field}`;
}

function endOf(v: Vcpu): RunEnd {
  const { rc, exit } = v.result;
  if (rc !== 0) return v.guestMode ? "loops in L2" : "loops in L1";
  if (exit === KVM_EXIT.SHUTDOWN) return "shuts down";
  if (exit === KVM_EXIT.INTERNAL_ERROR) return "ends in an internal error";
  return v.guestMode ? "goes on in L2" : "goes on in L1";
}

function forget(pair: Pair): void {
  pair.origins.clear();
  pair.last = undefined;
}

const CHECK_GROUPS = new Map(
  Object.values(CHECK_SETS).flatMap((set) => set.map((row) => [row.id, row.group] as const)),
);

/** The kind of transition a step was part of, as it went. */
function momentOf({ transition }: Writer, log: TransitionLog): Moment {
  const { way, outcome } = transition;
  switch (way) {
    case "vmrun": {
      if (outcome === OK) return "entry";
      if (outcome === END) return "refused";
      const check = log.reports.find((report) => report.kind === "check")?.id ?? "";
      return (CHECK_GROUPS.get(check) ?? "cr3") === "cr3" ? "late failure" : "failed check";
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
function sameState(a: Vcpu, b: Vcpu, vmcb12: number): boolean {
  return sameBytes(a, b) && samePage(a, b, vmcb12) &&
    Buffer.compare(a.bytes.subarray(MACHINE_SIZE), b.bytes.subarray(MACHINE_SIZE)) === 0;
}

function sameBytes(a: Vcpu, b: Vcpu): boolean {
  const x = a.bytes.subarray(0, STATE_SIZE), y = b.bytes.subarray(0, STATE_SIZE);
  return Buffer.compare(x, y) === 0;
}

function samePage(a: Vcpu, b: Vcpu, gpa: number): boolean {
  if (!a.memory.backed(gpa, VMCB_SIZE)) return true;
  return Buffer.compare(a.memory.page(gpa), b.memory.page(gpa)) === 0;
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
  places["nested.ctl_ncr3"] = { at: CACHE_AT + control("nested_cr3"), size: 8 };
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
