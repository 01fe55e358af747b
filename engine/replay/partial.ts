/**
 * Replaying logs that show single transitions and no memory: what is known is
 * held against what a policy makes of it, and the rest stays unknown.
 *
 * @module
 */
import type { MismatchValues } from "./agreement.ts";
import type { Policy } from "../policy.ts";
import { CHECK_SETS } from "../checks/sets.ts";
import type { CheckVerdict } from "../checks/check_verdict.ts";
import type { SetVerdict } from "../checks/verdict.ts";
import { verdictOf } from "./logged_driver.ts";
import { type Found, type Judgment, LoggedJudge } from "./logged_judge.ts";
import { checksAtRsm, claimsOf, type OrderClaim, type Prints } from "./printed.ts";
import { copiedContentOf, openPlaces, staysOpen } from "./copied_content.ts";
import { contentOf } from "./logged_content.ts";
import type { LoggedRun } from "./logged_runs.ts";
import { OpenClaims } from "./open_claims.ts";
import { sharesAllButSteps, sharesTrail } from "./step_trail.ts";

/** What one set of checks says of a log's VMRUNs. */
export interface SetCount {
  /** How many pass, fail, or cannot be told. */
  readonly verdicts: Readonly<Record<CheckVerdict, number>>;
  /** What would have to be known of those that cannot be told, with how often. */
  readonly needs: ReadonlyMap<string, number>;
}

/** What was found in transitions that a log shows without memory. */
export interface PartialResult {
  /** How many. */
  readonly transitions: number;
  /** How many of them contradict nothing that was recorded. */
  readonly agreed: number;
  /** How many no state is known for that fits what was recorded, such as a check of another kernel. */
  readonly unexplained: number;
  /** What each set of checks says, with what the recorded kernel made of them. */
  readonly sets: ReadonlyMap<string, SetCount>;
  /** How many fail under every set of checks, pass under every one, and neither. */
  readonly all: Readonly<Record<CheckVerdict, number>>;
  /** How many of them are of RSM, and whether the policy checks vmcb12 there. */
  readonly rsm: { readonly transitions: number; readonly checks: boolean };
}

/** Where a replay and the recording contradict each other. */
export interface Contradiction {
  /** Number of the event. */
  readonly event: number;
  /** What differs. */
  readonly field: string;
  /** What was recorded. */
  readonly recorded: string;
  /** What the replay gives. */
  readonly replayed: string;
  /** Both as values, where they are those of a field of an image. */
  readonly values?: MismatchValues;
}

/** What each set of checks says. */
type Verdicts = readonly (readonly [string, SetVerdict])[];

/** What a logged run came to, and every one like it comes to. */
interface Kept {
  judgment: Judgment;
  /** Undefined where nobody counts them. */
  readonly verdicts: Verdicts | undefined;
  /** Whether it was carried out, not taken over from another policy. */
  readonly own: boolean;
  /** How many of them are not counted yet. */
  more: number;
}

function contradictionOf({ event, check, exit }: LoggedRun, { at, ...rest }: Found): Contradiction {
  const where = at === "check" ? check?.event : at === "exit" ? exit?.event : event;
  return { event: where ?? event, ...rest };
}

/** How many logged runs are remembered. */
const KEPT = 16_384;

// Several replays look at one run. Checks do not depend on what is only copied.
const verdicts = new Map<number, Verdicts>();

/** What each set of checks says of a logged run. */
function verdictsOf(unit: LoggedRun): Verdicts {
  const { entered } = contentOf(unit);
  let known = verdicts.get(entered);
  if (known === undefined) {
    if (verdicts.size >= KEPT) verdicts.clear();
    known = CHECK_SETS.map((set) => [set.name, verdictOf(unit, set)] as const);
    verdicts.set(entered, known);
  }
  return known;
}

const NONE = { passes: 0, fails: 0, unknown: 0 };

