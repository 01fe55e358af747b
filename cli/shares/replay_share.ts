import type { Checkpoint, TraceFile } from "../../codecs/mod.ts";
import type { TraceEvent } from "../../engine/event.ts";
import { copyEvent } from "../../codecs/mod.ts";
import type { Policy } from "../../engine/policy.ts";
import { progressOf } from "../../engine/replay/checkpoint.ts";
import { recordedPolicy } from "../../engine/replay/context.ts";
import { joinDigests } from "../../engine/replay/digest.ts";
import {
  type Mismatch,
  type OutcomeCount,
  Replayer,
  type ReplayOptions,
  type ReplayResult,
} from "../../engine/replay/replayer.ts";
import { UsageError } from "../errors.ts";
import { loadPolicy } from "../policy_input.ts";
import { Apart, checkedState, type Group } from "./groups.ts";

const EXAMPLES = 3;

/** Mismatches of one field. */
export interface MismatchGroup {
  /** The field. */
  readonly field: string;
  /** How many. */
  count: number;
  /** The first few. */
  readonly examples: Mismatch[];
}

/** Collects mismatches by field; memory does not grow with their number. */
export class Mismatches {
  readonly #groups = new Map<string, MismatchGroup>();
  #count = 0;

  /** How many there are. */
  get count(): number {
    return this.#count;
  }

  /** Takes one. */
  add(mismatch: Mismatch): void {
    this.#take(mismatch.field, 1, [mismatch]);
  }

  /** Takes those of another collection, which come after these. */
  join({ count, fields }: MismatchTotal): void {
    for (const { field, count, examples } of fields) this.#take(field, count, examples);
    this.#count += count - fields.reduce((sum, group) => sum + group.count, 0);
  }

  /** The most frequent first. */
  groups(): MismatchGroup[] {
    return [...this.#groups.values()].sort((a, b) =>
      b.count - a.count || (a.field < b.field ? -1 : 1)
    );
  }

  #take(field: string, count: number, examples: readonly Mismatch[]): void {
    this.#count += count;
    let group = this.#groups.get(field);
    if (!group) this.#groups.set(field, group = { field, count: 0, examples: [] });
    group.count += count;
    group.examples.push(...examples.slice(0, EXAMPLES - group.examples.length));
  }
}

/** What a collection of mismatches holds. */
export interface MismatchTotal {
  /** How many there are. */
  readonly count: number;
  /** By field. */
  readonly fields: readonly MismatchGroup[];
}

/** Replays a trace, under one policy or under those it was recorded with. */
export class ReplaySession {
  readonly #results: ReplayResult[] = [];
  readonly #report: (mismatch: Mismatch) => void;
  readonly #fixed: Policy | undefined;
  readonly #options: ReplayOptions;
  #replayer: Replayer | undefined;
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
   * @param each Whether runs that repeat others are carried out, too.
   * @param from Number of the first event.
   */
  constructor(
    policy: Policy | undefined,
    report: (mismatch: Mismatch) => void,
    each: boolean,
    from = 0,
  ) {
    this.#report = report;
    this.#options = { repeats: !each };
    this.#fixed = policy;
    this.#base = this.#events = from;
  }

  /** The policy to go on under, when a session was recorded under another than the one before. */
  needs(event: TraceEvent): string | undefined {
    if (this.#fixed || event.kind !== "session") return undefined;
    const name = recordedPolicy(event);
    return name === this.#replayer?.policy.name ? undefined : name;
  }

  /** Goes on under another policy. */
  begin(policy: Policy): void {
    this.#end();
    const base = this.#base = this.#events;
    this.#replayer = new Replayer(
      policy,
      (mismatch) => this.#report({ ...mismatch, event: mismatch.event + base }),
      this.#options,
    );
  }

  /** Goes on from a replay's state. */
  resume(policy: Policy, state: Uint8Array): void {
    this.#replayer = new Replayer(policy, this.#report, this.#options);
    this.#replayer.resume(state, true);
    this.#resumed = this.#events;
  }

  /** Takes the next event; its images need to be valid only during the call. */
  feed(event: TraceEvent): void {
    if (!this.#replayer) {
      if (!this.#fixed) {
        throw new UsageError(
          "The trace does not say which policy it was recorded under; name one with --policy",
        );
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

  /** Ends the trace. */
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

/** A replay's result without maps. */
export type PlainResult = Omit<ReplayResult, "outcomes" | "unmodelled"> & {
  readonly outcomes: readonly (readonly [string, OutcomeCount])[];
  readonly unmodelled: readonly (readonly [string, number])[];
};

/** What replaying one group found. */
export interface ReplayShare {
  /** Number of the group's first event. */
  readonly from: number;
  /** A result for each stretch of one policy. */
  readonly results: readonly PlainResult[];
  /** Mismatches by field. */
  readonly found: MismatchTotal;
  /** Every mismatch, when they are wanted. */
  readonly all: readonly Mismatch[];
}

/** Replays a group. */
export async function replayShare(
  trace: TraceFile,
  group: Group,
  whole: boolean,
  policy: Policy | undefined,
  { all: listed, each }: { readonly all: boolean; readonly each: boolean },
): Promise<ReplayShare> {
  const found = new Mismatches();
  const all: Mismatch[] = [];
  const session = new ReplaySession(
    policy,
    (mismatch) => {
      found.add(mismatch);
      if (listed) all.push(mismatch);
    },
    each,
    group.from,
  );
  if (group.resumed) {
    const state = checkedState(await trace.checkpoint(group.from) as Checkpoint);
    session.resume(policy ?? await loadPolicy(String(progressOf(state)["policy"])), state);
  }
  const apart = new Apart(whole);
  for await (const block of trace.blocks(group)) {
    const events = block.shared();
    let other: string | undefined;
    while ((other = session.feedAll(events, apart)) !== undefined) {
      session.begin(await loadPolicy(other));
    }
  }
  const results = session.finish().map((result) => ({
    ...result,
    outcomes: [...result.outcomes],
    unmodelled: [...result.unmodelled],
  }));
  return { from: group.from, results, found: { count: found.count, fields: found.groups() }, all };
}

/** Puts groups together again, in order. */
export class ReplayTotal {
  /** Mismatches of all groups. */
  readonly found = new Mismatches();
  /** A result for each stretch of one policy. */
  readonly results: ReplayResult[] = [];

  /** Adds the next group. */
  add({ results, found }: ReplayShare): void {
    this.found.join(found);
    for (const plain of results) {
      const last = this.results.at(-1);
      const next = {
        ...plain,
        outcomes: new Map(plain.outcomes),
        unmodelled: new Map(plain.unmodelled),
      };
      if (last?.policy === next.policy) this.results[this.results.length - 1] = join(last, next);
      else this.results.push(next);
    }
  }
}

function join(a: ReplayResult, b: ReplayResult): ReplayResult {
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
