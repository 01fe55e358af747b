/**
 * Sharing out a trace: groups of blocks that can be carried out apart. A run
 * depends on everything since its session began, so a group begins with a session,
 * or at a checkpoint, which holds what came of it.
 *
 * @module
 */
import type { Checkpoint, TraceFile } from "../../codecs/mod.ts";
import type { TraceEvent } from "../../engine/event.ts";
import { POLICIES } from "../../engine/policies/mod.ts";
import type { Policy } from "../../engine/policy.ts";
import { checkpointDigest, CheckpointError, progressOf } from "../../engine/replay/checkpoint.ts";
import { policyFingerprint } from "../../engine/replay/fingerprint.ts";
import { showsTransitions } from "../../engine/replay/logged_runs.ts";
import { UsageError } from "../errors.ts";

/** A place where events may part. */
interface Cut {
  /** Number of the first event behind it. */
  readonly from: number;
  /** Whether it is at a checkpoint, instead of before a session. */
  readonly resumed?: boolean;
}

/** Events that are carried out together, from a cut on. */
export interface Group extends Cut {
  /** Number of the first behind them. */
  readonly to: number;
}

/** Thrown when a group turns out to depend on what is outside of it. */
export class IndivisibleError extends UsageError {
  /** Says what to do. */
  constructor() {
    super("The trace has several vCPUs or a log without memory: leave --shard out");
  }
}

/** Whether a machine begins here, with all that says how to go on. */
function begins(event: TraceEvent, named: boolean): boolean {
  if (event.kind !== "session" || showsTransitions(event.meta)) return false;
  const { policy, kernel } = event.meta ?? {};
  return named || typeof (policy ?? kernel) === "string";
}

/** How many events the next group is to have, at least 1 while there are any, of so many that are left, behind so many groups. */
export type GroupSize = (left: number, groups: number) => number;

/**
 * Cuts a trace into groups.
 *
 * The index leads to each place where one should end, and to the checkpoints; from
 * there on blocks are read up to the next session.
 *
 * @param trace The trace.
 * @param size How large groups are to be; they are larger where there is no place to cut.
 * @param named Whether sessions need not say their policy.
 * @param policy The policy to replay under; undefined for the one a session says, and null where
 * checkpoints are of no use.
 * @returns The groups as they are found, in order, without gaps.
 */
export async function* groupsOf(
  trace: TraceFile,
  size: GroupSize,
  named: boolean,
  policy: Policy | undefined | null,
): AsyncGenerator<Group, void, undefined> {
  const total = trace.eventCount;
  let begin: Cut | undefined = { from: 0 };
  for (let groups = 0; begin !== undefined; groups++) {
    const target: number = begin.from + size(total - begin.from, groups);
    const end: Cut | undefined = target < total
      ? await cutAt(trace, target, begin.from, named, policy)
      : undefined;
    yield { ...begin, to: end?.from ?? total };
    begin = end;
  }
}

/** The place to cut nearest to an event and behind another; undefined when there is none. */
async function cutAt(
  trace: TraceFile,
  target: number,
  last: number,
  named: boolean,
  policy: Policy | undefined | null,
): Promise<Cut | undefined> {
  const checkpoints = policy === null ? [] : trace.checkpoints;
  const usable = async (event: number) => policy !== null && await resumable(trace, event, policy);
  const before = checkpoints.findLast((event) => event <= target) ?? last;
  if (before > last && await usable(before)) return { from: before, resumed: true };
  for (let at: number | undefined = target; at !== undefined;) {
    const from: number = at;
    const after = checkpoints.find((event) => event > from);
    const session = await nextSession(trace, from, after ?? trace.eventCount, named);
    if (session !== undefined) return { from: session };
    if (after !== undefined && await usable(after)) return { from: after, resumed: true };
    at = after;
  }
  return undefined;
}

/** Whether a replay under a policy can begin at a checkpoint. */
async function resumable(
  trace: TraceFile,
  event: number,
  policy: Policy | undefined,
): Promise<boolean> {
  const found = await trace.checkpoint(event);
  if (found?.bound !== true) return false;
  try {
    const { policy: own, fingerprint, recorded } = progressOf(checkedState(found));
    const wanted = policy ??
      (Object.hasOwn(POLICIES, String(recorded)) ? POLICIES[String(recorded)] : undefined);
    return own === wanted?.name && fingerprint === (wanted && policyFingerprint(wanted));
  } catch (error) {
    if (error instanceof CheckpointError) return false;
    throw error;
  }
}

/** The state of a checkpoint, which is as it was written. */
export function checkedState({ state, digest }: Checkpoint): Uint8Array {
  if (checkpointDigest(state).toHex() !== digest.toHex()) {
    throw new CheckpointError("The checkpoint is damaged");
  }
  return state;
}

/** The first session in a range of events; undefined when there is none. */
async function nextSession(
  trace: TraceFile,
  from: number,
  to: number,
  named: boolean,
): Promise<number | undefined> {
  for await (const block of trace.blocks({ from, to })) {
    const { firstEvent } = block.head;
    const found = block.decoder().find("session", Math.max(0, from - firstEvent));
    if (found === undefined) continue;
    // Whether it says enough is in the event itself, which only the ones before it tell.
    let number = Math.max(from, firstEvent);
    for (const event of block.shared()) {
      if (begins(event, named)) return number;
      number++;
    }
  }
  return undefined;
}

/** Watches that a group depends on nothing outside of it. */
export class Apart {
  readonly #whole: boolean;
  #vcpu: number | undefined;

  /** @param whole Whether the group goes to the end of the trace, so that it depends on nothing after it. */
  constructor(whole: boolean) {
    this.#whole = whole;
  }

  /**
   * Looks at the group's next event.
   *
   * @throws {IndivisibleError} When the group depends on what is outside of it.
   */
  check(event: TraceEvent): void {
    this.#vcpu ??= event.vcpu;
    if (this.#whole) return;
    if (
      event.vcpu !== this.#vcpu || event.kind === "session" && showsTransitions(event.meta)
    ) throw new IndivisibleError();
  }
}

/**
 * The events of a group.
 *
 * @param trace The trace.
 * @param group The group.
 * @param whole Whether it goes to the end of the trace, so that it depends on nothing after it.
 * @param take Receives each event, valid until the next only.
 * @throws {IndivisibleError} When the group depends on what is outside of it.
 */
export async function eachEvent(
  trace: TraceFile,
  group: Group,
  whole: boolean,
  take: (event: TraceEvent) => void,
): Promise<void> {
  const apart = new Apart(whole);
  for await (const block of trace.blocks(group)) {
    for (const event of block.shared()) {
      apart.check(event);
      take(event);
    }
  }
}