/** How logged runs are replayed. */
export interface PartialOptions {
  /** Every logged run is carried out in every way, though one before was like it. */
  readonly each?: boolean;
  /** Contradictions alone are asked for: what checks say is not counted. */
  readonly bare?: boolean;
  /** Other replays may take over what runs came to. */
  readonly trails?: boolean;
}

/** Replays logged runs under one policy. */
export class PartialReplayer {
  readonly #policy: Policy;
  readonly #judge: LoggedJudge;
  readonly #report: (found: Contradiction) => void;
  readonly #sets = new Map<
    string,
    { verdicts: Record<CheckVerdict, number>; needs: Map<string, number> }
  >();
  readonly #all: Record<CheckVerdict, number> = { ...NONE };
  /** What logged runs came to, by their content: those like them need not be carried out again. */
  readonly #kept = new Map<number, Kept>();
  /** The same where L2 ran, by their content but for what is copied; and where what is copied counts. */
  readonly #copied = new Map<number, { readonly kept: Kept; readonly open: readonly number[] }>();
  readonly #each: boolean;
  readonly #bare: boolean;
  /** What the order of events says against the policy, once the log is known to show so much. */
  readonly #claims = new OpenClaims((claim, clean) => this.#claimed(claim, clean));
  readonly #checksAtRsm: boolean;
  #rsm = 0;
  /** Logged runs that were carried out: those that none before was like. */
  carriedOut = 0;
  #transitions = 0;
  #agreed = 0;
  #unexplained = 0;

  /**
   * Begins with nothing counted.
   *
   * @param policy The policy.
   * @param report Receives every contradiction.
   * @param options How runs are replayed.
   */
  constructor(
    policy: Policy,
    report: (found: Contradiction) => void,
    { each = false, bare = false, trails = false }: PartialOptions = {},
  ) {
    this.#policy = policy;
    this.#report = report;
    this.#judge = new LoggedJudge(policy, { whole: each, trails });
    this.#checksAtRsm = checksAtRsm(policy);
    this.#each = each;
    this.#bare = bare;
  }

  /**
   * Takes one logged run.
   *
   * @param run The run.
   * @param others Replays that took it already: what it came to under a policy that does the same is
   * taken over.
   * @returns Whether nothing contradicts it, nor any with the same `LoggedContent.entered`.
   */
  take(unit: LoggedRun, others: readonly PartialReplayer[] = []): boolean {
    this.passOver(unit);
    const kept = this.#keptOf(unit, others);
    kept.more++;
    const { unexplained, found, exited } = kept.judgment;
    if (unexplained) this.#unexplained++;
    for (const one of found) this.#report(contradictionOf(unit, one));
    const clean = found.length === 0;
    if (clean) this.#agreed++;
    this.#claims.add(unit, this.#printsOf(unit, kept), clean);
    return clean && exited && this.#judge.builtIn;
  }

  /**
   * Passes over a logged run: it is counted, and nothing is said of it.
   *
   * @param run The run.
   */
  passOver(unit: LoggedRun): void {
    this.#transitions++;
    if (unit.way === "rsm") this.#rsm++;
  }

