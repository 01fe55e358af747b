/**
 * Which known kernel a trace is of: it is replayed under every policy, and the
 * runs that the policies see differently tell.
 *
 * @module
 */
import type { TraceEvent } from "../event.ts";
import { shortTexts } from "../short_texts.ts";
import { FIXES, type FixId, withFixes } from "../kernels/linux_6_12.ts";
import { POLICIES } from "../policies/mod.ts";
import { kernelPolicy, onProcessor, type Policy, withChecks } from "../policy.ts";
import type { Capabilities } from "../svm/machine.ts";
import { capabilitiesOf } from "./session_machine.ts";
import { checkByText, type CheckSet } from "../checks/sets.ts";
import { MemoizedReplayer } from "../memo/replayer.ts";
import { copiedContentOf } from "./copied_content.ts";
import { contentOf } from "./logged_content.ts";
import { type LoggedRun, LoggedRunCollector } from "./logged_runs.ts";
import { PartialReplayer } from "./partial.ts";
import type { Mismatch } from "./replayer.ts";

/** What the runs of a trace say of one policy with one set of checks. */
export interface PolicyEvidence {
  /** Name of the policy. */
  readonly policy: string;
  /** Name of the check set. */
  readonly checks: string;
  /** Telling runs that went as it says. */
  readonly for: number;
  /** Telling runs that did not. */
  readonly against: number;
  /** The first event that rules it out. */
  readonly first: Mismatch | undefined;
}

/** What a trace tells of the kernel it was recorded on. */
export type KernelVerdict =
  /** One policy explains every telling run, with these sets of checks, and no other does. */
  | { readonly kind: "known"; readonly policy: string; readonly checks: readonly string[] }
  /** Several explain them: the trace shows nothing in which they differ. */
  | { readonly kind: "undecided"; readonly policies: readonly string[] }
  /** A kernel with some of the fixes that lead from early-exit to linux-6.12. */
  | {
    readonly kind: "between";
    /** Fixes it has. */
    readonly has: readonly FixId[];
    /** Fixes it lacks. */
    readonly lacks: readonly FixId[];
    /** Fixes of which the trace shows nothing. */
    readonly unknown: readonly FixId[];
  }
  /** No candidate and nothing between explains them. */
  | { readonly kind: "unknown"; readonly closest: string };

/** What {@linkcode identify} found. */
export interface Identification {
  /** Runs of the trace. */
  readonly runs: number;
  /** Runs that some candidate explains and some does not. */
  readonly telling: number;
  /** Runs that none explains: the kernel, the processor or the model does what no policy says. */
  readonly unexplained: number;
  /** What the first of those has that the closest candidate has not. */
  readonly firstUnexplained: Mismatch | undefined;
  /** The candidates, the one with the least against it first. */
  readonly candidates: readonly PolicyEvidence[];
  /** The conclusion. */
  readonly verdict: KernelVerdict;
  /** The conclusion in words. */
  readonly sentence: string;
}

/** Most runs of which the first mismatch is kept, for each candidate. */
const MOST_KEPT = 100_000;

/** One policy under test. */
interface Trial {
  readonly policy: Policy;
  /** What a log shows of single transitions, under the policy. */
  transitions: PartialReplayer | undefined;
  /** First mismatch of every run that did not go as the policy says. */
  readonly against: Map<number, Mismatch>;
  replayer: MemoizedReplayer | undefined;
}

/** Whether all that differs is where the kernel's own VMRUN lies, which QEMU's processor gives away. */
function isLeak(caps: Capabilities | undefined, mismatch: Mismatch): boolean {
  const { values } = mismatch;
  if (!caps?.processor?.leaksHostRip || values?.field.name !== "save.rip") return false;
  const { recorded: { value: a }, replayed: { value: b } } = values;
  return (b & 0xfffn) === BigInt(caps.vmrunRip ?? 0) && a >> 12n === b >> 12n;
}

