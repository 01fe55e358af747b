/**
 * Replaying a trace whose sessions may have been recorded under several policies.
 *
 * @module
 */
import { VmtapeError } from "./error.ts";
import type { TraceEvent } from "./event.ts";
import { copyEvent } from "./image/fields.ts";
import { MemoizedReplayer } from "./memo/replayer.ts";
import { RunPaths } from "./paths/paths.ts";
import type { Policy } from "./policy.ts";
import { recordedPolicy } from "./replay/context.ts";
import { joinDigests } from "./svm/digest.ts";
import { type Mismatch, Replayer, type ReplayResult } from "./replay/replayer.ts";

/** How a session goes about it. */
export interface ReplaySessionOptions {
  /** Whether runs that repeat others byte for byte from the same state are carried out, too. */
  readonly each?: boolean;
  /** Number of the trace's first event that is fed; 0 when left out. */
  readonly from?: number;
  /** The paths that runs under a policy may follow; new ones when left out. */
  readonly paths?: (policy: Policy) => RunPaths;
}

/**
 * A trace that does not say which policy it was recorded under, where none was named.
 *
 * @example
 * ```ts
 * import { ReplaySession, UnknownPolicyError } from "@vmtape/vmtape/engine";
 * let caught: unknown;
 * try {
 *   new ReplaySession(undefined, () => {}).feed({ kind: "case", vcpu: 0 });
 * } catch (error) {
 *   caught = error;
 * }
 * if (!(caught instanceof UnknownPolicyError)) throw new Error();
 * ```
 */
export class UnknownPolicyError extends VmtapeError {
  /** Name of the class, for those who cannot use instanceof. */
  override readonly name = "UnknownPolicyError";

  /** Says what to do. */
  constructor() {
    super("The trace does not say which policy it was recorded under; name one with --policy");
  }
}

/**
 * Replays a trace under one policy, or under those that its sessions say they were recorded with.
 *
 * @example
 * ```ts
 * import { builtinScenarios, recordScenarios } from "@vmtape/vmtape/traces";
 * import { POLICIES, ReplaySession, UNIFIED } from "@vmtape/vmtape/engine";
 * const session = new ReplaySession(undefined, () => {});
 * for await (const event of recordScenarios(builtinScenarios("gif-left-set"), UNIFIED)) {
 *   const name = session.needs(event);
 *   if (name !== undefined) session.begin(POLICIES[name]!);
 *   session.feed(event);
 * }
 * const [result] = session.finish();
 * if (result?.policy !== "unified" || result.agreed !== result.runs) throw new Error();
 * ```
 */
export class ReplaySession {
  readonly #results: ReplayResult[] = [];
  readonly #report: (mismatch: Mismatch) => void;
  readonly #fixed: Policy | undefined;
  readonly #each: boolean;
  readonly #paths: (policy: Policy) => RunPaths;
  #replayer: Replayer | MemoizedReplayer | undefined;
  #base: number;
  #events: number;
  /** An event that waits for its policy. */
  #held: TraceEvent | undefined;
  /** Events before the state that the replay goes on from. */
  #resumed = 0;

  /**
   * Begins before an event.
   *
   * @param policy The policy; those of the recording when left out.
   * @param report Receives every mismatch as it is found.
   * @param options How to go about it.
   */
  constructor(
    policy: Policy | undefined,
    report: (mismatch: Mismatch) => void,
    { each = false, from = 0, paths = (policy) => new RunPaths(policy, true) }:
      ReplaySessionOptions = {},
  ) {
    this.#report = report;
    this.#each = each;
    this.#paths = paths;
    this.#fixed = policy;
    this.#base = this.#events = from;
  }

  #make(policy: Policy, report: (mismatch: Mismatch) => void): Replayer | MemoizedReplayer {
    return this.#each
      ? new Replayer(policy, report)
      : new MemoizedReplayer(policy, report, 0, this.#paths(policy));
  }

