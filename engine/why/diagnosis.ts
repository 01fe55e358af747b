/**
 * What the checks of every kernel say of one VMRUN's vmcb12.
 *
 * @module
 */
import type { Check } from "../checks/check.ts";
import type { CheckSet } from "../checks/check_set.ts";
import { CHECK_SETS, checkById } from "../checks/sets.ts";
import type { CheckVerdict } from "../checks/check_verdict.ts";
import { setVerdict } from "../checks/verdict.ts";
import { POLICIES } from "../policies/mod.ts";
import { type FoundRun, runFailed } from "./failed_run.ts";
import { type ReadField, readFields } from "./offending.ts";

/** What one set of checks says. */
export interface SetAnswer {
  /** Name of the set. */
  readonly set: string;
  /** What it says of vmcb12 as far as it was seen. */
  readonly verdict: CheckVerdict;
  /** Id of the check that certainly fails first, when one does. */
  readonly check: string | undefined;
  /** What would have to be known to tell. */
  readonly needs: readonly string[];
}

/** What is known of why a run failed. */
export interface Diagnosis {
  /** The way into L2 that is asked about. */
  readonly run: FoundRun;
  /** Whether it failed, as far as the trace shows. */
  readonly failed: boolean;
  /** The check that failed: the recorded one, else the first that the recorded kernel's set says. */
  readonly check: Check | undefined;
  /** Whether the recording itself names the check. */
  readonly recorded: boolean;
  /** The fields that the check reads. */
  readonly fields: readonly ReadField[];
  /** Names of the sets that have the check. */
  readonly madeBy: readonly string[];
  /** What each set says. */
  readonly answers: readonly SetAnswer[];
}

/** The set of the kernel that a run was recorded on; the newest one's when it is not known. */
function setOf(run: FoundRun): CheckSet {
  const policy = run.recorded === undefined ? undefined : POLICIES[run.recorded];
  return policy?.kernel.checks ?? CHECK_SETS[0]!;
}

function answerOf(run: FoundRun, set: CheckSet, own: boolean): SetAnswer {
  const checks = set.checks.filter((row) => run.way !== "vmrun" || row.restore !== true);
  // What the kernel itself said of the checks tells of bits that were not seen.
  const ran = run.exitCode !== undefined && !runFailed(run);
  const evidence = !own
    ? {}
    : run.check?.id !== undefined
    ? { failed: run.check.id }
    : ran
    ? { passed: new Set(checks.map((row) => row.id)) }
    : {};
  const { verdict, check, needs } = setVerdict(checks, run.caps, run.vmcb12, evidence);
  return { set: set.name, verdict, check, needs };
}

/**
 * Says why a run failed.
 *
 * @param run The run.
 * @returns The check, what it read, and what the checks of each kernel say.
 * @example
 * ```ts
 * import { builtinScenarios, recordScenarios } from "@vmtape/vmtape/traces";
 * import { diagnose, FailureFinder, UNIFIED } from "@vmtape/vmtape/engine";
 * const finder = new FailureFinder(undefined);
 * for await (const event of recordScenarios(builtinScenarios("gif-left-set"), UNIFIED)) {
 *   finder.feed(event);
 * }
 * const { check, fields } = diagnose(finder.finish()!);
 * if (check?.id !== "asid-zero" || fields[0]?.field !== "control.asid") throw new Error();
 * ```
 */
export function diagnose(run: FoundRun): Diagnosis {
  const failed = runFailed(run);
  const own = setOf(run);
  // Where the kernel is not known, it is one of those that make the check.
  const known = run.recorded !== undefined && Object.hasOwn(POLICIES, run.recorded);
  const mayBe = (set: CheckSet) =>
    known ? set === own : set.maker === "kvm" &&
      (run.check === undefined || set.checks.some(({ id }) => id === run.check?.id));
  const answers = CHECK_SETS.map((set) => answerOf(run, set, mayBe(set)));
  const id = run.check?.id ??
    (failed ? answers.find((answer) => answer.set === own.name)?.check : undefined);
  const check = id === undefined
    ? undefined
    : own.checks.find((row) => row.id === id) ?? checkById(id);
  return {
    run,
    failed,
    check,
    recorded: run.check?.id !== undefined,
    fields: check === undefined ? [] : readFields(check, run.caps, run.vmcb12),
    madeBy: CHECK_SETS.filter(({ checks }) => checks.some((row) => row.id === id))
      .map(({ name }) => name),
    answers,
  };
}
