/**
 * Replaying the end of a trace, from a checkpoint.
 *
 * @module
 */
import type { Checkpoint } from "../codecs/mod.ts";
import { CheckpointError } from "../engine/replay/checkpoint.ts";
import { type Mismatch, Replayer, type ReplayResult } from "../engine/replay/replayer.ts";
import { MemoizedReplayer } from "../engine/memo/replayer.ts";
import type { Policy } from "../engine/policy.ts";
import type { Context } from "./context.ts";
import { openTraceFile } from "./inputs.ts";
import { checkedState } from "./shares/groups.ts";

/**
 * Replays the end of a trace: from the last checkpoint of the policy at or before an event, or from
 * the start when there is none.
 *
 * @param context Where notes go.
 * @param path The trace.
 * @param policy The policy.
 * @param from Number of the event from which on mismatches are told.
 * @param report Receives them.
 * @param each Whether runs that repeat others are carried out, too.
 * @returns What was found from there on.
 */
export async function replayFrom(
  context: Context,
  path: string,
  policy: Policy,
  from: number,
  report: (mismatch: Mismatch) => void,
  each: boolean,
): Promise<ReplayResult> {
  using opened = await openTraceFile(path);
  const { trace: file } = opened;
  const replayer = new (each ? Replayer : MemoizedReplayer)(policy, (mismatch) => {
    if (mismatch.event >= from) report(mismatch);
  });
  const begin = resume(context, replayer, await file.checkpoint(from));
  using progress = context.progress("events");
  let events = begin;
  for await (const event of file.events({ from: begin })) {
    replayer.feed(event);
    if (++events % 10_000 === 0) progress.update(events - begin);
  }
  progress.done();
  file.requireIntact();
  return replayer.finish();
}

function resume(
  context: Context,
  replayer: Replayer | MemoizedReplayer,
  found: Checkpoint | undefined,
): number {
  if (found === undefined) {
    context.note("There is no checkpoint before it: replaying from the start");
    return 0;
  }
  try {
    if (!found.bound) {
      throw new CheckpointError("The checkpoint does not belong to what precedes it");
    }
    replayer.resume(checkedState(found));
  } catch (error) {
    if (!(error instanceof CheckpointError)) throw error;
    context.note(`${error.message}: replaying from the start`);
    return 0;
  }
  context.note(`Replaying from the checkpoint at event ${found.event}`);
  return found.event;
}