/** Replays a trace under several policies at once. */
class Trials {
  readonly trials: readonly Trial[];
  readonly #starts: number[] = [];
  #index = 0;
  #scenario: string | undefined;
  #caps: Capabilities | undefined;
  /** Whether there were events of a log, and others. */
  #transitions = false;
  #whole = false;
  /** Puts the runs of a log together, once for all policies. */
  readonly #logged = new LoggedRunCollector((run) => this.#take(run));
  /** Contents of logged runs that contradict no policy, and how many such runs there were. */
  readonly #plain = new Set<number>();
  #plainRuns = 0;

  /** Replays of logged runs that take over from one another what they came to. */
  readonly #sharing: boolean;

  /**
   * @param policies The policies.
   * @param alike Whether most of them do the same for most runs.
   */
  constructor(policies: readonly Policy[], alike: boolean) {
    this.#sharing = alike;
    this.trials = policies.map((policy) => (
      { policy, against: new Map(), transitions: undefined, replayer: undefined }
    ));
  }

  feed(given: TraceEvent): void {
    const event = shortTexts(given);
    const index = this.#index++;
    if (event.kind === "case") this.#scenario = event.name;
    const begins = event.kind === "setstate" || event.kind === "vmrun";
    if (begins && (event.regs !== undefined || event.kind === "setstate")) {
      this.#starts.push(index);
    }
    const { processor } = this.#caps ??= capabilitiesOf(
      event.kind === "session" ? event.meta : undefined,
    );
    if (event.kind === "check" && event.text !== undefined) this.#hear(event.text, index);
    if (this.#logged.claims(event)) {
      this.#passOver(processor);
      this.#logged.feed(event, index);
      return;
    }
    this.#whole = true;
    for (const trial of this.trials) {
      trial.replayer ??= new MemoizedReplayer(
        onProcessor(trial.policy, processor),
        (mismatch) => this.#note(trial, mismatch),
        index,
      );
      trial.replayer.feed(event);
    }
  }

  /** Looks at how a check that failed is worded. */
  #hear(recorded: string, event: number): void {
    const scenario = this.#scenario;
    for (const trial of this.trials) {
      const replayed = otherWording(trial.policy.kernel.checks, recorded);
      if (replayed === undefined) continue;
      this.#note(trial, { event, scenario, field: "check", recorded, replayed });
    }
  }

  /** An event is of a log. */
  #passOver(processor: Policy["processor"]): void {
    if (this.#transitions && !this.#whole) return;
    this.#transitions = true;
    for (const trial of this.trials) {
      trial.replayer?.passOver();
      trial.transitions ??= new PartialReplayer(
        onProcessor(trial.policy, processor),
        (found) => this.#note(trial, { ...found, scenario: undefined }),
        { bare: true, trails: this.#sharing },
      );
    }
  }

  #take(run: LoggedRun): void {
    // Of a run that is shown whole each policy knows more than that.
    const entered = copiedContentOf(run) === 0 ? contentOf(run).entered : 0;
    if (this.#plain.has(entered)) {
      this.#plainRuns++;
      return;
    }
    let plain = true;
    const before: PartialReplayer[] = [];
    for (const trial of this.trials) {
      const { transitions } = trial;
      if (transitions === undefined) continue;
      if (this.#blamed(trial, run)) {
        transitions.passOver(run);
        plain = false;
        continue;
      }
      plain = transitions.take(run, before) && plain;
      if (this.#sharing) before.push(transitions);
    }
    if (!plain || entered === 0) return;
    if (this.#plain.size >= MOST_KEPT) this.#plain.clear();
    this.#plain.add(entered);
  }

  /** Whether whatever is said against a logged run counts already: all of it is about its check. */
  #blamed({ against }: Trial, { check, exit }: LoggedRun): boolean {
    return check !== undefined && exit === undefined && against.has(this.#runOf(check.event));
  }

  /** Number of runs, with or without their surroundings. */
  finish(): number {
    this.#logged.finish();
    let runs = 0;
    for (const { replayer, transitions } of this.trials) {
      runs = (replayer?.finish().runs ?? 0) + (transitions?.finish()?.transitions ?? 0);
    }
    return runs + this.#plainRuns;
  }

  #note({ against }: Trial, mismatch: Mismatch): void {
    if (isLeak(this.#caps, mismatch)) return;
    const run = this.#runOf(mismatch.event);
    if (!against.has(run) && against.size < MOST_KEPT) against.set(run, mismatch);
  }

  /** The event that began the run that an event belongs to; the event itself where none did. */
  #runOf(event: number): number {
    const starts = this.#starts;
    let low = 0, high = starts.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (starts[middle]! <= event) low = middle + 1;
      else high = middle;
    }
    return low === 0 ? event : starts[low - 1]!;
  }
}