  /** What the policy prints of a run; as far as it says nothing against it, that need not be certain. */
  #printsOf(unit: LoggedRun, kept: Kept): Prints | undefined {
    const { prints, certain } = kept.judgment;
    if (certain || prints === undefined || claimsOf(unit, prints).next().done) return prints;
    kept.judgment = this.#judge.settle(unit, kept.judgment);
    return kept.judgment.prints;
  }

  #keptOf(unit: LoggedRun, others: readonly PartialReplayer[]): Kept {
    if (this.#each) {
      const kept = this.#carryOut(unit, others);
      if (kept.verdicts !== undefined) this.#count(kept.verdicts, 1);
      return kept;
    }
    const known = this.#known(unit);
    if (known !== undefined) return known;
    if (this.#kept.size >= KEPT) {
      this.#countKept();
      this.#kept.clear();
      this.#copied.clear();
    }
    const kept = this.#carryOut(unit, others);
    this.#keepCopied(unit, kept);
    const { entered, refused, all } = contentOf(unit);
    this.#kept.set(!this.#judge.builtIn ? all : kept.judgment.exited ? entered : refused, kept);
    return kept;
  }

  /** What a run like this one came to. */
  #known(unit: LoggedRun): Kept | undefined {
    if (!this.#judge.builtIn) return this.#kept.get(contentOf(unit).all);
    const copied = copiedContentOf(unit);
    const alike = copied === 0 ? undefined : this.#copied.get(copied);
    if (alike !== undefined && staysOpen(unit, alike.open)) return alike.kept;
    const content = contentOf(unit);
    return this.#kept.get(content.entered) ?? this.#kept.get(content.refused);
  }

  /** Keeps what a run came to for those that differ in registers that are only copied. */
  #keepCopied(unit: LoggedRun, kept: Kept): void {
    const { exited, fits, found } = kept.judgment;
    const copied = exited && fits && found.length === 0 && this.#judge.builtIn
      ? copiedContentOf(unit)
      : 0;
    if (copied === 0) return;
    const before = this.#copied.get(copied);
    this.#copied.set(copied, { kept, open: openPlaces(unit, before?.open) });
  }

  #carryOut(unit: LoggedRun, others: readonly PartialReplayer[]): Kept {
    const known = others.length === 0 ? undefined : this.#judgedAlike(unit, others);
    if (known === undefined) this.carriedOut++;
    return {
      judgment: known ?? this.#judge.judge(unit),
      verdicts: this.#bare ? undefined : verdictsOf(unit),
      own: known === undefined,
      more: 0,
    };
  }

  /** What a run came to under another policy, where this one would have come by the same steps. */
  #judgedAlike(
    unit: LoggedRun,
    others: readonly PartialReplayer[],
  ): Judgment | undefined {
    const mine = this.#policy;
    for (const other of others) {
      const kept = other.#known(unit), theirs = other.#policy;
      const trails = kept?.own ? kept.judgment.trails : undefined;
      if (trails === undefined || !sharesAllButSteps(theirs, mine)) continue;
      if (trails.every((trail) => sharesTrail(trail, theirs, mine))) return kept!.judgment;
    }
    return undefined;
  }

  /** Something that the order of events says against the policy is certain. */
  #claimed({ event, field, recorded, replayed }: OrderClaim, clean: boolean): void {
    if (clean) this.#agreed--;
    this.#report({ event, field, recorded, replayed });
  }

  /** What was found; undefined when there was nothing to look at. */
  finish(): PartialResult | undefined {
    if (this.#transitions === 0) return undefined;
    this.#claims.finish();
    this.#countKept();
    return {
      transitions: this.#transitions,
      agreed: this.#agreed,
      unexplained: this.#unexplained,
      sets: this.#sets,
      all: this.#all,
      rsm: { transitions: this.#rsm, checks: this.#checksAtRsm },
    };
  }

  #countKept(): void {
    for (const kept of this.#kept.values()) {
      if (kept.verdicts !== undefined) this.#count(kept.verdicts, kept.more);
      kept.more = 0;
    }
  }

  #count(verdicts: Verdicts, times: number): void {
    let every: CheckVerdict | undefined;
    for (const [set, { verdict, needs }] of verdicts) {
      let row = this.#sets.get(set);
      if (row === undefined) {
        this.#sets.set(set, row = { verdicts: { ...NONE }, needs: new Map() });
      }
      row.verdicts[verdict] += times;
      for (const name of needs) row.needs.set(name, (row.needs.get(name) ?? 0) + times);
      every = every === undefined || every === verdict ? verdict : "unknown";
    }
    this.#all[every ?? "unknown"] += times;
  }
}
