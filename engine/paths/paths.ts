/**
 * Following paths where they are known, and recording those that are not.
 *
 * @module
 */
import { type Capabilities, sameCapabilities } from "../svm/machine.ts";
import { sameShort, type ShortState, shortState } from "../kvm/loose_state.ts";
import type { Observer, Vcpu } from "../kvm/vcpu.ts";
import type { Policy } from "../policy.ts";
import type { ImageBuffer } from "../svm/image_buffer.ts";
import { REGS_FIELDS } from "../svm/regs_layout.ts";
import { offsets } from "../layout.ts";
import { builtIn } from "../steps/built_in.ts";
import { Arena } from "./arena.ts";
import { GuardTree } from "./guards.ts";
import { Path, PathMemory } from "./path.ts";
import { PathRecorder, type Recorded } from "./recorder.ts";
import { StateSums } from "./state_sums.ts";

/** States of what is no byte that paths begin from at most. */
const MOST_ROOTS = 64;
/** What is kept of paths at most, in numbers of 32 bits. */
const MOST_NUMBERS = 1 << 21;

/** Bytes of registers that a vCPU is set to before a VMRUN, up to GIF; what follows is only seen. */
const REGS_SET = offsets(REGS_FIELDS).gif + 1;

/** Words that most paths carry at most. */
const MOST_VALUES = 1 << 10;

/** What speaks for recording and against it, and the most there is of either. */
interface Evidence {
  readonly for: number;
  readonly against: number;
  readonly most: number;
}

/**
 * That a run parts from known paths where another one did; that may be chance. Where nearly all runs
 * are different, nothing is recorded: the compiler makes the steps a quarter slower once they have
 * worked on a recorded vCPU, too.
 */
const PARTS_ALIKE: Evidence = { for: 8, against: 1, most: 64 };
/**
 * That a run begins in a state that another one began in: it would follow the path of that one. Or that
 * it is given the same, and what is left of runs before is something else: that is likely to stay.
 */
const SAME_STATE: Evidence = { for: 3, against: 1, most: 16 };
/**
 * What recording a path costs that may not come again, in paths that are followed; what may be spent
 * beforehand, and at once.
 */
const COST = 2, CREDIT = 4, MOST_CREDIT = 1024;
/**
 * How many paths more are recorded than were followed of runs that were given the same, if what is left
 * of runs before is something else each time.
 */
const AHEAD = 128;
/** How often a guard is there besides in the path: as it was recorded, and sorted in a tree. */
const GUARD_COPIES = 2;

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

/** A recorder for vCPUs whose states are of one size, until it is asked for one of another. */
export class Recorders {
  /** Where what is recorded is kept. */
  readonly arena: Arena = new Arena();
  #recorder: PathRecorder | undefined;
  /** Ends what is being recorded, if anything is. */
  #end: (() => void) | undefined;

  /**
   * What is being recorded has not ended yet.
   *
   * @param end Ends it, once something else is to be recorded.
   */
  leaveOpen(end: () => void): void {
    this.#end = end;
  }

  /** Ends what is being recorded. */
  close(): void {
    const end = this.#end;
    this.#end = undefined;
    end?.();
  }

  /**
   * A recorder for a vCPU.
   *
   * @param v The vCPU.
   * @returns The same one each time, as long as the size is the same.
   */
  of({ words: { length } }: Vcpu): PathRecorder {
    this.close();
    const recorder = this.#recorder;
    return recorder?.marks.length === length
      ? recorder
      : this.#recorder = new PathRecorder(length, this.arena);
  }
}

/** What paths are of. */
export interface PathsOptions {
  /** How many bytes of the work area hold something to begin with; none when left out. */
  readonly given?: number;
  /**
   * Whether it is looked at states to see that one comes again; yes when left out. That takes a
   * checksum of all of it each time that no path is known.
   */
  readonly looks?: boolean;
}

/**
 * The paths that vCPUs take under a policy at one kind of work, such as KVM_RUN: a run that reads the
 * same words as an earlier one, apart from those that it only copies, does the same with them.
 */
