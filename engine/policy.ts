/**
 * What a policy is: for each way in and out of L2 an ordered list of steps,
 * and for a failing step the list that handles it.
 *
 * @module
 */
import type { CheckSet } from "./checks/check_set.ts";
import type { Kernel, Ways } from "./kernels/kernel.ts";
import type { Vcpu } from "./kvm/vcpu.ts";
import type { ProcessorModel } from "./processors/model.ts";

/** The step did its work. */
export const OK = 0;
/** The step failed: the handler beside it takes over. */
export const FAIL = 1;
/** The transition ends here with nothing more to do, for instance with a #GP queued for L1. */
export const END = 2;

/** How a step ended: {@linkcode OK}, {@linkcode FAIL} or {@linkcode END}. */
export type Outcome = typeof OK | typeof FAIL | typeof END;

/** One named action of a transition. */
export interface Step {
  /** Name, unique among the steps; shown in traces, diffs and documentation. */
  readonly name: string;
  /** What it does, in one line. */
  readonly doc: string;
  /** It maps a page of guest memory into the work area, which writes nothing of the state. */
  readonly maps?: true;
  /**
   * Does it.
   *
   * @param v The vCPU.
   * @returns How it ended.
   */
  run(v: Vcpu): Outcome;
}

/** A step in its place: the step, and where a failure goes. */
export interface StepEntry {
  /** What is done at this place of the list. */
  readonly step: Step;
  /** Steps that handle its failure. Without it a failure ends the list. */
  readonly onFail?: readonly StepEntry[];
  /** What the kernel's function returns when the step fails, where that is not -EINVAL. */
  readonly ret?: number;
}

/** The ways into L2 and out of it, and what RSM and a restore leave for the next entry (`pages`). */
export const WAYS = ["vmrun", "rsm", "setstate", "pages", "vmexit"] as const;

/** One of them. */
export type Way = typeof WAYS[number];

/** A policy: how a hypervisor carries out nested transitions, and what it does when one fails. */
export interface Policy {
  /** Name on the command line and in records. */
  readonly name: string;
  /** What it stands for, in one line. */
  readonly doc: string;
  /** The kernel whose checks and cache it works on. */
  readonly kernel: Kernel;
  /** The processor it stands for, where it stands for one whatever a recording was made on. */
  readonly processor?: ProcessorModel;
  /** The steps of each way, in order. */
  readonly ways: Ways;
}

/**
 * A kernel's own policy: what it does when nothing is changed.
 *
 * @param kernel The kernel.
 * @returns The policy, under the kernel's name.
 * @example
 * ```ts
 * import { KERNEL_6_12, kernelPolicy } from "@vmtape/vmtape/engine";
 * if (kernelPolicy(KERNEL_6_12).ways !== KERNEL_6_12.ways) throw new Error();
 * ```
 */
export function kernelPolicy(kernel: Kernel): Policy {
  return { name: kernel.name, doc: kernel.doc, kernel, ways: kernel.ways };
}

/**
 * A policy with other checks.
 *
 * @param policy The policy.
 * @param checks The checks that its kernel is to make.
 * @returns The policy with them; what they read is cached.
 * @example
 * ```ts
 * import { CHECKS_APM, UNIFIED, withChecks } from "@vmtape/vmtape/engine";
 * const strict = withChecks(UNIFIED, CHECKS_APM);
 * if (strict.kernel.checks.name !== "apm" || strict.ways !== UNIFIED.ways) throw new Error();
 * ```
 */
export function withChecks(policy: Policy, checks: CheckSet): Policy {
  return { ...policy, kernel: { ...policy.kernel, checks } };
}

/**
 * A policy on another processor.
 *
 * @param policy The policy.
 * @param processor The processor; the recording's own when left out.
 * @returns The policy on it.
 * @example
 * ```ts
 * import { AMD, onProcessor, UNIFIED } from "@vmtape/vmtape/engine";
 * if (onProcessor(UNIFIED, AMD).processor !== AMD) throw new Error();
 * ```
 */
