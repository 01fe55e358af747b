/**
 * Replaying a trace: its inputs are carried out again under a policy, and what
 * comes out is held against what was recorded.
 *
 * @module
 */
import { Buffer } from "node:buffer";
import type { EventOf, Image, TraceEvent } from "../event.ts";
import type { Layout } from "../layout.ts";
import { compareImages, diffImages } from "../image/diff.ts";
import { copyImage } from "../image/fields.ts";
import { INNER_LAYOUT } from "../svm/inner_layout.ts";
import { REGS_LAYOUT } from "../svm/regs_layout.ts";
import { VMCB01_AT, VMCB02_AT } from "../svm/machine.ts";
import { VMCB_LAYOUT, VMCB_SIZE } from "../svm/vmcb_fields.ts";
import type { Observer, Vcpu } from "../kvm/vcpu.ts";
import type { Policy } from "../policy.ts";
import { CheckpointError, loadState, saveState } from "./checkpoint.ts";
import { RunningDigest } from "./digest.ts";
import { Driver } from "./drive.ts";
import { PartialReplayer, type PartialResult } from "./partial.ts";
import { UnitCollector } from "./units.ts";
import { hostVmcbMask, innerBytes, regsBytes, vmcb02Used } from "./views.ts";

/** One place where the replay and the recording differ. */
export interface Mismatch {
  /** Number of the recorded event, from 0; of the unit's first event when nothing was recorded. */
  readonly event: number;
  /** Name of the scenario, when the trace names it. */
  readonly scenario: string | undefined;
  /** What differs: an event kind and field, such as `post.gif` or `vmexit.vmcb02 save.rip`. */
  readonly field: string;
  /** What was recorded. */
  readonly recorded: string;
  /** What the replay gives. */
  readonly replayed: string;
}

/** Counts of one kind of outcome. */
export interface OutcomeCount {
  /** How many were held against each other. */
  compared: number;
  /** How many agreed in everything. */
  agreed: number;
}

/** What a replay found. */
export interface ReplayResult {
  /** Name of the policy. */
  readonly policy: string;
  /** Events read. */
  readonly events: number;
  /** Runs carried out: VMRUNs and restores with their inputs. */
  readonly runs: number;
  /** Runs that agree with the recording in everything. */
  readonly agreed: number;
  /** Runs whose inputs are not in the trace, so that nothing could be said. */
  readonly skipped: number;
  /** Outcomes by kind: check, warn, inner, pre, mid, smm, post, setstate. */
  readonly outcomes: ReadonlyMap<string, OutcomeCount>;
  /** Digest over all modelled state at the end of every run: the same trace and policy give the same. */
  readonly digest: string;
  /** Bytes of state that the digest is over. */
  readonly digested: number;
  /** What the model met and does not model, with how often. */
  readonly unmodelled: ReadonlyMap<string, number>;
  /** What was found in transitions that were recorded without memory, when there were any. */
  readonly partial: PartialResult | undefined;
}

type Outcome =
  | { readonly kind: "check"; readonly id: string; readonly text: string }
  | { readonly kind: "warn"; readonly text: string }
  | {
    readonly kind: "inner";
    readonly at: string;
    readonly inner: Image;
    readonly vmcb01: Image;
    readonly vmcb02: Image | undefined;
  };

type Recorded = EventOf<"check"> | EventOf<"warn"> | EventOf<"inner">;

/**
 * Replays one vCPU's trace under one policy.
 *
 * @example
 * ```ts
 * import { builtinScenarios, recordScenarios, Replayer, UPSTREAM } from "@vmtape/vmtape";
 * const replayer = new Replayer(UPSTREAM, ({ field, recorded, replayed }) => {
 *   throw new Error(`${field}: recorded ${recorded}, replayed ${replayed}`);
 * });
 * for await (const event of recordScenarios(builtinScenarios("eventinj-left"), UPSTREAM)) {
 *   replayer.feed(event);
 * }
 * const { runs, agreed } = replayer.finish();
 * if (runs === 0 || agreed !== runs) throw new Error(`${agreed} of ${runs}`);
 * ```
 */
