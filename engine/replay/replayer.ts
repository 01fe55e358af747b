/**
 * Replaying a trace: its inputs are carried out again under a policy, and what
 * comes out is held against what was recorded.
 *
 * @module
 */
import { Buffer } from "node:buffer";
import { RESTORE_ERRNO_KEYS } from "../restore_errnos.ts";
import type { EventOf, Image, TraceEvent } from "../event.ts";
import { compareImages } from "../image/diff.ts";
import { copyImage, ImageKeeper } from "../image/fields.ts";
import { REGS_LAYOUT, REGS_SIZE } from "../svm/regs_layout.ts";
import { shortTexts } from "../short_texts.ts";
import { S } from "../svm/machine.ts";
import { VMCB_LAYOUT, VMCB_SIZE } from "../svm/vmcb_fields.ts";
import type { Observer, Vcpu } from "../kvm/vcpu.ts";
import type { Policy } from "../policy.ts";
import { Agreement, type Mismatch, type OutcomeCount } from "./agreement.ts";
import { CheckpointError, loadState, saveState } from "./checkpoint.ts";
import { contextOf, recordedPolicy, type ReplayContext } from "./context.ts";
import { Driver } from "./drive.ts";
import { MOST_OUTCOMES, tooManyOutcomes } from "./replay_error.ts";
import { policyFingerprint } from "./fingerprint.ts";
import { nameOf, type Produced, type Recorded, sameKind } from "./outcomes.ts";
import { PartialReplayer, type PartialResult } from "./partial.ts";
import { ProducedImages } from "./produced_images.ts";
import { type Added, type Mark, Totals } from "./totals.ts";
import { LoggedRunCollector } from "./logged_runs.ts";
import { ImageBuffer, regsBytes } from "./views.ts";

export { plainMismatch } from "./agreement.ts";
export type { Mismatch, MismatchValues, OutcomeCount } from "./agreement.ts";

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
  /** What the model met and does not model, with how many runs it left unknown. */
  readonly unmodelled: ReadonlyMap<string, number>;
  /** What was found in transitions that were recorded without memory, when there were any. */
  readonly partial: PartialResult | undefined;
}

/** Counts at one moment. */
export interface ReplayMark extends Mark {
  /** Events of vCPUs of which only transitions were recorded. */
  readonly claimed: number;
}

