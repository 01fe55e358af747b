/**
 * Replaying a trace: its inputs are carried out again under a policy, and what
 * comes out is held against what was recorded.
 *
 * @module
 */
import type { EventOf, TraceEvent } from "../event.ts";
import { shortTexts } from "../short_texts.ts";
import type { Observer, Vcpu } from "../kvm/vcpu.ts";
import type { Policy } from "../policy.ts";
import { Agreement, type Mismatch } from "./agreement.ts";
import { CheckpointError, loadState, saveState } from "./checkpoint.ts";
import type { RunPaths } from "../paths/paths.ts";
import { contextOf, recordedPolicy, type ReplayContext } from "./context.ts";
import { Driver } from "./drive.ts";
import { policyFingerprint } from "./fingerprint.ts";
import { PartialReplayer } from "./partial.ts";
import type { ReplayResult } from "./replay_result.ts";
import { compareRestore } from "./restore_agreement.ts";
import { RunOutcomes } from "./run_outcomes.ts";
import { type Added, type Mark, Totals } from "./totals.ts";
import { LoggedRunCollector } from "./logged_runs.ts";
import { UserspaceLooks } from "./userspace_looks.ts";

export { plainMismatch } from "./agreement.ts";
export type { Mismatch, MismatchValues, OutcomeCount } from "./agreement.ts";
export type { ReplayResult } from "./replay_result.ts";

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
  readonly #logged: LoggedRunCollector;
  readonly #totals = new Totals();
  readonly #outcomes = new RunOutcomes();
  readonly #looks: UserspaceLooks;
  /** Hears what a run brings forth before which userspace looked. */
  #looking: Observer = this.#outcomes.observer;
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
  /** Name of the policy that the session was recorded under, if it tells. */
  #recordedPolicy: string | undefined;

  /**
   * Begins before the trace's first event.
   *
   * @param policy The policy.
   * @param report Receives every mismatch as it is found.
   * @param paths Paths that runs under the policy are known to take, to be followed and added to;
   * every step of every run is carried out when left out, and every run of a log.
   */
  constructor(
    policy: Policy,
    report: (mismatch: Mismatch) => void = () => {},
    paths?: RunPaths,
  ) {
    this.policy = policy;
    this.#agreement = new Agreement(
      report,
      (kind, agreed) => this.#totals.outcome(kind, agreed),
    );
    this.#driver = new Driver(policy);
    this.#looks = new UserspaceLooks(
      this.#agreement,
      (look, into) => this.#driver.look(look, into),
    );
    this.#listen();
    this.#driver.paths = paths;
    this.#transitions = new PartialReplayer(
      policy,
      (found) => report({ ...found, scenario: undefined }),
      { each: paths === undefined },
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
    const index = this.events++;
    // Of these there are many, and most change nothing: nobody claims them, and they have no texts.
    if (given.kind === "memory" && this.#logged.idle && !this.#lost) {
      this.#driver.feed(given, index);
      return;
    }
    const event = shortTexts(given);
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
        this.#looks.forget();
        this.#gap = undefined;
        this.#outcomes.partial = event.meta?.["partial"] === true;
        this.#recordedPolicy = recordedPolicy(event);
        const shows = event.meta?.["shows"];
        this.#agreement.shows = typeof shows === "object" && shows !== null
          ? shows as Record<string, unknown>
          : {};
        const sees = event.meta?.["sees"];
        this.#outcomes.sees = Array.isArray(sees) ? new Set(sees) : undefined;
        this.#listen();
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
        if (!this.#inRun || event.kind === "switch" && !this.#outcomes.seesSwitches) {
          this.#driver.feed(event, index);
          break;
        }
        this.#outcomes.record(event, index);
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

  /** Whether a run begins with the next event that may, so that its state is all there is. */
  get resting(): boolean {
    return !this.#lost && this.#gap === undefined && this.#driver.resting &&
      !this.#looks.waiting && this.#logged.idle;
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
      partial: this.#outcomes.partial,
      scenario,
      shows,
      sees: this.#outcomes.sees && [...this.#outcomes.sees],
    };
  }

  set #context({ phase, recorded, partial, scenario, shows, sees }: ReplayContext) {
    this.#driver.phase = phase;
    this.#recordedPolicy = recorded;
    this.#outcomes.partial = partial;
    this.#agreement.scenario = scenario;
    this.#agreement.shows = shows;
    this.#outcomes.sees = sees && new Set(sees);
    this.#listen();
  }

  /** Hears from now on what the source could see. */
  #listen(): void {
    const { observer } = this.#outcomes;
    this.#driver.observer = observer;
    this.#looking = { ...observer, looker: this.#looks.looker };
  }

  /** Events are missing: what the run under way came to is not known, nor anything of this machine after it. */
  #lose(): void {
    if (this.#inRun) {
      this.#totals.runs--;
      this.#totals.skipped++;
    }
    this.#inRun = false;
    this.#lost = true;
    this.#looks.forget();
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
    this.#endRun();
    this.#inRun = true;
    this.#runAt = index;
    this.#totals.runs++;
    this.#driver.observer = this.#looks.begin() ? this.#looking : this.#outcomes.observer;
    this.#driver.feed(event, index);
    this.#driver.observer = this.#outcomes.observer;
    if (event.kind === "setstate") this.#setState(event, index);
  }

  #setState(event: EventOf<"setstate">, index: number): void {
    const got = this.#driver.setStateErrno;
    const same = event.errno === undefined || event.errno === got;
    if (!same) this.#agreement.mismatch(index, "setstate.errno", String(event.errno), String(got));
    this.#agreement.count("setstate", same);
  }

  #restored(event: EventOf<"restore">, index: number): void {
    const { restored, vcpu } = this.#driver;
    if (restored === undefined || vcpu === undefined || !this.#inRun) return;
    compareRestore(this.#agreement, event, index, restored, vcpu.caps.npt);
  }

  #regs(event: EventOf<"regs">, index: number): void {
    const phase = event.phase ?? "post";
    if (phase === "pre") {
      this.#looks.keep(event, index);
      return;
    }
    if (!this.#inRun) return;
    const driver = this.#driver;
    if (!driver.ran) driver.run();
    driver.ran = false;
    const v = driver.vcpu as Vcpu;
    // A run that a signal ended stopped somewhere in a loop: where is chance. What follows
    // something that is not modelled is unknown.
    this.#interrupted = event.rc === -1 || v.unmodelled !== "";
    // What a loop before the end reported has filled the source's buffer since.
    if (event.rc === -1 && phase !== "post") this.#overrun = true;
    if (v.unmodelled !== "" || this.#gap !== undefined) return;
    this.#looks.compare(v, event, phase, index, this.#interrupted);
  }

  #endRun(): void {
    if (this.#inRun) {
      const v = this.#driver.vcpu as Vcpu;
      if (!this.#overrun) {
        const whole = !this.#interrupted && v.unmodelled === "" && this.#gap === undefined;
        this.#outcomes.compare(this.#agreement, this.#runAt, whole);
      }
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
    this.#outcomes.reset();
  }
}
