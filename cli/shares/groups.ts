/**
 * Sharing out a trace: groups of blocks that can be carried out apart. A run
 * depends on everything since its session began, so a group begins with a session.
 *
 * @module
 */
import type { TraceFile } from "../../codecs/mod.ts";
import type { TraceEvent } from "../../engine/event.ts";
import { showsTransitions } from "../../engine/replay/units.ts";
import { UsageError } from "../errors.ts";

/** Events that are carried out together. */
export interface Group {
  /** Number of the first. */
  readonly from: number;
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

/**
 * Cuts a trace into groups of about the same number of events.
 *
 * The index leads to each place where one should end; from there on blocks are
 * read up to the next session.
 *
 * @param trace The trace.
 * @param count How many groups are wanted; fewer come when there are fewer sessions.
 * @param named Whether sessions need not say their policy.
 * @returns The groups, in order, without gaps.
 */
export async function groupsOf(trace: TraceFile, count: number, named: boolean): Promise<Group[]> {
  const total = trace.eventCount;
  const cuts = [0];
  let last = 0;
  for (let i = 1; i < count && last < total; i++) {
    const target = Math.floor(i * total / count);
    // The group before it goes to a session beyond it already.
    if (target <= last) continue;
    last = await nextSession(trace, target, named);
    if (last < total) cuts.push(last);
  }
  return cuts.map((from, i) => ({ from, to: cuts[i + 1] ?? total }));
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
  take: (event: TraceEvent) => void | Promise<void>,
): Promise<void> {
  let vcpu: number | undefined;
  for await (const block of trace.blocks(group)) {
    for (const event of block.shared()) {
      vcpu ??= event.vcpu;
      const apart = event.vcpu === vcpu &&
        !(event.kind === "session" && showsTransitions(event.meta));
      if (!apart && !whole) throw new IndivisibleError();
      const waiting = take(event);
      if (waiting !== undefined) await waiting;
    }
  }
}