export class Paths {
  /** Pages by which it is told that a state comes again: numbers of those that a trace sets. */
  pages: readonly number[] = [];
  /** What became of the runs so far. */
  readonly counts: PathCounts = { followed: 0, recorded: 0, failed: 0 };
  readonly #policy: Policy;
  readonly #usable: boolean;
  readonly #given: number;
  readonly #looks: boolean;
  #caps: Capabilities | undefined;
  #listener = 0;
  #roots: Root[] = [];
  readonly #recorders: Recorders;
  #credit = CREDIT;
  readonly #states = new StateSums();
  /** What speaks for recording so far. */
  #alike = 0;
  #same = 0;
  /** Paths of runs of which only that was seen before. */
  #ahead = 0;
  /** The vCPU that was run last. */
  #ran: Vcpu | undefined;
  /** The path that was followed last as long as there is more of it. */
  #tail: Path | undefined;
  /** What is being recorded as long as there may be more of it. */
  #open: { readonly root: Root; readonly recorder: PathRecorder } | undefined;
  /** The path that was followed last, if the last run followed one. */
  #last: Path | undefined;
  #numbers = 0;
  readonly #memory = new PathMemory(MOST_VALUES);

  /**
   * Begins with none.
   *
   * @param policy The policy; where it is not of built-in steps and checks alone, nothing is recorded.
   * @param options What they are of.
   * @param recorders Who records them; others may use it, too.
   */
  constructor(
    policy: Policy,
    { given = 0, looks = true }: PathsOptions = {},
    recorders: Recorders = new Recorders(),
  ) {
    this.#given = given;
    this.#looks = looks;
    this.#recorders = recorders;
    this.#policy = policy;
    this.#usable = builtIn(policy);
  }