async function tryAll(
  policies: readonly Policy[],
  events: AsyncIterable<TraceEvent> | Iterable<TraceEvent>,
  alike = false,
) {
  const trials = new Trials(policies, alike);
  for await (const event of events) trials.feed(event);
  return { runs: trials.finish(), trials: trials.trials };
}

/** Runs that no trial explains, and those that only some do. */
function sortRuns(trials: readonly Trial[]) {
  const blamed = new Map<number, number>();
  for (const { against } of trials) {
    for (const run of against.keys()) blamed.set(run, (blamed.get(run) ?? 0) + 1);
  }
  const all: number[] = [];
  const some = new Set<number>();
  for (const [run, count] of blamed) {
    if (count === trials.length) all.push(run);
    else some.add(run);
  }
  return { all: all.sort((a, b) => a - b), some };
}

function candidateOf(trial: Trial, telling: ReadonlySet<number>): PolicyEvidence {
  let against = 0;
  let first: Mismatch | undefined;
  for (const [run, mismatch] of trial.against) {
    if (!telling.has(run)) continue;
    against++;
    if (first === undefined || mismatch.event < first.event) first = mismatch;
  }
  const { name: policy, kernel } = trial.policy;
  const checks = kernel.checks.name;
  return { policy, checks, for: telling.size - against, against, first };
}

/** A kernel words a check otherwise than a trace does, or does not make it: undefined when neither is so. */
function otherWording(checks: CheckSet, text: string): string | undefined {
  const asked = checkByText(text);
  if (asked === undefined) return undefined;
  let wordings = wordingsOf.get(checks);
  if (wordings === undefined) {
    wordings = new Map(checks.checks.map(({ id, texts }) => [id, texts]));
    wordingsOf.set(checks, wordings);
  }
  const texts = wordings.get(asked.id);
  return texts?.includes(text) ? undefined : texts?.[0] ?? "absent";
}

/** Of check sets how they word each check. */
const wordingsOf = new WeakMap<CheckSet, ReadonlyMap<string, readonly string[]>>();

/** Every selection of the fixes. */
function selections(): FixId[][] {
  const ids = FIXES.map(({ id }) => id);
  return Array.from(
    { length: 1 << ids.length },
    (_, bits) => ids.filter((_, i) => (bits >> i & 1) === 1),
  );
}

/** The kernels between that explain more runs than the best of the known policies does. */
async function findBetween(
  checks: CheckSet,
  open: () => AsyncIterable<TraceEvent> | Iterable<TraceEvent>,
  against: number,
): Promise<KernelVerdict | undefined> {
  const choices = selections();
  const policies = choices.map((fixes) => withChecks(kernelPolicy(withFixes(fixes)), checks));
  const { trials } = await tryAll(policies, open(), true);
  const least = Math.min(...trials.map((trial) => trial.against.size));
  if (least >= against) return undefined;
  const fitting = choices.filter((_, i) => trials[i]!.against.size === least);
  const share = (fix: FixId) => fitting.filter((fixes) => fixes.includes(fix)).length;
  const ids = FIXES.map(({ id }) => id);
  return {
    kind: "between",
    has: ids.filter((fix) => share(fix) === fitting.length),
    lacks: ids.filter((fix) => share(fix) === 0),
    unknown: ids.filter((fix) => share(fix) > 0 && share(fix) < fitting.length),
  };
}

