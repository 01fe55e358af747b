/**
 * The policy that a trace is replayed under when nobody names one.
 *
 * @module
 */
import type { TraceEvent } from "../engine/event.ts";
import { UPSTREAM } from "../engine/policies/mod.ts";
import { policyOfSession } from "../engine/policies/session.ts";
import { identify } from "../engine/replay/identify.ts";
import type { Context } from "./context.ts";
import { STANDARD } from "./files.ts";
import { openTrace } from "./inputs.ts";

async function* eventsOf(path: string): AsyncGenerator<TraceEvent> {
  const trace = await openTrace(path);
  for await (const block of trace.blocks()) yield* block;
}

/** What the sessions of a trace say of their policy: whether all do, and why it is that one. */
async function said(path: string): Promise<{ all: boolean; reasons: Map<string, string> }> {
  const reasons = new Map<string, string>();
  let all = true;
  const trace = await openTrace(path);
  for await (const block of trace.blocks()) {
    // Most blocks hold no session, which the kinds of their events tell.
    if (block.decoder().find("session") === undefined) continue;
    for (const event of block.shared()) {
      if (event.kind !== "session") continue;
      const found = policyOfSession(event.meta);
      if (found === undefined) all = false;
      else if (found.why !== undefined) reasons.set(found.name, found.why);
    }
  }
  return { all, reasons };
}

/**
 * Picks a policy, and says so where the trace does not name it.
 *
 * @param context Where to say it.
 * @param path The trace.
 * @returns Name of the policy; undefined when each session tells its own, and for standard input,
 * which cannot be read twice.
 */
export async function pickedPolicy(context: Context, path: string): Promise<string | undefined> {
  if (path === STANDARD) return undefined;
  const { all, reasons } = await said(path);
  if (all) {
    for (const [name, why] of reasons) context.note(`Replayed under ${name}: ${why}`);
    return undefined;
  }
  const { verdict, candidates, sentence } = await identify(() => eventsOf(path));
  const undecided = verdict.kind === "undecided" && verdict.policies.includes(UPSTREAM.name);
  const name = undecided ? UPSTREAM.name : candidates[0]!.policy;
  context.note(
    `Replayed under ${name}, since the trace does not say what it was recorded on. ${sentence}`,
  );
  return name;
}