  /**
   * Runs a vCPU.
   *
   * @param v The vCPU, under the policy.
   * @param run What is to be done; always the same.
   * @param into What it makes an image in, if it makes one.
   */
  run(v: Vcpu, run: (v: Vcpu) => void, into?: ImageBuffer): void {
    this.rest();
    this.#ran = v;
    if (!this.#usable || v.policy !== this.#policy || !ordinary(v) || !this.#hears(v)) {
      run(v);
      return;
    }
    if (this.#caps !== v.caps) this.#forget(v.caps);
    const root = this.#rootOf(v);
    const likely = this.#last?.next;
    const path = likely !== undefined && likely.root === root && likely.matches(v)
      ? likely
      : root?.tree.find(v);
    if (path instanceof Path) {
      this.counts.followed++;
      if (this.#credit < MOST_CREDIT) this.#credit++;
      if (this.#last !== undefined) this.#last.next = path;
      this.#last = path;
      path.follow(v, into);
      if (path.hasTail) this.#tail = path;
      return;
    }
    this.#last = undefined;
    if (root === undefined || path === IN_VAIN || !this.#pays(v, root.tree.again)) run(v);
    else this.#record(v, run, root);
  }

  /**
   * Has something done with a vCPU that is as {@linkcode Paths.run} left it: that belongs to the same
   * path.
   *
   * @param v The vCPU; nobody listens to it.
   * @param then What is to be done; always the same.
   * @param into What it makes an image in, if it makes one.
   * @returns Whether it was done: not where no path was followed or recorded, or with another vCPU.
   */
  then(v: Vcpu, then: (v: Vcpu) => void, into?: ImageBuffer): boolean {
    if (v !== this.#ran) return false;
    const tail = this.#tail, open = this.#open;
    if (tail !== undefined) {
      this.#tail = undefined;
      tail.followTail(v, into);
      return true;
    }
    if (open === undefined) return false;
    this.#open = undefined;
    this.#add(open.root, open.recorder.goOn(v, then));
    return true;
  }

  /** The vCPU may be another from now on: what was run is over. */
  rest(): void {
    this.#tail = undefined;
    if (this.#open !== undefined) this.#recorders.close();
  }

  /** Whether the vCPU is listened to as when the first path was recorded: they tell no more than that. */
  #hears({ observer }: Vcpu): boolean {
    const hears = observer === undefined ? 1 : heardBy(observer);
    if (this.#listener === 0) this.#listener = hears;
    return this.#listener === hears;
  }

  /** Whether the path of a run is to be recorded that parts where another did, or does not. */
  #pays(v: Vcpu, alike: boolean): boolean {
    const seen = this.#looks ? this.#states.seen(v, this.#given, this.pages) : "nothing";
    const same = seen !== "nothing";
    this.#alike = weighed(PARTS_ALIKE, this.#alike, alike || same);
    this.#same = weighed(SAME_STATE, this.#same, same);
    if (this.#numbers >= MOST_NUMBERS) return false;
    if (same && this.#same > 0) {
      if (seen === "all") return true;
      if (this.#ahead < AHEAD + this.counts.followed) {
        this.#ahead++;
        return true;
      }
    }
    if (!alike || this.#alike <= 0 || this.#credit < COST) return false;
    this.#credit -= COST;
    return true;
  }

  #forget(caps: Capabilities): void {
    const same = this.#caps !== undefined && sameCapabilities(this.#caps, caps);
    this.#caps = caps;
    if (same) return;
    this.#roots = [];
    this.#last = undefined;
    this.#numbers = 0;
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
    const root = {
      loose: shortState(v),
      tree: new GuardTree<Path | typeof IN_VAIN>(this.#recorders.arena),
    };
    roots.push(root);
    return root;
  }

  #record(v: Vcpu, run: (v: Vcpu) => void, root: Root): void {
    const recorder = this.#recorders.of(v);
    recorder.begin(v, run, this.#given > 0);
    this.#open = { root, recorder };
    this.#recorders.leaveOpen(() => {
      if (this.#open === undefined) return;
      this.#open = undefined;
      this.#add(root, recorder.end());
    });
  }

  #add(root: Root, { guards, path }: Recorded): void {
    if (path !== undefined) {
      path.root = root;
      path.useMemory(this.#memory);
    }
    const added = root.tree.add(guards, path ?? IN_VAIN);
    this.#numbers += GUARD_COPIES * guards.length + (path?.size ?? 0);
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
 * if (runs !== 20 || agreed !== runs || paths.seen.counts.followed === 0) throw new Error();
 * ```
 */
export class RunPaths {
  /** Of a VMRUN: loading L1's registers, looking, and running. */
  readonly vmrun: Paths;
  /** Of a VMRUN before which somebody looks. */
  readonly seen: Paths;
  /** Of running on. */
  readonly run: Paths;
  /** Of looking at what userspace sees. */
  readonly look: Paths;

  /**
   * Begins with none.
   *
   * @param policy The policy.
   * @param takenOver Whether runs are taken over that begin in the state of an earlier one, so that
   * none need follow a path.
   */
  constructor(policy: Policy, takenOver = false) {
    const recorders = new Recorders(), looks = !takenOver;
    this.vmrun = new Paths(policy, { looks, given: REGS_SET }, recorders);
    this.seen = new Paths(policy, { looks, given: REGS_SET }, recorders);
    this.run = new Paths(policy, { looks }, recorders);
    // Most looks are the end of another path.
    this.look = new Paths(policy, { looks: false }, recorders);
  }
}

/** What speaks for something once more is known. */
function weighed({ for: gain, against, most }: Evidence, said: number, speaks: boolean): number {
  return Math.max(-most, Math.min(most, said + (speaks ? gain : -against)));
}

/** Guest memory whose words can be numbered. */
const MOST_MEMORY = 2 ** 32;

/** What an observer is told, as a number above 1: a bit for each thing that it need not be. */
function heardBy(observer: Observer): number {
  const { begin, end, step, switched, unmodelled, viewer, looker, follows } = observer;
  return 2 | (begin ? 4 : 0) | (end ? 8 : 0) | (step ? 16 : 0) | (switched ? 32 : 0) |
    (unmodelled ? 64 : 0) | (viewer ? 128 : 0) | (looker ? 256 : 0) |
    (follows ? 512 : 0);
}

/** Whether nothing else takes part in what a vCPU does, and nothing waits that is not compared. */
function ordinary(v: Vcpu): boolean {
  return v.memory.size <= MOST_MEMORY && v.recorder === undefined && v.standIn === undefined &&
    v.exiting === undefined && v.pendingDevice === undefined && v.smram === undefined;
}
