/**
 * The policy that a trace is replayed under when nobody names one.
 *
 * @module
 */
import { VmtapeError } from "../engine/error.ts";
import type { TraceEvent } from "../engine/event.ts";
import { UPSTREAM } from "../engine/policies/mod.ts";
import { policyOfSession } from "../engine/policies/session.ts";
import { identify } from "../engine/replay/identify.ts";
import { UnknownPolicyError } from "../engine/session.ts";
import type { Context } from "./context.ts";
import { UsageError } from "./errors.ts";
import { STANDARD } from "./files.ts";
import { openTrace } from "./inputs.ts";

async function* eventsOf(path: string): AsyncGenerator<TraceEvent> {
  const trace = await openTrace(path);
  for await (const block of trace.blocks()) yield* block;
}

/** What the sessions of a trace say of their policies, as they are met. */
export class SaidPolicies {
  /** By policy, why it is that one where a session does not name it. */
  readonly reasons = new Map<string, string>();

  /**
   * Looks at the next event.
   *
   * @throws {UnknownPolicyError} When it is a session that says nothing of its policy.
   */
  check(event: TraceEvent): void {
    if (event.kind !== "session") return;
    const found = policyOfSession(event.meta);
    if (found === undefined) throw new UnknownPolicyError();
    if (found.why !== undefined) this.reasons.set(found.name, found.why);
  }

  /** Tells which policies were not named by the sessions themselves. */
  tell(context: Context): void {
    for (const [name, why] of this.reasons) context.note(`Replayed under ${name}: ${why}`);
  }
}

/** Whether a trace begins with a session that says something; so do those without events. */
async function beginsSaid(path: string): Promise<boolean> {
  const trace = await openTrace(path);
  for await (const block of trace.blocks()) {
    const first = block.decoder().next();
    if (first?.kind !== "session") return false;
    return policyOfSession(first.meta) !== undefined;
  }
  return true;
}

/** What the sessions of a trace say; undefined when one of them says nothing. */
async function saidBy(path: string): Promise<SaidPolicies | undefined> {
  const said = new SaidPolicies();
  const trace = await openTrace(path);
  for await (const block of trace.blocks()) {
    const decoder = block.decoder();
    // Most blocks hold no session, which the kinds of their events tell.
    for (let at; (at = decoder.find("session")) !== undefined;) {
      while (decoder.done < at) decoder.next();
      try {
        said.check(decoder.next()!);
      } catch (error) {
        if (error instanceof UnknownPolicyError) return undefined;
        throw error;
      }
    }
  }
  return said;
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
  const said = await saidBy(path);
  if (said !== undefined) {
    said.tell(context);
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

/**
 * Replays a trace under the policies that its sessions say, and where one says nothing, all of it
 * under the one that is picked: reading it twice is only worth it for those.
 *
 * @param context Where to say which.
 * @param path The trace.
 * @param replay Replays it under a policy or, without one, under those of the sessions, each of which
 * it has checked. Nothing may come of it until it is done: it may be called again.
 * @returns What that returns.
 */
export async function underPicked<R>(
  context: Context,
  path: string,
  replay: (name: string | undefined, said?: SaidPolicies) => Promise<R>,
): Promise<R> {
  if (path === STANDARD) return await replay(undefined);
  if (!await beginsSaid(path)) return await replay(await pickedPolicy(context, path));
  const said = new SaidPolicies();
  let result: R;
  try {
    result = await replay(undefined, said);
  } catch (error) {
    if (!(error instanceof VmtapeError || error instanceof UsageError)) throw error;
    const name = await pickedPolicy(context, path);
    if (name === undefined) throw error;
    return await replay(name);
  }
  said.tell(context);
  return result;
}
