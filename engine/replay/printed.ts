/**
 * What a kernel prints while it carries out a transition, and in which order: that it enters L2, and
 * that L1 receives a #VMEXIT. Policies part in it, so that what a log has or lacks is evidence.
 *
 * @module
 */
import type { Observer } from "../kvm/vcpu.ts";
import type { Policy, Step } from "../policy.ts";
import { noteGpa } from "../steps/enter.ts";
import { checkControls, checkSave } from "../steps/vmcb12.ts";
import { writeControl } from "../steps/vmexit.ts";
import type { LoggedRun, Shown } from "./logged_runs.ts";

/**
 * Notes what is printed: KVM prints an entry (kvm_nested_vmenter) where it notes vmcb12's address, and
 * a #VMEXIT (kvm_nested_vmexit_inject) where it writes its reason to vmcb12.
 */
export class Printed implements Observer {
  /** Whether the entry was. */
  entry = false;
  /** Whether the #VMEXIT was. */
  exit = false;

  /** Notes a step. */
  step(step: Step): void {
    if (step.name === noteGpa.name) this.entry = true;
    if (step.name === writeControl.name) this.exit = true;
  }

  /** Nothing of it is printed. */
  check(): void {}
  /** Nothing of it is printed. */
  warn(): void {}
  /** Nothing of it is printed. */
  inner(): void {}
}

/** What a policy prints of a VMRUN whose checks fail; undefined where that depends on the unknown. */
export interface Prints {
  /** The entry. */
  readonly entry: boolean | undefined;
  /** The #VMEXIT. */
  readonly exit: boolean | undefined;
}

/** What several runs printed, where all printed the same. */
export function printsOf(runs: readonly Printed[]): Prints {
  const all = (what: "entry" | "exit") => {
    const first = runs[0]?.[what];
    return runs.every((run) => run[what] === first) ? first : undefined;
  };
  return { entry: all("entry"), exit: all("exit") };
}

/** Something in the order of a log that a policy would not have printed so. */
export interface OrderClaim {
  /** Number of the event. */
  readonly event: number;
  /** What it is about. */
  readonly field: "entry" | "exit";
  /** What the log has. */
  readonly recorded: string;
  /** What the policy prints. */
  readonly replayed: string;
  /** Whether the log, read to its end, bears it out; undefined while that is not known. */
  holds(end: boolean): boolean | undefined;
}

/** Holds once a log shows something; what it never shows it may not show at all. */
function once(shown: Shown, what: "entries" | "exits"): OrderClaim["holds"] {
  return (end) => shown[what] || (end ? false : undefined);
}

/**
 * What a log says against what a policy prints of a VMRUN whose checks failed.
 *
 * @param run The VMRUN.
 * @param prints What the policy prints of it.
 */
export function* claimsOf(unit: LoggedRun, prints: Prints): Generator<OrderClaim> {
  const { check, entered, exit, gap, shown } = unit;
  if (check === undefined || !unit.kvm) return;
  const { event } = check;
  if (entered && prints.entry === false) {
    yield {
      event,
      field: "entry",
      recorded: "printed before the check failed",
      replayed: "not printed: the check fails before it",
      // A log that shows no #VMEXITs may show the entry of one run and the failed check of the next.
      holds: (end) => shown.exits || (end ? !shown.bare : undefined),
    };
  }
  if (!entered && !gap.before && prints.entry === true) {
    yield {
      event,
      field: "entry",
      recorded: "not printed before the check failed",
      replayed: "printed before the check fails",
      holds: once(shown, "entries"),
    };
  }
  if (exit !== undefined && prints.exit === false) {
    yield {
      event: exit.event,
      field: "exit",
      recorded: "printed after the failed check",
      replayed: "not printed: the VMRUN ends without it",
      holds: () => true,
    };
  }
  if (exit === undefined && !gap.after && prints.exit === true) {
    yield {
      event,
      field: "exit",
      recorded: "not printed after the failed check",
      replayed: "printed",
      holds: once(shown, "exits"),
    };
  }
}

/**
 * Whether a policy checks vmcb12 when RSM goes back into L2; one that does shuts the vCPU down when a
 * check fails.
 *
 * @param policy The policy.
 * @returns Whether it does.
 * @example
 * ```ts
 * import { checksAtRsm, EARLY_EXIT, LINUX_6_12 } from "@vmtape/vmtape/engine";
 * if (checksAtRsm(EARLY_EXIT) || !checksAtRsm(LINUX_6_12)) throw new Error();
 * ```
 */
export function checksAtRsm(policy: Policy): boolean {
  return policy.ways.rsm.some(({ step }) =>
    step.name === checkSave.name || step.name === checkControls.name
  );
}
