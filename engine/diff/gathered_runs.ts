/**
 * Gathering the runs of a part of a trace that end differently for the same reasons, so that others
 * find out from the first of them what they would have found in all.
 *
 * @module
 */
import { meaningOf, type Own, ownOf, partsOf } from "./finding_parts.ts";
import { Owners, pairOf } from "./owners.ts";
import type { RunDifference } from "./run_difference.ts";

/** That a field's own difference last went to a finding: the policies, the field, the finding. */
export type OwnerSetting = readonly [pair: string, name: string, part: string];

/** Runs that belong to the same findings, whatever was found before their part of the trace. */
export interface GatheredRuns {
  /** What differs in the first of them. */
  readonly difference: RunDifference;
  /** How many they are. */
  readonly times: number;
  /** Of each of its fields, the bits that differ in any of them. */
  readonly differing: readonly bigint[];
  /** What became of owners since the runs that were gathered before it, as the first of them began. */
  readonly owners: readonly OwnerSetting[];
}

/** A field's difference that a run of some kind makes its own, or asks the owner of. */
interface Use {
  readonly name: string | undefined;
  /** What it makes the owner; undefined where it asks. */
  readonly part: string | undefined;
}

/** Runs that belong to the same findings once it is known whom follow-ons come from. */
interface Kind {
  readonly pair: string;
  readonly uses: readonly Use[];
  /** By the owners that they ask for. */
  readonly gathered: Map<string, Gathering>;
  /** Those of the last run of the kind, and the state of owners that it changed nothing of. */
  last: Gathering | undefined;
  settled: number;
}

interface Gathering {
  readonly difference: RunDifference;
  times: number;
  readonly differing: bigint[];
  readonly owners: readonly OwnerSetting[];
}

/**
 * Gathers what {@linkcode Findings} would take, for it to take later, behind others.
 *
 * Which findings a run belongs to depends on the runs before it only by the owners of the fields that
 * it has from before. Those of fields that differed since this began are known. Of others it is known
 * at least whether the question is the same as an earlier one.
 *
 * @example
 * ```ts
 * import { builtinScenarios, recordScenarios } from "@vmtape/vmtape/traces";
 * import { Differ, EARLY_EXIT, Findings, RunGatherer, UPSTREAM } from "@vmtape/vmtape/engine";
 * const gatherer = new RunGatherer();
 * const differ = new Differ([EARLY_EXIT, UPSTREAM], (difference) => gatherer.add(difference));
 * const scenarios = builtinScenarios("gif-left-set");
 * for await (const event of recordScenarios(scenarios, EARLY_EXIT, { repeat: 20 })) {
 *   differ.feed(event);
 * }
 * differ.finish();
 * const findings = new Findings();
 * for (const runs of gatherer.runs) findings.gather(runs);
 * findings.settle(gatherer.owners);
 * if (findings.list()[0]?.runs !== 20 || gatherer.runs.length === 20) throw new Error();
 * ```
 */
export class RunGatherer {
  readonly #kinds = new Map<string, Kind>();
  readonly #all: Gathering[] = [];
  readonly #owners = new Map<string, Owners>();
  /** Counts changes of owners. */
  #state = 0;
  /** Owners that became others since the last gathering that is new. */
  readonly #changed = new Map<string, OwnerSetting>();

  /** Takes the differences of the next run. */
  add(difference: RunDifference): void {
    const own = ownOf(difference);
    const kind = this.#kindOf(difference, own);
    if (kind.last !== undefined && kind.settled === this.#state) {
      count(kind.last, difference);
      return;
    }
    const state = this.#state;
    const owners = this.#ownersOf(kind.pair);
    const made: OwnerSetting[] = [];
    let asked = "";
    for (const { name, part } of kind.uses) {
      if (part === undefined) asked += `${answerOf(owners, name)}\n`;
      else if (owners.set(name as string, part)) {
        this.#state++;
        made.push([kind.pair, name as string, part]);
      }
    }
    let gathering = kind.gathered.get(asked);
    if (gathering === undefined) {
      const differing = difference.fields.map((field) => field.differing);
      gathering = { difference, times: 1, differing, owners: [...this.#changed.values()] };
      this.#changed.clear();
      kind.gathered.set(asked, gathering);
      this.#all.push(gathering);
    } else {
      count(gathering, difference);
      for (const setting of made) this.#changed.set(`${setting[0]} ${setting[1]}`, setting);
    }
    kind.last = gathering;
    // A run that makes owners may be asking for others when it comes again.
    kind.settled = this.#state === state ? state : -1;
  }

  /** What was gathered, to be taken in this order. */
  get runs(): readonly GatheredRuns[] {
    return this.#all;
  }

  /** What became of owners since the last of {@linkcode RunGatherer.runs} began. */
  get owners(): readonly OwnerSetting[] {
    return [...this.#changed.values()];
  }

  #kindOf(difference: RunDifference, own: Own): Kind {
    const meaning = meaningOf(difference, own);
    let kind = this.#kinds.get(meaning);
    if (kind === undefined) {
      const uses: Use[] = [];
      partsOf(difference, own, {
        own: (name, part) => uses.push({ name, part }),
        ownerOf(name) {
          uses.push({ name, part: undefined });
          return "";
        },
      });
      const pair = pairOf(difference.policies);
      kind = { pair, uses, gathered: new Map(), last: undefined, settled: -1 };
      this.#kinds.set(meaning, kind);
    }
    return kind;
  }

  #ownersOf(pair: string): Owners {
    let owners = this.#owners.get(pair);
    if (owners === undefined) this.#owners.set(pair, owners = new Owners());
    return owners;
  }
}

/** One more run. */
function count(gathering: Gathering, { fields }: RunDifference): void {
  gathering.times++;
  const { difference, differing } = gathering;
  if (fields === difference.fields) return;
  for (let i = 0; i < differing.length; i++) {
    differing[i]! |= fields[i]!.differing;
  }
}

/**
 * The owner of a field, as far as it is known; the same text only where it is the same whatever was
 * before: then which fields differed since, in which order, and their owners, decide.
 */
function answerOf(owners: Owners, name: string | undefined): string {
  return owners.known(name) ?? `?${[...owners.all].flat().join("\r")}`;
}