/** Between two runs, what decides how a replay goes on. */
export interface ReplayState {
  /** The vCPU. */
  readonly vcpu: Vcpu;
  /** Everything else. */
  readonly context: ReplayContext;
}

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
  /** What the trace is carried out under. */
  readonly policy: Policy;
  readonly #driver: Driver;
  readonly #agreement: Agreement;
  readonly #transitions: PartialReplayer;
  /** What a recording lacks is unknown. */
  #partial = false;
  readonly #logged: LoggedRunCollector;
  readonly #totals = new Totals();
  #produced: Produced[] = [];
  readonly #recorded: { index: number; event: Recorded }[] = [];
  readonly #images = new ProducedImages();
  readonly #seen = new ImageBuffer(REGS_SIZE);
  /** Events of vCPUs of which only transitions were recorded. */
  #claimed = 0;
  /**
   * Events before the next one. Whoever knows the effect of some events already applies it
   * ({@linkcode Replayer.restore}, {@linkcode Replayer.add}), and sets this behind them.
   */
  events = 0;
  #runAt = 0;
  #inRun = false;
  #interrupted = false;
  /** Whether reports of the run under way may be lost. */
  #overrun = false;
  /** Whether events of this machine are missing. */
  #lost = false;
  /** What the recording itself could not carry on at, in the run under way or to come. */
  #gap: string | undefined;
  #pre: { index: number; event: EventOf<"regs"> } | undefined;
  readonly #preRegs = new ImageKeeper();
  readonly #preVmcb12 = new ImageKeeper();
  readonly #preHsave = new ImageKeeper();
  #sees: ReadonlySet<unknown> | undefined;
  /** Name of the policy that the session was recorded under, if it tells. */
  #recordedPolicy: string | undefined;

  /**
   * Begins before the trace's first event.
   *
   * @param policy The policy.
   * @param report Receives every mismatch as it is found.
   */
  constructor(policy: Policy, report: (mismatch: Mismatch) => void = () => {}) {
    this.policy = policy;
    this.#agreement = new Agreement(
      report,
      (kind, agreed) => this.#totals.outcome(kind, agreed),
    );
    this.#driver = new Driver(policy);
    this.#driver.observer = this.#observer();
    this.#transitions = new PartialReplayer(
      policy,
      (found) => report({ ...found, scenario: undefined }),
    );
    this.#logged = new LoggedRunCollector((unit) => this.#transitions.take(unit));
  }

  /**
   * Takes the next event of the trace.
   *
   * @param given The event; its images need to be valid only during the call.
   * @throws {ReplayError} When an input lacks what is needed to carry it out.
   */
  feed(given: TraceEvent): void {
    const event = shortTexts(given);
    const index = this.events++;
    if (this.#logged.claims(event)) {
      this.#claimed++;
      this.#endRun();
      this.#logged.feed(event, index);
      return;
    }
    if (this.#lost && event.kind !== "session") {
      this.#afterLoss(event);
      return;
    }
    switch (event.kind) {
      case "lost":
        this.#lose();
        break;
      case "session": {
        this.#endRun();
        this.#lost = false;
        this.#agreement.scenario = undefined;
        this.#pre = undefined;
        this.#partial = event.meta?.["partial"] === true;
        this.#recordedPolicy = recordedPolicy(event);
        const shows = event.meta?.["shows"];
        this.#agreement.shows = typeof shows === "object" && shows !== null
          ? shows as Record<string, unknown>
          : {};
        const sees = event.meta?.["sees"];
        this.#sees = Array.isArray(sees) ? new Set(sees) : undefined;
        this.#driver.feed(event, index);
        break;
      }
      case "case":
        this.#endRun();
        this.#agreement.scenario = event.name;
        this.#driver.feed(event, index);
        break;
      case "vmrun":
      case "setstate":
        this.#beginRun(event, index);
        break;
      case "check":
      case "warn":
      case "inner":
      case "switch":
        // What comes before any run is compared with none.
        if (!this.#inRun || event.kind === "switch" && !this.#seesSwitches) {
          this.#driver.feed(event, index);
          break;
        }
        if (this.#recorded.length === MOST_OUTCOMES) throw tooManyOutcomes(index);
        this.#recorded.push({ index, event: this.#kept(event) });
        break;
      case "unmodelled":
        this.#gap = `${event.what ?? "something"} (in the recording)`;
        break;
      case "regs":
        this.#regs(event, index);
        break;
      case "restore":
        this.#driver.feed(event, index);
        this.#restored(event, index);
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
    this.#endRun();
    this.#logged.finish();
    const { runs, agreed, skipped, outcomes, unmodelled, digest } = this.#totals;
    return {
      policy: this.policy.name,
      events: this.events,
      runs,
      agreed,
      skipped,
      outcomes,
      digest: digest.value.toString(16).padStart(8, "0"),
      digested: digest.length,
      unmodelled,
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
    const state = this.state();
    if (state === undefined || !this.resting) return undefined;
    return saveState(state.vcpu, {
      policy: this.policy.name,
      fingerprint: policyFingerprint(this.policy),
      events: this.events,
      ...state.context,
      digest: this.#totals.digest.value,
      digested: this.#totals.digest.length,
    });
  }

  /**
   * Begins where another replay saved its state, instead of at the trace's first event. Counts are
   * of what follows; the digest is of everything.
   *
   * @param state The state.
   * @param apart Whether the digest, too, is to be of what follows alone, to be joined later.
   * @throws {CheckpointError} When it is damaged, or of another policy.
   */
  resume(state: Uint8Array, apart = false): void {
    const { vcpu, progress } = loadState(state, this.policy);
    const { policy, fingerprint, events, digest, digested } = progress;
    if (policy !== this.policy.name) {
      throw new CheckpointError(
        `The checkpoint is of a replay under ${policy}, not ${this.policy.name}`,
      );
    }
    if (fingerprint !== policyFingerprint(this.policy)) {
      throw new CheckpointError(
        `The checkpoint is of another ${this.policy.name}, whose steps, kernel or processor differ`,
      );
    }
    this.#driver.vcpu = vcpu;
    this.events = Number(events);
    this.#context = contextOf(progress);
    if (apart) return;
    this.#totals.digest.value = Number(digest);
    this.#totals.digest.length = Number(digested);
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
    if (same) return { kind: "inner", vcpu: event.vcpu, at: produced.at };
    const { inner, vmcb01, vmcb02, ...rest } = event;
    return {
      ...rest,
      ...(inner && { inner: copyImage(inner) }),
      ...(vmcb01 && { vmcb01: copyImage(vmcb01) }),
      ...(vmcb02 && { vmcb02: copyImage(vmcb02) }),
    };
  }

  /** Whether the session tells of every switch of the active VMCB; most do not. */
  get #seesSwitches(): boolean {
    return this.#sees?.has("switch") === true;
  }

  #observer(): Observer {
    // What the source could not see says nothing when it is not in the trace.
    const produce = (outcome: Produced) => {
      if (this.#sees?.has(outcome.kind) !== false) this.#produced.push(outcome);
    };
    return {
      step() {},
      check: (id, text) => produce({ kind: "check", id, text }),
      warn: (text) => produce({ kind: "warn", text }),
      switched: (to) => {
        if (this.#seesSwitches) produce({ kind: "switch", to });
      },
      inner: (at, ret, v) => {
        if (this.#sees?.has("inner") !== false) produce(this.#images.inner(at, ret, v));
      },
    };
  }

  /** Whether a run begins with the next event that may, so that its state is all there is. */
  get resting(): boolean {
    return !this.#lost && this.#gap === undefined && this.#driver.resting &&
      this.#pre === undefined &&
      this.#logged.idle;
  }

  /** The vCPU, once there is one. */
  get vcpu(): Vcpu | undefined {
    return this.#driver.vcpu;
  }

  /**
   * Ends the run under way.
   *
   * @returns The state from which the replay goes on; undefined while there is none.
   */
  state(): ReplayState | undefined {
    this.#endRun();
    const vcpu = this.#driver.vcpu;
    return vcpu && { vcpu, context: this.#context };
  }

  /** Goes on from a state of this replay, or of one under the same policy. */
  restore({ vcpu, context }: ReplayState): void {
    this.#driver.vcpu = vcpu;
    this.#context = context;
  }

  /** The counts now. */
  mark(): ReplayMark {
    return { ...this.#totals.mark(), claimed: this.#claimed };
  }

  /** What was counted since; undefined when it was not of whole runs alone. */
  since(mark: ReplayMark): Added | undefined {
    return mark.claimed === this.#claimed ? this.#totals.since(mark) : undefined;
  }

  /** Counts once more what events counted that need not be carried out again. */
  add(added: Added): void {
    this.#totals.add(added);
  }

  get #context(): ReplayContext {
    const { scenario, shows } = this.#agreement;
    return {
      phase: this.#driver.phase,
      recorded: this.#recordedPolicy,
      partial: this.#partial,
      scenario,
      shows,
      sees: this.#sees && [...this.#sees],
    };
  }

  set #context({ phase, recorded, partial, scenario, shows, sees }: ReplayContext) {
    this.#driver.phase = phase;
    this.#recordedPolicy = recorded;
    this.#partial = partial;
    this.#agreement.scenario = scenario;
    this.#agreement.shows = shows;
    this.#sees = sees && new Set(sees);
  }

  /** Events are missing: what the run under way came to is not known, nor anything of this machine after it. */
  #lose(): void {
    if (this.#inRun) {
      this.#totals.runs--;
      this.#totals.skipped++;
    }
    this.#inRun = false;
    this.#lost = true;
    this.#pre = undefined;
    this.#gap = undefined;
    this.#endRun();
  }

  /** An event of a machine of which something is missing. */
  #afterLoss(event: TraceEvent): void {
    if (event.kind === "case") this.#agreement.scenario = event.name;
    if (event.kind === "setstate" || event.kind === "vmrun" && event.regs !== undefined) {
      this.#totals.skipped++;
    }
  }

  #beginRun(event: EventOf<"vmrun"> | EventOf<"setstate">, index: number): void {
    const whole = event.kind === "setstate" || event.regs !== undefined;
    if (!whole) {
      // A VMRUN inside a run under way: the model meets it by itself.
      if (!this.#inRun) this.#totals.skipped++;
      return;
    }
    const pre = this.#pre;
    this.#pre = undefined;
    this.#endRun();
    this.#inRun = true;
    this.#runAt = index;
    this.#totals.runs++;
    this.#driver.ready = pre && ((v) => {
      this.#agreement.image(pre.index, "pre.", REGS_LAYOUT, pre.event.regs, {
        bytes: regsBytes(v, this.#seen),
      });
      this.#agreement.page(pre.index, "pre.vmcb12 ", pre.event.vmcb12, "vmcb12", v);
      this.#agreement.page(pre.index, "pre.hsave ", pre.event.hsave, "hsave", v);
      this.#agreement.count("pre", this.#agreement.clean);
    });
    this.#driver.feed(event, index);
    this.#driver.ready = undefined;
    if (event.kind === "setstate") this.#setState(event, index);
  }

  #setState(event: EventOf<"setstate">, index: number): void {
    const got = this.#driver.setStateErrno;
    const same = event.errno === undefined || event.errno === got;
    if (!same) this.#agreement.mismatch(index, "setstate.errno", String(event.errno), String(got));
    this.#agreement.count("setstate", same);
  }

  /** Compares what was handed to another machine, and what each ioctl said. */
  #restored(event: EventOf<"restore">, index: number): void {
    const { restored, vcpu } = this.#driver;
    if (restored === undefined || vcpu === undefined || !this.#inRun) return;
    const agreement = this.#agreement;
    agreement.outcome("restore", () => {
      for (const name of RESTORE_ERRNO_KEYS) {
        agreement.number(index, `restore.${name}`, event[name], restored[name]);
      }
      const { flags, state } = restored.nested;
      agreement.number(index, "restore.flags", event.flags, flags);
      if (state === undefined) return;
      // With shadow paging L1's CR3 in vmcb01 is the hypervisor's own.
      const known = vcpu.caps.npt ? undefined : L1_WITHOUT_CR3;
      agreement.image(index, "restore.state ", VMCB_LAYOUT, event.state, {
        bytes: state,
        ...(known && { known }),
      });
    });
  }

  #regs(event: EventOf<"regs">, index: number): void {
    const phase = event.phase ?? "post";
    if (phase === "pre") {
      const { regs, vmcb12, hsave, smram: _, ...rest } = event;
      this.#pre = {
        index,
        event: {
          ...rest,
          ...(regs && { regs: this.#preRegs.keep(regs) }),
          ...(vmcb12 && { vmcb12: this.#preVmcb12.keep(vmcb12) }),
          ...(hsave && { hsave: this.#preHsave.keep(hsave) }),
        },
      };
      return;
    }
    if (!this.#inRun) return;
    const driver = this.#driver;
    if (!driver.ran) driver.run();
    driver.ran = false;
    const v = driver.vcpu as Vcpu;
    const { rc, errno, exit, port } = v.result;
    // A run that a signal ended stopped somewhere in a loop: where is chance. What follows
    // something that is not modelled is unknown.
    this.#interrupted = event.rc === -1 || v.unmodelled !== "";
    // What a loop before the end reported has filled the source's buffer since.
    if (event.rc === -1 && phase !== "post") this.#overrun = true;
    if (v.unmodelled !== "" || this.#gap !== undefined) return;
    const agreement = this.#agreement;
    agreement.outcome(phase, () => {
      agreement.number(index, `${phase}.rc`, event.rc, rc);
      agreement.number(index, `${phase}.exit`, event.exit, exit);
      agreement.number(index, `${phase}.errno`, event.errno, errno);
      if (this.#interrupted) return;
      if (exit === 2) agreement.number(index, `${phase}.port`, event.port, port);
      agreement.image(index, `${phase}.`, REGS_LAYOUT, event.regs, {
        bytes: regsBytes(v, this.#seen),
      });
      agreement.page(index, `${phase}.vmcb12 `, event.vmcb12, "vmcb12", v);
      agreement.page(index, `${phase}.hsave `, event.hsave, "hsave", v);
      agreement.smram(index, phase, event.smram, v);
    });
  }

  #endRun(): void {
    if (this.#inRun) {
      this.#compareOutcomes();
      const v = this.#driver.vcpu as Vcpu;
      this.#totals.digest.add(v);
      const what = v.unmodelled !== "" ? v.unmodelled : this.#gap;
      v.unmodelled = "";
      if (what !== undefined) this.#totals.missed(what);
      else if (this.#agreement.clean) this.#totals.agreed++;
      this.#gap = undefined;
    }
    this.#inRun = false;
    this.#agreement.clean = true;
    this.#interrupted = this.#overrun = false;
    this.#produced.length = this.#recorded.length = 0;
    this.#images.reset();
  }

  #compareOutcomes(): void {
    if (this.#overrun) return;
    if (this.#partial) {
      const kinds = new Set<string>(this.#recorded.map(({ event }) => event.kind));
      this.#produced = this.#produced.filter(({ kind }) => kinds.has(kind));
    }
    const { length } = this.#recorded;
    const v = this.#driver.vcpu as Vcpu;
    const most = this.#interrupted || v.unmodelled !== "" || this.#gap !== undefined
      ? Math.min(length, this.#produced.length)
      : Math.max(length, this.#produced.length);
    for (let i = 0; i < most; i++) {
      const recorded = this.#recorded[i];
      const produced = this.#produced[i];
      const index = recorded?.index ?? this.#runAt;
      if (recorded === undefined || produced === undefined || !sameKind(recorded.event, produced)) {
        this.#agreement.mismatch(index, "outcome", nameOf(recorded?.event), nameOf(produced));
        this.#agreement.count(recorded?.event.kind ?? produced?.kind ?? "outcome", false);
        return;
      }
      this.#agreement.inside(index, recorded.event, produced);
    }
  }
}

/** Mask of a VMCB without CR3. */
const L1_WITHOUT_CR3 = new Uint8Array(VMCB_SIZE).fill(0xff).fill(0, S.cr3, S.cr3 + 8);

/** Whether a recorded image is plainly what was replayed; where one is missing nothing is compared. */
function agree(recorded: Image | undefined, replayed: Image | undefined): boolean {
  if (recorded === undefined || replayed === undefined) return true;
  return Buffer.compare(recorded.bytes, replayed.bytes) === 0 ||
    recorded.bytes.length < VMCB_SIZE && compareImages(recorded, replayed) !== "differs";
}