export function onProcessor(policy: Policy, processor: ProcessorModel | undefined): Policy {
  if (policy.processor === processor) return policy;
  const { processor: _, ...rest } = policy;
  return processor === undefined ? rest : { ...rest, processor };
}

/**
 * Puts steps into a list, all with the same failure handler.
 *
 * @param steps The steps, in order.
 * @param onFail What handles a failure of any of them.
 * @returns The list.
 * @example
 * ```ts
 * import { END, list, OK, type Step } from "@vmtape/vmtape/engine";
 * const load: Step = { name: "load", doc: "Loads", run: () => OK };
 * const undo: Step = { name: "undo", doc: "Undoes it", run: () => END };
 * const entries = list([load], list([undo]));
 * if (entries[0]?.onFail?.[0]?.step !== undo) throw new Error();
 * ```
 */
export function list(steps: readonly Step[], onFail?: readonly StepEntry[]): readonly StepEntry[] {
  return steps.map((step) => onFail === undefined ? { step } : { step, onFail });
}

/**
 * Runs a list of steps until one does not end with {@linkcode OK}, and then the
 * handler of that one. A step that throws counts as failed; who listens to the
 * vCPU is told with the step's name.
 *
 * @param v The vCPU.
 * @param entries The list.
 * @returns {@linkcode OK} when every step did its work, else how the failing one ended.
 * @throws What a step throws, when nobody listens to the vCPU.
 * @example
 * ```ts
 * import { FAIL, list, OK, runList, type Step, UPSTREAM, Vcpu } from "@vmtape/vmtape/engine";
 * const ran: string[] = [];
 * const step = (name: string, outcome: typeof OK | typeof FAIL): Step => ({
 *   name,
 *   doc: "",
 *   run: () => (ran.push(name), outcome),
 * });
 * const v = new Vcpu({ physicalBits: 40, npt: true, memory: 1 << 24 }, UPSTREAM);
 * const entries = list([step("a", OK), step("b", FAIL), step("c", OK)], list([step("undo", OK)]));
 * if (runList(v, entries) !== FAIL || ran.join() !== "a,b,undo") throw new Error(ran.join());
 * ```
 */
export function runList(v: Vcpu, entries: readonly StepEntry[]): Outcome {
  const observer = v.observer;
  // An iterator would allocate something for each step.
  for (let i = 0; i < entries.length; i++) {
    const entry = entries[i] as StepEntry;
    if (observer?.step !== undefined) observer.step(entry.step, v);
    const outcome = runStep(v, entry.step);
    if (outcome !== OK) {
      if (outcome === FAIL) {
        if (entry.onFail !== undefined) runList(v, entry.onFail);
        v.failedRet = entry.ret ?? -22;
      }
      return outcome;
    }
  }
  return OK;
}

/** Runs a step. One that throws, or ends in no way there is, is reported like a broken assertion and has failed. */
function runStep(v: Vcpu, step: Step): Outcome {
  let what: string;
  try {
    const outcome = step.run(v);
    if (outcome === OK || outcome === FAIL || outcome === END) return outcome;
    what = `ended with ${String(outcome)}, which is none of OK, FAIL and END`;
  } catch (error) {
    if (v.observer === undefined) throw error;
    what = `threw ${String(error)}`;
  }
  v.observer?.warn(`Step "${step.name}" of ${v.policy.name} ${what}`, step);
  return FAIL;
}

/**
 * Carries out one of the policy's ways, from beginning to end.
 *
 * @param v The vCPU.
 * @param way Which.
 * @returns How it ended.
 */
export function runWay(v: Vcpu, way: Way): Outcome {
  const observer = v.observer;
  if (observer === undefined) return runList(v, v.policy.ways[way]);
  observer.begin?.(way, v);
  const outcome = runList(v, v.policy.ways[way]);
  observer.end?.(way, outcome, v);
  return outcome;
}
