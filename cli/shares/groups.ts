/**
 * Sharing out a trace: groups of blocks that can be carried out apart. A run
 * depends on everything since its session began, so a group begins with a session,
 * or at a checkpoint, which holds what came of it.
 *
 * @module
 */
import type { Checkpoint, TraceFile } from "../../codecs/mod.ts";
import type { TraceEvent } from "../../engine/event.ts";
import { checkpointDigest, CheckpointError, progressOf } from "../../engine/replay/checkpoint.ts";
import { showsTransitions } from "../../engine/replay/units.ts";
import { UsageError } from "../errors.ts";

/** Events that are carried out together. */
export interface Group {
  /** Number of the first. */
  readonly from: number;
  /** Number of the first behind them. */
  readonly to: number;
  /** Whether it begins at a checkpoint, instead of with a session. */
  readonly resumed?: boolean;
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

/**
 * Cuts a trace into groups of about the same number of events.
 *
 * The index leads to each place where one should end; from there on blocks are
 * read up to the next session.
 *
 * @param trace The trace.
 * @param count How many groups are wanted; fewer come when there are fewer places to cut.
 * @param named Whether sessions need not say their policy.
 * @param policy Name of the policy to replay under; undefined for the one a session says, and null
 * where checkpoints are of no use.
 * @returns The groups, in order, without gaps.
 */
export async function groupsOf(
  trace: TraceFile,
  count: number,
  named: boolean,
  policy: string | undefined | null,
): Promise<Group[]> {
  const total = trace.eventCount;
  const cuts: Omit<Group, "to">[] = [{ from: 0 }];
  let last = 0;
  for (let i = 1; i < count && last < total; i++) {
    const target = Math.floor(i * total / count);
    // The group before it goes beyond it already.
    if (target <= last) continue;
    const checkpoint = policy === null ? undefined : await usableBefore(trace, target, policy);
    if (checkpoint !== undefined && checkpoint > last) {
      cuts.push({ from: last = checkpoint, resumed: true });
      continue;
    }
    last = await nextSession(trace, target, named);
    if (last < total) cuts.push({ from: last });
  }
  return cuts.map((cut, i) => ({ ...cut, to: cuts[i + 1]?.from ?? total }));
}

/** The event of the last checkpoint at or before one, if a replay under the policy can begin there. */
async function usableBefore(
  trace: TraceFile,
  event: number,
  policy: string | undefined,
): Promise<number | undefined> {
  const found = await trace.checkpoint(event);
  if (found === undefined) return undefined;
  try {
    const { policy: own, recorded } = progressOf(checkedState(found));
    return own === (policy ?? recorded) ? found.event : undefined;
  } catch (error) {
    if (error instanceof CheckpointError) return undefined;
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

async function nextSession(trace: TraceFile, from: number, named: boolean): Promise<number> {
  for await (const block of trace.blocks({ from })) {
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
  return trace.eventCount;
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