  /**
   * The policy to go on under, when a session was recorded under another than the one before.
   *
   * @param event The next event.
   * @returns Its name, for {@linkcode ReplaySession.begin}; undefined when there is nothing to do.
   */
  needs(event: TraceEvent): string | undefined {
    if (this.#fixed || event.kind !== "session") return undefined;
    const name = recordedPolicy(event);
    return name === this.#replayer?.policy.name ? undefined : name;
  }

  /**
   * Goes on under another policy.
   *
   * @param policy The policy.
   */
  begin(policy: Policy): void {
    this.#end();
    const base = this.#base = this.#events;
    this.#replayer = this.#make(
      policy,
      (mismatch) => this.#report({ ...mismatch, event: mismatch.event + base }),
    );
  }

  /**
   * Goes on from a replay's state; the digest is to be of what follows alone.
   *
   * @param policy The policy of the state.
   * @param state The state, as {@linkcode Replayer.save} gave it.
   * @throws {CheckpointError} When it is damaged, or of another policy.
   */
  resume(policy: Policy, state: Uint8Array): void {
    this.#replayer = this.#make(policy, this.#report);
    this.#replayer.resume(state, true);
    this.#resumed = this.#events;
  }

  /**
   * Takes the next event.
   *
   * @param event The event; its images need to be valid only during the call.
   * @throws {UnknownPolicyError} When there is no policy to replay it under.
   * @throws {ReplayError} When an input lacks what is needed to carry it out.
   */
  feed(event: TraceEvent): void {
    if (!this.#replayer) {
      if (!this.#fixed) {
        throw new UnknownPolicyError();
      }
      this.begin(this.#fixed);
    }
    this.#events++;
    this.#replayer!.feed(event);
  }

  /**
   * Takes events, up to one that needs another policy.
   *
   * @param events Where they come from, each valid until the next only.
   * @param watch Looks at each before it is taken.
   * @returns The policy to go on under, with the event that was not taken; undefined at the end.
   */
  feedAll(
    events: IterableIterator<TraceEvent>,
    watch: { check(event: TraceEvent): void },
  ): string | undefined {
    const held = this.#held;
    this.#held = undefined;
    if (held !== undefined) this.feed(held);
    for (let step = events.next(); step.done !== true; step = events.next()) {
      const event = step.value;
      watch.check(event);
      const name = this.needs(event);
      if (name !== undefined) {
        // Loading the policy takes time, in which the event's memory may be used again.
        this.#held = copyEvent(event);
        return name;
      }
      this.feed(event);
    }
    return undefined;
  }

  /**
   * Ends the trace.
   *
   * @returns A result for each stretch of one policy, in order.
   */
  finish(): readonly ReplayResult[] {
    this.#end();
    return this.#results;
  }

  #end(): void {
    if (this.#replayer) {
      const result = this.#replayer.finish();
      this.#results.push({ ...result, events: result.events - this.#resumed });
    }
    this.#replayer = undefined;
    this.#resumed = 0;
  }
}

/**
 * The result of a stretch and the one that follows it, under the same policy.
 *
 * @param a The first.
 * @param b The other, whose digest is of its own events alone.
 * @returns The result of both.
 * @example
 * ```ts
 * import { joinResults, Replayer, UPSTREAM } from "@vmtape/vmtape/engine";
 * const one = new Replayer(UPSTREAM).finish();
 * if (joinResults(one, one).policy !== "linux-7.3") throw new Error();
 * ```
 */
export function joinResults(a: ReplayResult, b: ReplayResult): ReplayResult {
  const outcomes = new Map([...a.outcomes].map(([kind, row]) => [kind, { ...row }]));
  for (const [kind, { compared, agreed }] of b.outcomes) {
    const row = outcomes.get(kind) ?? { compared: 0, agreed: 0 };
    row.compared += compared;
    row.agreed += agreed;
    outcomes.set(kind, row);
  }
  const unmodelled = new Map(a.unmodelled);
  for (const [what, count] of b.unmodelled) {
    unmodelled.set(what, (unmodelled.get(what) ?? 0) + count);
  }
  const digest = joinDigests(parseInt(a.digest, 16), parseInt(b.digest, 16), b.digested);
  return {
    policy: a.policy,
    events: a.events + b.events,
    runs: a.runs + b.runs,
    agreed: a.agreed + b.agreed,
    skipped: a.skipped + b.skipped,
    outcomes,
    digest: digest.toString(16).padStart(8, "0"),
    digested: a.digested + b.digested,
    unmodelled,
    partial: a.partial ?? b.partial,
  };
}
