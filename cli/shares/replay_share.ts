/**
 * A part of a replay, and adding parts up.
 *
 * @module
 */
import { plainMismatch } from "../../engine/replay/agreement.ts";
import type { Checkpoint, TraceFile } from "../../codecs/mod.ts";
import type { TraceEvent } from "../../engine/event.ts";
import type { Policy } from "../../engine/policy.ts";
import { RunPaths } from "../../engine/paths/paths.ts";
import { progressOf } from "../../engine/replay/checkpoint.ts";
import type { Mismatch, OutcomeCount, ReplayResult } from "../../engine/replay/replayer.ts";
import { joinResults, ReplaySession } from "../../engine/session.ts";
import { SaidPolicies } from "../picked_policy.ts";
import { loadPolicy } from "../policy_input.ts";
import { Apart, checkedState, type Group } from "./groups.ts";

const EXAMPLES = 3;

/** Mismatches of one field. */
export interface MismatchGroup {
  /** Name of the field in which replay and recording differ. */
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
    this.#take(mismatch.field, 1, [plainMismatch(mismatch)]);
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

/** A replay's result without maps. */
export type PlainResult = Omit<ReplayResult, "outcomes" | "unmodelled"> & {
  readonly outcomes: readonly (readonly [string, OutcomeCount])[];
  readonly unmodelled: readonly (readonly [string, number])[];
};

/** What replaying one group found. */
export interface ReplayShare {
  /** Number of the group's first event. */
  readonly from: number;
  /** Number of the first event behind it. */
  readonly to: number;
  /** A result for each stretch of one policy. */
  readonly results: readonly PlainResult[];
  /** Mismatches by field. */
  readonly found: MismatchTotal;
  /** Every mismatch, when they are wanted. */
  readonly all: readonly Mismatch[];
  /** Under the sessions' own policies: why it is that one where a session does not name it. */
  readonly reasons?: ReadonlyMap<string, string>;
}

/** The paths that a thread knows: what one group's runs went through, the next one's need not. */
export class KnownPaths {
  readonly #paths = new WeakMap<Policy, RunPaths>();

  /** Those of runs under a policy. */
  of(policy: Policy): RunPaths {
    let paths = this.#paths.get(policy);
    if (paths === undefined) this.#paths.set(policy, paths = new RunPaths(policy, true));
    return paths;
  }
}

/** Replays a group. */
export async function replayShare(
  trace: TraceFile,
  group: Group,
  whole: boolean,
  policy: Policy | undefined,
  { all: listed, each, processor }: {
    readonly all: boolean;
    readonly each: boolean;
    readonly processor?: string | undefined;
  },
  known: KnownPaths,
): Promise<ReplayShare> {
  const found = new Mismatches();
  const all: Mismatch[] = [];
  const session = new ReplaySession(
    policy,
    (mismatch) => {
      found.add(mismatch);
      if (listed) all.push(plainMismatch(mismatch));
    },
    { each, from: group.from, paths: (policy) => known.of(policy) },
  );
  if (group.resumed) {
    const state = checkedState(await trace.checkpoint(group.from) as Checkpoint);
    session.resume(policy ?? await loadPolicy(String(progressOf(state)["policy"])), state);
  }
  const apart = new Apart(whole);
  const said = policy === undefined ? new SaidPolicies() : undefined;
  const watch = said === undefined ? apart : {
    check(event: TraceEvent): void {
      apart.check(event);
      said.check(event);
    },
  };
  for await (const block of trace.blocks(group)) {
    const events = block.shared();
    let other: string | undefined;
    while ((other = session.feedAll(events, watch)) !== undefined) {
      session.begin(await loadPolicy(other, processor));
    }
  }
  const results = session.finish().map((result) => ({
    ...result,
    outcomes: [...result.outcomes],
    unmodelled: [...result.unmodelled],
  }));
  const { from, to } = group;
  const share = { from, to, results, found: { count: found.count, fields: found.groups() }, all };
  return said === undefined ? share : { ...share, reasons: said.reasons };
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
      if (last?.policy === next.policy) {
        this.results[this.results.length - 1] = joinResults(last, next);
      } else this.results.push(next);
    }
  }
}