/** The known policy that explains all that any explains, when there is one. */
function findKnown(candidates: readonly PolicyEvidence[]): KernelVerdict {
  const fitting = candidates.filter(({ against }) => against === 0);
  const policies = [...new Set(fitting.map(({ policy }) => policy))];
  const [policy, other] = policies;
  if (policy === undefined) return { kind: "unknown", closest: candidates[0]!.policy };
  if (other !== undefined) return { kind: "undecided", policies };
  return { kind: "known", policy, checks: fitting.map(({ checks }) => checks) };
}

/**
 * Says which known policy and which checks explain a trace.
 *
 * A run tells when some policy explains all of it and another does not; the
 * counts are of those runs.
 *
 * @param open Gives the trace's events in order; called a second time when no known policy fits.
 * @returns What was found.
 * @throws {ReplayError} When an input lacks what is needed to carry it out.
 * @example
 * ```ts
 * import { builtinScenarios, recordScenarios } from "@vmtape/vmtape/traces";
 * import { identify, UNIFIED } from "@vmtape/vmtape/engine";
 * const trace = () => recordScenarios(builtinScenarios("gif-left-set"), UNIFIED);
 * const { verdict } = await identify(trace);
 * if (verdict.kind !== "known" || verdict.policy !== "unified") throw new Error(verdict.kind);
 * ```
 */
export async function identify(
  open: () => AsyncIterable<TraceEvent> | Iterable<TraceEvent>,
): Promise<Identification> {
  const { runs, trials } = await tryAll(Object.values(POLICIES), open());
  const { all, some } = sortRuns(trials);
  const candidates = trials.map((trial) => candidateOf(trial, some))
    .sort((a, b) => a.against - b.against);
  const closest = candidates[0]!;
  const best = trials.find(({ policy }) =>
    policy.name === closest.policy && policy.kernel.checks.name === closest.checks
  )!;
  const left = best.against.size;
  const between = left > 0 ? await findBetween(best.policy.kernel.checks, open, left) : undefined;
  const verdict = between ?? findKnown(candidates);
  const [firstRun] = all;
  return {
    runs,
    telling: some.size,
    unexplained: all.length,
    firstUnexplained: firstRun === undefined ? undefined : best.against.get(firstRun),
    candidates,
    verdict,
    sentence: sentenceOf(verdict, some.size),
  };
}

/** Parts of a sentence, the last one joined by `and`. */
function joined(parts: readonly string[]): string {
  return parts.length < 2 ? parts.join() : `${parts.slice(0, -1).join(", ")} and ${parts.at(-1)}`;
}

function sentenceOf(verdict: KernelVerdict, telling: number): string {
  switch (verdict.kind) {
    case "known":
      return `This kernel is of the kind ${verdict.policy}, with the checks of ` +
        verdict.checks.join(" or ");
    case "undecided":
      return telling === 0
        ? `The trace shows nothing in which ${joined(verdict.policies)} differ`
        : `The trace shows nothing in which ${
          joined(verdict.policies)
        } differ; it rules out the rest`;
    case "unknown":
      return `No known policy explains the trace, and none between early-exit and linux-6.12; ` +
        `${verdict.closest} is the closest`;
    case "between": {
      const words = (ids: readonly FixId[], which: "does" | "doesNot") =>
        FIXES.filter(({ id }) => ids.includes(id)).map((fix) => fix[which]);
      const { has, lacks, unknown } = verdict;
      const shown = unknown.length === 0
        ? ""
        : `; the trace does not show whether it ${joined(words(unknown, "does"))}`;
      return `This kernel ${joined(words(has, "does"))}, but ${joined(words(lacks, "doesNot"))}: ` +
        `between early-exit and linux-6.12${shown}`;
    }
  }
}
