/**
 * Following paths where they are known, and recording those that are not.
 *
 * @module
 */
import { type Capabilities, sameCapabilities } from "../svm/machine.ts";
import { sameShort, type ShortState, shortState, type Vcpu } from "../kvm/vcpu.ts";
import type { Policy } from "../policy.ts";
import { builtIn } from "../steps/built_in.ts";
import { GuardTree } from "./guards.ts";
import { Path } from "./path.ts";
import { PathRecorder } from "./recorder.ts";

/** States of what is no byte that paths begin from at most. */
const MOST_ROOTS = 64;
/** What is kept of paths at most, in numbers of 32 bits. */
const MOST_NUMBERS = 1 << 22;
/** What recording a path costs in runs, and what may be recorded before paths are followed. */
const COST = 4;
const CREDIT = 1024;
/** Without credit, every so many runs one is recorded. */
const SELDOM = 32;

/** Stands for the path of runs that cannot be recorded. */
const IN_VAIN = "in vain";

/** Paths that begin with the same of what is no byte. */
interface Root {
  readonly loose: ShortState;
  readonly tree: GuardTree<Path | typeof IN_VAIN>;
}

/** Counts of what became of runs. */
export interface PathCounts {
  /** Runs that followed a path. */
  followed: number;
  /** Runs of which a path was recorded. */
  recorded: number;
  /** Runs that were recorded in vain. */
  failed: number;
}

/**
 * The paths that vCPUs take under a policy at one kind of work, such as KVM_RUN: a run that reads the same words as an earlier one, apart
 * from those that it only copies, does the same with them.
 */
export class Paths {
  /** What became of the runs so far. */
  readonly counts: PathCounts = { followed: 0, recorded: 0, failed: 0 };
  readonly #policy: Policy;
  readonly #usable: boolean;
  readonly #given: boolean;
  #caps: Capabilities | undefined;
  #listener: "nothing" | "everything" | true | undefined;
  #roots: Root[] = [];
  #recorder: PathRecorder | undefined;
  #credit = CREDIT;
  #waited = 0;
  #numbers = 0;

  /**
   * Begins with none.
   *
   * @param policy The policy; where it is not of built-in steps and checks alone, nothing is recorded.
   * @param given Whether the work area holds something to begin with.
   */
  constructor(policy: Policy, given = false) {
    this.#given = given;
    this.#policy = policy;
    this.#usable = builtIn(policy);
  }

  /**
   * Runs a vCPU.
   *
   * @param v The vCPU, under the policy.
   * @param run What is to be done; always the same.
   */
  run(v: Vcpu, run: (v: Vcpu) => void): void {
    if (!this.#usable || v.policy !== this.#policy || !ordinary(v) || !this.#hears(v)) {
      run(v);
      return;
    }
    if (this.#caps === undefined || this.#caps !== v.caps) this.#forget(v.caps);
    const root = this.#rootOf(v);
    const path = root?.tree.find(v);
    if (path instanceof Path) {
      this.counts.followed++;
      if (this.#credit < CREDIT) this.#credit++;
      path.follow(v);
      return;
    }
    if (root === undefined || path === IN_VAIN || !root.tree.again || !this.#pays()) run(v);
    else this.#record(v, run, root);
  }

  /** Whether the vCPU is listened to as when the first path was recorded: they tell no more than that. */
  #hears({ observer }: Vcpu): boolean {
    const hears = observer === undefined ? "nothing" : observer.outcomesOnly ?? "everything";
    return (this.#listener ??= hears) === hears;
  }

  /** Whether a path may be recorded: not where they are hardly ever followed. */
  #pays(): boolean {
    if (this.#numbers >= MOST_NUMBERS) return false;
    if (this.#credit < COST && ++this.#waited % SELDOM !== 0) return false;
    this.#credit = Math.max(0, this.#credit - COST);
    return true;
  }

  #forget(caps: Capabilities): void {
    const same = this.#caps !== undefined && sameCapabilities(this.#caps, caps);
    this.#caps = caps;
    if (same) return;
    this.#roots = [];
    this.#numbers = 0;
    this.#recorder = undefined;
  }

  #rootOf(v: Vcpu): Root | undefined {
    const roots = this.#roots;
    for (let i = 0; i < roots.length; i++) {
      const root = roots[i] as Root;
      if (!sameShort(v, root.loose)) continue;
      if (i > 0) {
        roots[i] = roots[0] as Root;
        roots[0] = root;
      }
      return root;
    }
    if (roots.length === MOST_ROOTS) return undefined;
    const root = { loose: shortState(v), tree: new GuardTree<Path | typeof IN_VAIN>() };
    roots.push(root);
    return root;
  }

  #record(v: Vcpu, run: (v: Vcpu) => void, root: Root): void {
    const recorder = this.#recorder ??= new PathRecorder(v.words.length, this.#given);
    const { guards, path } = recorder.record(v, run);
    const added = root.tree.add(guards, path ?? IN_VAIN);
    this.#numbers += 2 * guards.numbers.length + (path?.size ?? 0);
    this.counts[added && path !== undefined ? "recorded" : "failed"]++;
  }
}

/**
 * Paths of all that a VMRUN of a trace does, for {@linkcode Replayer}.
 *
 * @example
 * ```ts
 * import { builtinScenarios, recordScenarios } from "@vmtape/vmtape/traces";
 * import { Replayer, RunPaths, UPSTREAM } from "@vmtape/vmtape/engine";
 * const paths = new RunPaths(UPSTREAM);
 * const replayer = new Replayer(UPSTREAM, () => {}, paths);
 * const scenarios = builtinScenarios("enter");
 * for await (const event of recordScenarios(scenarios, UPSTREAM, { repeat: 20 })) {
 *   replayer.feed(event);
 * }
 * const { runs, agreed } = replayer.finish();
 * if (runs !== 20 || agreed !== runs || paths.run.counts.followed === 0) throw new Error();
 * ```
 */
export class RunPaths {
  /** Of loading L1's registers. */
  readonly load: Paths;
  /** Of running. */
  readonly run: Paths;

  /**
   * Begins with none.
   *
   * @param policy The policy.
   */
  constructor(policy: Policy) {
    this.load = new Paths(policy, true);
    this.run = new Paths(policy);
  }
}

/** Guest memory whose words can be numbered. */
const MOST_MEMORY = 2 ** 32;

/** Whether nothing else takes part in what a vCPU does, and nothing waits that is not compared. */
function ordinary(v: Vcpu): boolean {
  return v.memory.size <= MOST_MEMORY && v.recorder === undefined && v.standIn === undefined &&
    v.exiting === undefined && v.pendingDevice === undefined && v.smram === undefined;
}