export class Replayer {
  /** The policy. */
  readonly policy: Policy;
  readonly #driver: Driver;
  readonly #report: (mismatch: Mismatch) => void;
  readonly #transitions: PartialReplayer;
  /** What a recording lacks is unknown. */
  #partial = false;
  readonly #units: UnitCollector;
  readonly #outcomes = new Map<string, OutcomeCount>();
  readonly #unmodelled = new Map<string, number>();
  #produced: Outcome[] = [];
  #recorded: { index: number; event: Recorded }[] = [];
  /** Copies of VMCBs, of which the run under way uses the first few. */
  readonly #pages: Uint8Array[] = [];
  #used = 0;
  #index = 0;
  #unitAt = 0;
  #scenario: string | undefined;
  #inUnit = false;
  #clean = true;
  #interrupted = false;
  #runs = 0;
  #agreed = 0;
  #skipped = 0;
  readonly #digest = new RunningDigest();
  #pre: { index: number; event: EventOf<"regs"> } | undefined;
  #shows: Readonly<Record<string, unknown>> = {};
  #sees: ReadonlySet<unknown> | undefined;

  /**
   * Begins before the trace's first event.
   *
   * @param policy The policy.
   * @param report Receives every mismatch as it is found.
   */
  constructor(policy: Policy, report: (mismatch: Mismatch) => void = () => {}) {
    this.policy = policy;
    this.#report = report;
    this.#driver = new Driver(policy);
    this.#driver.observer = this.#observer();
    this.#transitions = new PartialReplayer(
      policy,
      (found) => this.#report({ ...found, scenario: undefined }),
    );
    this.#units = new UnitCollector((unit) => this.#transitions.take(unit));
  }

  /**
   * Takes the next event of the trace.
   *
   * @param event The event; its images need to be valid only during the call.
   * @throws {ReplayError} When an input lacks what is needed to carry it out.
   */
  feed(event: TraceEvent): void {
    const index = this.#index++;
    if (this.#units.claims(event)) {
      this.#endUnit();
      this.#units.feed(event, index);
      return;
    }
    switch (event.kind) {
      case "session": {
        this.#endUnit();
        this.#scenario = undefined;
        this.#pre = undefined;
        this.#partial = event.meta?.["partial"] === true;
        const shows = event.meta?.["shows"];
        this.#shows = typeof shows === "object" && shows !== null
          ? shows as Record<string, unknown>
          : {};
        const sees = event.meta?.["sees"];
        this.#sees = Array.isArray(sees) ? new Set(sees) : undefined;
        this.#driver.feed(event, index);
        break;
      }
      case "case":
        this.#endUnit();
        this.#scenario = event.name;
        this.#driver.feed(event, index);
        break;
      case "vmrun":
      case "setstate":
        this.#beginUnit(event, index);
        break;
      case "check":
      case "warn":
      case "inner":
        this.#recorded.push({ index, event: this.#kept(event) });
        break;
      case "regs":
        this.#regs(event, index);
        break;
      default:
        this.#driver.feed(event, index);
    }
  }

  /**
   * Ends the trace.
   *
   * @returns What was found.
   */
  finish(): ReplayResult {
    this.#endUnit();
    this.#units.finish();
    return {
      policy: this.policy.name,
      events: this.#index,
      runs: this.#runs,
      agreed: this.#agreed,
      skipped: this.#skipped,
      outcomes: this.#outcomes,
      digest: this.#digest.value.toString(16).padStart(8, "0"),
      digested: this.#digest.length,
      unmodelled: this.#unmodelled,
      partial: this.#transitions.finish(),
    };
  }

  /**
   * The state of the replay, from which {@linkcode Replayer.resume} goes on. The run under way, if
   * there is one, is over: the next event must begin another.
   *
   * @returns The state; undefined where there is none to keep.
   */
  save(): Uint8Array | undefined {
    this.#endUnit();
    const v = this.#driver.vcpu;
    if (v === undefined || !this.#driver.resting || this.#pre !== undefined) return undefined;
    if (!this.#units.idle) return undefined;
    return saveState(v, {
      policy: this.policy.name,
      events: this.#index,
      partial: this.#partial,
      scenario: this.#scenario,
      shows: this.#shows,
      sees: this.#sees && [...this.#sees],
      digest: this.#digest.value,
      digested: this.#digest.length,
    });
  }

  /**
   * Begins where another replay saved its state, instead of at the trace's first event. Counts are
   * of what follows; the digest is of everything.
   *
   * @param state The state.
   * @throws {CheckpointError} When it is damaged, or of another policy.
   */
  resume(state: Uint8Array): void {
    const { vcpu, progress } = loadState(state, this.policy);
    const { policy, events, partial, scenario, shows, sees, digest, digested } = progress;
    if (policy !== this.policy.name) {
      throw new CheckpointError(
        `The checkpoint is of a replay under ${policy}, not ${this.policy.name}`,
      );
    }
    this.#driver.vcpu = vcpu;
    this.#index = Number(events);
    this.#partial = partial === true;
    this.#scenario = typeof scenario === "string" ? scenario : undefined;
    this.#shows = shows as Record<string, unknown>;
    this.#sees = Array.isArray(sees) ? new Set(sees) : undefined;
    this.#digest.value = Number(digest);
    this.#digest.length = Number(digested);
  }

  /**
   * An outcome to be compared when the run is over. Images that are as they should be need no
   * copy: what was replayed is there already, and they are left out.
   */
  #kept(event: Recorded): Recorded {
    if (event.kind !== "inner") return { ...event };
    const produced = this.#partial ? undefined : this.#produced[this.#recorded.length];
    const same = produced?.kind === "inner" && produced.at === event.at &&
      agree(event.inner, produced.inner) && agree(event.vmcb01, produced.vmcb01) &&
      agree(event.vmcb02, produced.vmcb02);
    const { inner, vmcb01, vmcb02, ...rest } = event;
    if (same) return rest;
    return {
      ...rest,
      ...(inner && { inner: copyImage(inner) }),
      ...(vmcb01 && { vmcb01: copyImage(vmcb01) }),
      ...(vmcb02 && { vmcb02: copyImage(vmcb02) }),
    };
  }

  #observer(): Observer {
    // What the source could not see says nothing when it is not in the trace.
    const produce = (outcome: Outcome) => {
      if (this.#sees?.has(outcome.kind) !== false) this.#produced.push(outcome);
    };
    return {
      step() {},
      check: (id, text) => produce({ kind: "check", id, text }),
      warn: (text) => produce({ kind: "warn", text }),
      inner: (at, ret, v) => {
        if (this.#sees?.has("inner") !== false) produce(this.#inner(at, ret, v));
      },
    };
  }

  #inner(at: string, ret: number, v: Vcpu): Outcome {
    const known = hostVmcbMask(v.caps.npt);
    return {
      kind: "inner",
      at,
      inner: { bytes: innerBytes(v, ret) },
      vmcb01: { bytes: this.#vmcb(v, VMCB01_AT), known },
      vmcb02: vmcb02Used(v) ? { bytes: this.#vmcb(v, VMCB02_AT), known } : undefined,
    };
  }

  /** A copy of a VMCB, in memory that is used again when the run is over. */
  #vmcb(v: Vcpu, at: number): Uint8Array {
    const bytes = this.#pages[this.#used] ??= new Uint8Array(VMCB_SIZE);
    this.#used++;
    bytes.set(v.bytes.subarray(at, at + VMCB_SIZE));
    return bytes;
  }

  #beginUnit(event: EventOf<"vmrun"> | EventOf<"setstate">, index: number): void {
    const whole = event.kind === "setstate" || event.regs !== undefined;
    if (!whole) {
      // A VMRUN inside a run under way: the model meets it by itself.
      if (!this.#inUnit) this.#skipped++;
      return;
    }
    const pre = this.#pre;
    this.#pre = undefined;
    this.#endUnit();
    this.#inUnit = true;
    this.#unitAt = index;
    this.#runs++;
    this.#driver.ready = pre && ((v) => {
      this.#image(pre.index, "pre.", REGS_LAYOUT, pre.event.regs, { bytes: regsBytes(v) });
      this.#page(pre.index, "pre.vmcb12 ", pre.event.vmcb12, "vmcb12", v);
      this.#page(pre.index, "pre.hsave ", pre.event.hsave, "hsave", v);
      this.#count("pre", this.#clean);
    });
    this.#driver.feed(event, index);
    this.#driver.ready = undefined;
    if (event.kind === "setstate") this.#setState(event, index);
  }

  #setState(event: EventOf<"setstate">, index: number): void {
    const got = this.#driver.setStateErrno;
    const same = event.errno === undefined || event.errno === got;
    if (!same) this.#mismatch(index, "setstate.errno", String(event.errno), String(got));
    this.#count("setstate", same);
  }

  #regs(event: EventOf<"regs">, index: number): void {
    const phase = event.phase ?? "post";
    if (phase === "pre") {
      const { regs, vmcb12, hsave, smram: _, ...rest } = event;
      this.#pre = {
        index,
        event: {
          ...rest,
          ...(regs && { regs: copyImage(regs) }),
          ...(vmcb12 && { vmcb12: copyImage(vmcb12) }),
          ...(hsave && { hsave: copyImage(hsave) }),
        },
      };
      return;
    }
    if (!this.#inUnit) return;
    const driver = this.#driver;
    if (!driver.ran) driver.run();
    driver.ran = false;
    const v = driver.vcpu as Vcpu;
    const { rc, errno, exit, port } = v.result;
    const before = this.#clean;
    this.#clean = true;
    this.#number(index, `${phase}.rc`, event.rc, rc);
    this.#number(index, `${phase}.exit`, event.exit, exit);
    this.#number(index, `${phase}.errno`, event.errno, errno);
    // A run that a signal ended stopped somewhere in a loop: where is chance.
    this.#interrupted = event.rc === -1;
    if (!this.#interrupted) {
      if (exit === 2) this.#number(index, `${phase}.port`, event.port, port);
      this.#image(index, `${phase}.`, REGS_LAYOUT, event.regs, { bytes: regsBytes(v) });
      this.#page(index, `${phase}.vmcb12 `, event.vmcb12, "vmcb12", v);
      this.#page(index, `${phase}.hsave `, event.hsave, "hsave", v);
      this.#smram(index, phase, event.smram, v);
    }
    this.#count(phase, this.#clean);
    this.#clean = before && this.#clean;
  }

  #page(index: number, prefix: string, recorded: Image | undefined, name: string, v: Vcpu): void {
    const gpa = this.#shows[name];
    if (recorded === undefined || typeof gpa !== "number") return;
    this.#image(index, prefix, VMCB_LAYOUT, recorded, { bytes: v.memory.page(gpa) });
  }

  #smram(index: number, phase: string, recorded: Image | undefined, v: Vcpu): void {
    const gpa = this.#shows["smram"];
    if (recorded === undefined || typeof gpa !== "number") return;
    for (let i = 0; i < recorded.bytes.length; i += 8) {
      for (let j = i; j < i + 8; j++) {
        if (recorded.bytes[j] === v.memory.read8(gpa + j)) continue;
        const hex = (byte: (k: number) => number) =>
          Array.from({ length: 8 }, (_, k) => byte(i + 7 - k).toString(16).padStart(2, "0")).join(
            "",
          );
        const field = `${phase}.smram+${i.toString(16).padStart(3, "0")}`;
        this.#mismatch(
          index,
          field,
          hex((k) => recorded.bytes[k] as number),
          hex((k) => v.memory.read8(gpa + k)),
        );
        break;
      }
    }
  }

  #endUnit(): void {
    if (this.#inUnit) {
      this.#compareOutcomes();
      const v = this.#driver.vcpu as Vcpu;
      this.#digest.add(v);
      if (v.unmodelled !== "") {
        this.#unmodelled.set(v.unmodelled, (this.#unmodelled.get(v.unmodelled) ?? 0) + 1);
        v.unmodelled = "";
      }
      if (this.#clean) this.#agreed++;
    }
    this.#inUnit = false;
    this.#clean = true;
    this.#interrupted = false;
    this.#produced = [];
    this.#recorded = [];
    this.#used = 0;
  }

  #compareOutcomes(): void {
    if (this.#partial) {
      const kinds = new Set<string>(this.#recorded.map(({ event }) => event.kind));
      this.#produced = this.#produced.filter(({ kind }) => kinds.has(kind));
    }
    const { length } = this.#recorded;
    const most = this.#interrupted
      ? Math.min(length, this.#produced.length)
      : Math.max(length, this.#produced.length);
    for (let i = 0; i < most; i++) {
      const recorded = this.#recorded[i];
      const produced = this.#produced[i];
      const index = recorded?.index ?? this.#unitAt;
      if (recorded === undefined || produced === undefined || !sameKind(recorded.event, produced)) {
        this.#mismatch(index, "outcome", nameOf(recorded?.event), nameOf(produced));
        this.#count(recorded?.event.kind ?? produced?.kind ?? "outcome", false);
        return;
      }
      this.#compareOutcome(index, recorded.event, produced);
    }
  }

  #compareOutcome(index: number, recorded: Recorded, produced: Outcome): void {
    const before = this.#clean;
    this.#clean = true;
    if (recorded.kind === "inner" && produced.kind === "inner") {
      const at = produced.at;
      this.#image(index, `${at}.`, INNER_LAYOUT, recorded.inner, produced.inner);
      this.#image(index, `${at}.vmcb01 `, VMCB_LAYOUT, recorded.vmcb01, produced.vmcb01);
      this.#image(index, `${at}.vmcb02 `, VMCB_LAYOUT, recorded.vmcb02, produced.vmcb02);
    } else if (recorded.kind === "warn" && produced.kind === "warn") {
      if (recorded.text !== produced.text) {
        this.#mismatch(index, "warn", recorded.text ?? "unknown", produced.text);
      }
    } else if (recorded.kind === "check" && produced.kind === "check") {
      const same = recorded.check === undefined
        ? recorded.text === produced.text
        : recorded.check === produced.id;
      if (!same && recorded.text !== produced.text) {
        this.#mismatch(index, "check", recorded.text ?? recorded.check ?? "unknown", produced.text);
      }
    }
    this.#count(recorded.kind, this.#clean);
    this.#clean = before && this.#clean;
  }

  #image(
    index: number,
    prefix: string,
    layout: Layout,
    recorded: Image | undefined,
    replayed: Image | undefined,
  ): void {
    if (recorded === undefined || replayed === undefined) return;
    for (const row of diffImages(layout, recorded, replayed, { onlyKnown: true })) {
      this.#mismatch(index, prefix + row.field, row.aText, row.bText);
    }
  }

  #number(index: number, field: string, recorded: number | undefined, replayed: number): void {
    if (recorded === undefined || recorded === replayed) return;
    this.#mismatch(index, field, String(recorded), String(replayed));
  }

  #mismatch(event: number, field: string, recorded: string, replayed: string): void {
    this.#clean = false;
    this.#report({ event, scenario: this.#scenario, field, recorded, replayed });
  }

  #count(kind: string, agreed: boolean): void {
    const row = this.#outcomes.get(kind) ?? { compared: 0, agreed: 0 };
    row.compared++;
    if (agreed) row.agreed++;
    this.#outcomes.set(kind, row);
  }
}

/** Whether a recorded image is plainly what was replayed; where one is missing nothing is compared. */
function agree(recorded: Image | undefined, replayed: Image | undefined): boolean {
  if (recorded === undefined || replayed === undefined) return true;
  return Buffer.compare(recorded.bytes, replayed.bytes) === 0 ||
    recorded.bytes.length < VMCB_SIZE && compareImages(recorded, replayed) !== "differs";
}

function sameKind(recorded: Recorded, produced: Outcome): boolean {
  if (recorded.kind !== produced.kind) return false;
  return recorded.kind !== "inner" || produced.kind !== "inner" || recorded.at === produced.at;
}

function nameOf(outcome: Recorded | Outcome | undefined): string {
  if (outcome === undefined) return "nothing";
  switch (outcome.kind) {
    case "inner":
      return `state at ${outcome.at}`;
    case "check":
      return `check failed: ${outcome.text}`;
    default:
      return `warning: ${outcome.text}`;
  }
}
