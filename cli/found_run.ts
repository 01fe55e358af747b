/**
 * The run that an event is part of, with the cases that lead to it.
 *
 * @module
 */
import {
  areaImage,
  AREAS,
  Differ,
  type Finding,
  Findings,
  type Incident,
  type RunDifference,
  type RunView,
} from "../engine/diff/mod.ts";
import type { TraceEvent } from "../engine/event.ts";
import { fieldNamed, readField } from "../engine/image/fields.ts";
import type { Policy } from "../engine/policy.ts";
import { capabilitiesOf } from "../engine/replay/session_machine.ts";
import { lastEventOf, type LoggedRun } from "../engine/replay/logged_runs.ts";
import { VMCB_LAYOUT } from "../engine/svm/vmcb_fields.ts";
import { LoggedOutcomes } from "../report/logged_outcomes.ts";
import { outcomeOf } from "../report/outcome.ts";
import { casesOfLogged } from "../traces/scenarios/logged_case.ts";
import type { CaseText } from "../traces/scenarios/minimize.ts";
import { UsageError } from "./errors.ts";
import { openTrace } from "./inputs.ts";

/** What becomes of a run under one policy. */
export interface Outcome {
  /** Words that are the same where it is. */
  readonly key: string;
  /** The same for people. */
  readonly text: string;
}

/** A run of a trace. */
export interface FoundRun {
  /** Lists of cases that lead to it; of a log, several guesses. */
  readonly cases: readonly (readonly CaseText[])[];
  /** Whether the hypervisor uses nested paging itself. */
  readonly npt: boolean;
  /** Whether a log shows it, and no more than that. */
  readonly logged: boolean;
  /** The findings that it is part of, under two policies. */
  readonly findings: readonly Finding[];
  /** What becomes of it under the first policy. */
  readonly outcome: Outcome;
}

const EXIT_CODE = fieldNamed(VMCB_LAYOUT, "control.exit_code");
const VMCB12 = AREAS.find(({ name }) => name === "vmcb12")!;

/** What becomes of a run that was carried out: the outcome, reports, and what exit L1 receives. */
export function outcomeOfRun({ sides: [side], vmcb12 }: RunView): Outcome {
  if (side === undefined) return { key: "", text: "" };
  const { log, vcpu } = side;
  const outcome = outcomeOf(side);
  const { value } = readField(areaImage(VMCB12, vcpu, vmcb12), EXIT_CODE);
  const exit = outcome === "entered L2" ? ` (exit code 0x${value.toString(16)})` : "";
  return outcomeText(outcome, log.reports, exit);
}

function outcomeText(outcome: string, incidents: readonly Incident[], exit = ""): Outcome {
  const reports = incidents.map(({ kind, id, text }) => kind === "check" ? id : text);
  const named = reports.length === 0 ? "" : `: ${reports.join(", ")}`;
  return { key: JSON.stringify([outcome, reports]), text: `${outcome}${named}${exit}` };
}

function outcomeOfLogged(policy: Policy, unit: LoggedRun): Outcome {
  const [side] = new LoggedOutcomes([policy]).of(unit);
  return outcomeText(side?.outcome ?? "cannot tell", side?.reports ?? []);
}

/** Reads a trace up to the run of an event. */
class Finder {
  readonly #event: number;
  readonly #policies: readonly [Policy, Policy];
  readonly #findings = new Findings();
  readonly #differ: Differ;
  #cases: (CaseText | undefined)[] = [];
  #npt = true;
  #index = 0;
  /** Number of the event that begins the run, once it is over. */
  #of: number | undefined;
  #keys: readonly string[] = [];
  #found: Omit<FoundRun, "findings"> | undefined;

  constructor(event: number, policies: readonly [Policy, Policy]) {
    this.#event = event;
    this.#policies = policies;
    this.#differ = new Differ(policies, (difference) => this.#difference(difference), {
      look: (run) => this.#look(run),
      lookLogged: (unit) => this.#lookLogged(unit),
    });
  }

  get done(): boolean {
    return this.#of !== undefined;
  }

  feed(event: TraceEvent): void {
    // What ends a run is fed before the next case is noted.
    this.#differ.feed(event);
    if (this.done) return;
    if (event.kind === "session") {
      this.#cases = [];
      this.#npt = capabilitiesOf(event.meta).npt;
    } else if (event.kind === "case") {
      const { name, spec } = event;
      this.#cases.push(name === undefined || spec === undefined ? undefined : { name, spec });
    }
    this.#index++;
  }

  finish(): FoundRun {
    if (!this.done) this.#differ.finish();
    const found = this.#found;
    if (found === undefined) {
      throw new UsageError(
        this.#event >= this.#index
          ? `There is no event ${this.#event}: the trace has ${this.#index}`
          : `Event ${this.#event} belongs to no VMRUN with its inputs; vmtape dump shows which ` +
            "events do",
      );
    }
    const list = this.#findings.list();
    return { ...found, findings: this.#keys.map((key) => list[this.#findings.indexOf(key)]!) };
  }

  #difference(difference: RunDifference): void {
    const keys = this.#findings.add(difference);
    if (difference.event === this.#of) this.#keys = keys;
  }

  #look(run: RunView): void {
    if (this.done || this.#event >= this.#index) return;
    this.#of = run.event;
    const cases = this.#cases.filter((one) => one !== undefined);
    if (cases.length === 0 || cases.length < this.#cases.length) {
      throw new UsageError(
        "The trace does not say how its scenarios were made, so they cannot be made smaller; " +
          "vmtape record and vmtape import --from lab write what does",
      );
    }
    const outcome = outcomeOfRun(run);
    this.#found = { cases: [cases], npt: this.#npt, logged: false, outcome };
  }

  #lookLogged(unit: LoggedRun): void {
    const last = lastEventOf(unit, this.#index - 1);
    if (this.done || unit.event > this.#event || this.#event > last) return;
    this.#of = unit.event;
    const cases = casesOfLogged(unit).map((one) => [one]);
    if (cases.length === 0) {
      throw new UsageError(
        unit.way === "rsm"
          ? "What an RSM goes back into is not in a log, so there is no scenario to make smaller"
          : `Of the VMRUN at event ${unit.event} too little was recorded to make a scenario of it`,
      );
    }
    const outcome = outcomeOfLogged(this.#policies[0], unit);
    this.#found = { cases, npt: unit.caps.npt, logged: true, outcome };
  }
}

/**
 * Finds the run that an event is part of.
 *
 * @param path The trace.
 * @param event Number of the event.
 * @param policies Two policies to compare, or one twice.
 * @throws {UsageError} When there is no such run, or no case that leads to it.
 */
export async function findRun(
  path: string,
  event: number,
  policies: readonly [Policy, Policy],
): Promise<FoundRun> {
  const finder = new Finder(event, policies);
  reading: for await (const block of (await openTrace(path)).blocks()) {
    for (const next of block.shared()) {
      finder.feed(next);
      if (finder.done) break reading;
    }
  }
  return finder.finish();
}
