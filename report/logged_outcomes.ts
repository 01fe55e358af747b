/**
 * What becomes of a VMRUN of a log under each policy, as far as what the log shows decides it.
 *
 * @module
 */
import { checkGroupOf } from "../engine/checks/sets.ts";
import { TransitionLog } from "../engine/diff/mod.ts";
import type { Incident } from "../engine/diff/transitions.ts";
import type { Policy, Step, Way } from "../engine/policy.ts";
import { builtIn } from "../engine/steps/built_in.ts";
import { VARIANTS } from "../engine/replay/fill_unknown.ts";
import { assumptionOf, LoggedDriver, ranL2, verdictOf } from "../engine/replay/logged_driver.ts";
import { contentOf } from "../engine/replay/logged_content.ts";
import type { LoggedRun } from "../engine/replay/logged_runs.ts";
import { type ReportOutcome, transitionsOutcome } from "./outcome.ts";

/** Answers that are kept, for VMRUNs that show the same. */
const KEPT = 4096;

/** What a policy does with a VMRUN, as far as it is the same for all that was not recorded. */
export interface LoggedSide {
  /** What becomes of it. */
  readonly outcome: ReportOutcome;
  /** The steps of each transition, up to where they depend on what was not recorded. */
  readonly transitions: readonly { readonly way: Way; readonly steps: readonly Step[] }[];
  /** Whether the steps go on, and depend on what was not recorded. */
  readonly open: boolean;
  /** Failed checks and broken assertions that are certain. */
  readonly reports: readonly Incident[];
}

/** Carries out the VMRUNs of logs under policies. */
export class LoggedOutcomes {
  readonly #drivers: readonly LoggedDriver[];
  /** Whether it is known of the policies what they go by. */
  readonly #builtIn: boolean;
  readonly #kept = new Map<number, LoggedSide[]>();

  readonly #each: boolean;

  /**
   * @param policies The policies.
   * @param each Whether every VMRUN is carried out, though one before was like it.
   */
  constructor(policies: readonly Policy[], each = false) {
    this.#each = each;
    this.#drivers = policies.map((policy) => new LoggedDriver(policy, 0));
    this.#builtIn = policies.every(builtIn);
  }

  /**
   * What the policies do with a VMRUN.
   *
   * @param unit The VMRUN.
   * @returns One side a policy.
   */
  of(unit: LoggedRun): readonly LoggedSide[] {
    if (this.#each) return this.#drivers.map((driver) => sideOf(driver, unit));
    const content = contentOf(unit);
    // What is only copied decides neither about steps nor about checks.
    const key = this.#builtIn ? content.entered : content.all;
    let sides = this.#kept.get(key);
    if (sides === undefined) {
      sides = this.#drivers.map((driver) => sideOf(driver, unit));
      if (this.#kept.size >= KEPT) this.#kept.clear();
      this.#kept.set(key, sides);
    }
    return sides;
  }
}

/** What the log itself says of a VMRUN. */
export function recordedOutcome(unit: LoggedRun): ReportOutcome {
  const { check } = unit;
  if (check !== undefined) {
    return checkGroupOf(check.id ?? "") === "cr3" ? "late failure" : "failed check";
  }
  if (ranL2(unit)) return "entered L2";
  return unit.exit === undefined ? "not seen" : "refused";
}

const NOTHING: LoggedSide = { outcome: "cannot tell", transitions: [], open: true, reports: [] };

function sideOf(driver: LoggedDriver, unit: LoggedRun): LoggedSide {
  const sides: LoggedSide[] = [];
  for (let variant = 0; variant < VARIANTS; variant++) {
    const state = assumptionOf(unit, variant);
    if (state === undefined) return NOTHING;
    const log = new TransitionLog("reports");
    driver.observer = log.observer;
    log.reset();
    driver.runFrom(unit, state);
    sides.push({
      outcome: transitionsOutcome(log),
      transitions: log.transitions.map(({ way, steps }) => ({ way, steps: [...steps] })),
      open: false,
      reports: [...log.reports],
    });
  }
  const side = sides.reduce(agreed);
  // What was filled in passes the checks; that the real one does is known only if nothing is missing.
  const told = side.outcome !== "entered L2" || ranL2(unit) ||
    verdictOf(unit, driver.policy.kernel.checks).verdict !== "unknown";
  return told ? side : { ...side, outcome: "cannot tell" };
}

/** What is the same of two sides. */
function agreed(a: LoggedSide, b: LoggedSide): LoggedSide {
  const transitions: { way: Way; steps: Step[] }[] = [];
  let open = a.open || b.open || a.transitions.length !== b.transitions.length;
  for (const [i, { way, steps }] of a.transitions.entries()) {
    const other = b.transitions[i];
    if (other?.way !== way) break;
    const end = steps.findIndex((step, n) => step.name !== other.steps[n]?.name);
    transitions.push({ way, steps: end < 0 ? [...steps] : steps.slice(0, end) });
    if (end < 0 && steps.length === other.steps.length) continue;
    open = true;
    break;
  }
  const same = (x: Incident) => b.reports.some((y) => y.id === x.id && y.text === x.text);
  return {
    outcome: a.outcome === b.outcome ? a.outcome : "cannot tell",
    transitions,
    open,
    reports: a.reports.filter(same),
  };
}
