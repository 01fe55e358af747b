/**
 * A replay that carries out every run once.
 *
 * @module
 */
import type { TraceEvent } from "../event.ts";
import type { Policy } from "../policy.ts";
import { RunPaths } from "../paths/paths.ts";
import type { Mismatch } from "../replay/agreement.ts";
import {
  Replayer,
  type ReplayMark,
  type ReplayResult,
  type ReplayState,
} from "../replay/replayer.ts";
import type { Added } from "../replay/totals.ts";
import { Memo, type Memoizable } from "./memo.ts";

/** What a stretch of the trace counts and reports. */
interface Effect {
  readonly added: Added;
  /** Events are counted from the stretch's first. */
  readonly mismatches: readonly Mismatch[];
}

/**
 * Replays as {@linkcode Replayer} does, and finds the same; but a run that begins in the same state
 * as an earlier one, with the same events byte for byte, is not carried out again. Under policies
 * with steps or checks of one's own every run is.
 *
 * @example
 * ```ts
 * import { builtinScenarios, recordScenarios } from "@vmtape/vmtape/traces";
 * import { MemoizedReplayer, UPSTREAM } from "@vmtape/vmtape/engine";
 * const replayer = new MemoizedReplayer(UPSTREAM);
 * const scenarios = builtinScenarios("enter");
 * for await (const event of recordScenarios(scenarios, UPSTREAM, { repeat: 20 })) {
 *   replayer.feed(event);
 * }
 * const { runs, agreed } = replayer.finish();
 * if (runs !== 20 || agreed !== runs || replayer.repeated === 0) throw new Error();
 * ```
 */
export class MemoizedReplayer {
  readonly #replayer: Replayer;
  readonly #report: (mismatch: Mismatch) => void;
  readonly #memo: Memo<Effect>;
  #events = 0;
  /** While the effect of a stretch is being collected: the counts at its beginning, and its mismatches. */
  #mark: ReplayMark | undefined;
  #markedAt = 0;
  #reported: Mismatch[] = [];

  /**
   * Begins before the trace's first event.
   *
   * @param policy The policy.
   * @param report Receives every mismatch as it is found.
   * @param events Events before the first one that it takes.
   * @param paths The paths that it may follow; those of an earlier replay go on to be of use.
   */
  constructor(
    policy: Policy,
    report: (mismatch: Mismatch) => void = () => {},
    events = 0,
    paths: RunPaths = new RunPaths(policy, true),
  ) {
    this.#report = report;
    this.#events = events;
    this.#replayer = new Replayer(policy, (mismatch) => {
      if (this.#mark !== undefined) this.#reported.push(mismatch);
      report(mismatch);
    }, paths);
    this.#replayer.events = events;
    this.#memo = new Memo(this.#host(), [policy]);
  }

  /** The policy. */
  get policy(): Policy {
    return this.#replayer.policy;
  }

  /** Events so far that were not carried out, since the same had been from the same state. */
  get repeated(): number {
    return this.#memo.repeated;
  }

  /**
   * Takes the next event of the trace.
   *
   * @param event The event; its images need to be valid only during the call.
   * @throws {ReplayError} When an input lacks what is needed to carry it out.
   */
  feed(event: TraceEvent): void {
    this.#memo.feed(event, this.#events++);
  }

  /** Passes over an event of a vCPU that others look after; a run under way is over. */
  passOver(): void {
    this.#flush();
    this.#replayer.state();
    this.#events++;
  }

  /**
   * Ends the trace.
   *
   * @returns What was found.
   */
  finish(): ReplayResult {
    this.#flush();
    return this.#replayer.finish();
  }

  /** As {@linkcode Replayer.save}. */
  save(): Uint8Array | undefined {
    this.#flush();
    return this.#replayer.save();
  }

  /**
   * As {@linkcode Replayer.resume}.
   *
   * @param state The state.
   * @param apart Whether the digest is to be of what follows alone.
   * @throws {CheckpointError} When it is damaged, or of another policy.
   */
  resume(state: Uint8Array, apart = false): void {
    this.#replayer.resume(state, apart);
    this.#events = this.#replayer.events;
  }

  #flush(): void {
    this.#memo.flush();
    this.#replayer.events = this.#events;
  }

  #host(): Memoizable<Effect> {
    const replayer = this.#replayer;
    return {
      carryOut: (event, index) => {
        replayer.events = index;
        replayer.feed(event);
      },
      get resting() {
        return replayer.resting;
      },
      rest: () => {
        const state = replayer.state();
        if (state === undefined) return undefined;
        const { vcpu, context } = state;
        return { vcpus: [vcpu], key: JSON.stringify(context), rest: context };
      },
      vcpu: () => replayer.vcpu,
      restore: ([vcpu], context) => {
        replayer.restore({ vcpu, context } as ReplayState);
      },
      begin: (index) => {
        this.#mark = replayer.mark();
        this.#markedAt = index;
        this.#reported = [];
      },
      end: () => this.#effect(),
      apply: ({ added, mismatches }, index) => {
        replayer.add(added);
        for (const found of mismatches) this.#report({ ...found, event: found.event + index });
      },
    };
  }

  #effect(): Effect | undefined {
    const mark = this.#mark;
    this.#mark = undefined;
    const added = mark && this.#replayer.since(mark);
    const at = this.#markedAt;
    return added && {
      added,
      mismatches: this.#reported.map((found) => ({ ...found, event: found.event - at })),
    };
  }
}
