/**
 * Which steps a policy came by: another policy that would have come by the same ones does the same.
 *
 * @module
 */
import type { Observer } from "../kvm/vcpu.ts";
import type { Outcome, Policy, Step, StepEntry, Way } from "../policy.ts";
import { sharesEntry } from "./drive.ts";
import { Printed } from "./printed.ts";

/** A step; or that a way was begun, or how it ended. */
type Token = Step | Way | Outcome;

/** The steps that something came by, in order; the same object for the same ones. */
export interface StepTrail {
  readonly tokens: readonly Token[];
  /** Of pairs of policies whether the second would have come by them where the first one did. */
  readonly shared: WeakMap<Policy, WeakMap<Policy, boolean>>;
}

/** Notes the steps that are carried out, and what is printed. */
export class StepTrailer extends Printed implements Observer {
  #tokens: Token[] = [];

  /** Notes a step. */
  override step(step: Step): void {
    super.step(step);
    this.#tokens.push(step);
  }

  /** Notes that a way begins. */
  begin(way: Way): void {
    this.#tokens.push(way);
  }

  /** Notes how a way ended. */
  end(_: Way, outcome: Outcome): void {
    this.#tokens.push(outcome);
  }

  /** The steps so far. */
  trail(): StepTrail {
    return known(this.#tokens);
  }
}

/** Trails that are told apart; there are about as many as ways for a VMRUN to end. */
const MOST_KNOWN = 256;
const trails: StepTrail[] = [];

function known(tokens: readonly Token[]): StepTrail {
  const found = trails.findIndex((one) => sameTokens(one.tokens, tokens));
  const trail = trails[found] ?? { tokens, shared: new WeakMap() };
  if (found === 0) return trail;
  // Those that were met last come first.
  if (found > 0) trails.splice(found, 1);
  else if (trails.length === MOST_KNOWN) trails.pop();
  trails.unshift(trail);
  return trail;
}

function sameTokens(a: readonly Token[], b: readonly Token[]): boolean {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}

/**
 * Whether two policies do the same but for their steps.
 *
 * @param a One.
 * @param b The other.
 */
export function sharesAllButSteps(a: Policy, b: Policy): boolean {
  return sharesEntry(a, b) && a.kernel.checks === b.kernel.checks &&
    a.kernel.uses === b.kernel.uses;
}

/**
 * Whether a policy, from where another one came by some steps, would have come by the same ones.
 *
 * What a step does depends on the vCPU and on what of the policy is no step. So up to the first step
 * that is another, all is the same.
 *
 * @param trail The steps.
 * @param a The policy that came by them.
 * @param b The other one.
 * @returns Whether that is certain.
 */
export function sharesTrail(trail: StepTrail, a: Policy, b: Policy): boolean {
  let ofA = trail.shared.get(a);
  if (ofA === undefined) trail.shared.set(a, ofA = new WeakMap());
  let shared = ofA.get(b);
  if (shared === undefined) {
    shared = sharesAllButSteps(a, b) && new Walk(trail.tokens, a, b).ends();
    ofA.set(b, shared);
  }
  return shared;
}

/** Goes along some steps, in the lists of both policies. */
class Walk {
  readonly #tokens: readonly Token[];
  readonly #a: Policy;
  readonly #b: Policy;
  #at = 0;

  constructor(tokens: readonly Token[], a: Policy, b: Policy) {
    this.#tokens = tokens;
    this.#a = a;
    this.#b = b;
  }

  /** Whether it comes to the end. */
  ends(): boolean {
    return this.#ways() && this.#at === this.#tokens.length;
  }

  /** Goes along ways, as many as follow one another. */
  #ways(): boolean {
    for (;;) {
      const way = this.#tokens[this.#at];
      if (typeof way !== "string") return true;
      this.#at++;
      if (!this.#list(this.#a.ways[way], this.#b.ways[way])) return false;
      if (typeof this.#tokens[this.#at++] !== "number") return false;
    }
  }

  /** Goes along a list, until it is over or one of its steps ends it. */
  #list(a: readonly StepEntry[], b: readonly StepEntry[]): boolean {
    const tokens = this.#tokens;
    for (let i = 0; i < a.length; i++) {
      const ours = a[i] as StepEntry, theirs = b[i];
      if (tokens[this.#at++] !== ours.step || theirs?.step !== ours.step) return false;
      // What a step carries out is part of it.
      if (!this.#ways()) return false;
      const next = tokens[this.#at], onFail = ours.onFail ?? [];
      const goesOn = a[i + 1] !== undefined && a[i + 1]?.step === next;
      const fails = onFail[0] !== undefined && onFail[0].step === next;
      if (goesOn !== fails) {
        if (goesOn) continue;
        return ours.ret === theirs.ret && this.#list(onFail, theirs.onFail ?? []);
      }
      // It was the last, or it ended the list, or it failed with nothing to handle that.
      if (goesOn || a.length !== b.length) return false;
      return onFail.length > 0 || (theirs.onFail ?? []).length === 0 && ours.ret === theirs.ret;
    }
    return b.length === 0;
  }
}
