/**
 * What the model says of a unit before anybody is asked: its records, how it differs from what the
 * kernel is held against, and what of the kernel's code it reaches.
 *
 * @module
 */
import { LabRecorder } from "../../codecs/lab/recorder.ts";
import type { LabRecord } from "../../codecs/lab/types.ts";
import {
  Differ,
  fieldText,
  type Finding,
  Findings,
  type RunDifference,
  type RunView,
  valueTexts,
} from "../../engine/diff/mod.ts";
import type { Policy } from "../../engine/policy.ts";
import { EmulatedVm } from "../scenarios/emulated_vm.ts";
import { ScenarioRunner } from "../scenarios/runner.ts";
import type { Scenario } from "../scenarios/scenario.ts";
import { parseScenario } from "../scenarios/scenario_reader.ts";
import { featuresOfChanges, featuresOfRecord, featuresOfRun } from "./coverage.ts";
import { isVisible } from "./visible.ts";

/** Cases that go on with one virtual machine, as lines of the case syntax. */
export type Unit = readonly string[];

/** One way in which a case ends otherwise than what the kernel is held against. */
export interface Deviation {
  /** One mechanism has one key, in every case that shows it. */
  readonly key: string;
  /** Id of the finding, as `diff` has it. */
  readonly id: string;
  /** What happens, in the field's words. */
  readonly title: string;
  /** Number of the case within its unit. */
  readonly case: number;
  /** Fields and their values: the kernel's, and the other's. */
  readonly fields: readonly { readonly field: string; readonly a: string; readonly b: string }[];
  /** Where the steps part. */
  readonly parted: string;
  /** Checks that failed under either. */
  readonly checks: readonly string[];
}

/** What the model says of a unit. */
export interface Foresight {
  /** The unit. */
  readonly unit: Unit;
  /** What the kernel would answer, case by case. */
  readonly records: readonly LabRecord[];
  /** What is met on the way; see `coverage.ts`. */
  readonly features: ReadonlySet<string>;
  /** What differs, less what follows from an earlier case. */
  readonly deviations: readonly Deviation[];
  /** Cases that differ in nothing but the hypervisor's own bookkeeping. */
  readonly internal: number;
}

/** Fields of a deviation that its key names: beyond them it is one mechanism in ever new clothes. */
const KEY_FIELDS = 4;

/**
 * Predicts units under two policies.
 *
 * @example
 * ```ts
 * import { Foreseer } from "@vmtape/vmtape/traces";
 * import { EARLY_EXIT, UNIFIED } from "@vmtape/vmtape/engine";
 * const { deviations } = new Foreseer(EARLY_EXIT, UNIFIED, true).foresee(["a control.asid=0"]);
 * if (!deviations.some(({ id }) => id === "gif|failed check|early-exit")) throw new Error();
 * ```
 */
export class Foreseer {
  readonly #policies: readonly [Policy, Policy];
  readonly #runner: ScenarioRunner;

  /**
   * Begins with no machine.
   *
   * @param kernel The policy of the kernel that is asked.
   * @param against What it is held against.
   * @param npt Whether the hypervisor uses nested paging itself.
   */
  constructor(kernel: Policy, against: Policy, npt: boolean) {
    this.#policies = [kernel, against];
    this.#runner = new ScenarioRunner(new EmulatedVm(kernel, { npt, full: true }));
  }

  /**
   * Carries a unit out under both.
   *
   * @param unit The unit.
   * @returns What the model says of it.
   * @throws {ScenarioError} When a line cannot be read.
   */
  foresee(unit: Unit): Foresight {
    const scenarios = unit.map((line) => parseScenario(line));
    const features = new Set<string>();
    const found: Found = { internal: 0, deviations: [] };
    const differ = new Differ(this.#policies, (difference) => note(found, difference), {
      look: (run: RunView) => {
        for (const feature of featuresOfRun(run)) features.add(feature);
      },
    });
    const records = this.#run(scenarios, differ);
    scenarios.forEach((scenario, i) => {
      for (const feature of featuresOfChanges(scenario)) features.add(feature);
      for (const feature of featuresOfRecord(records[i]!)) features.add(feature);
    });
    for (const { key } of found.deviations) features.add(`deviation ${key}`);
    const { deviations, internal } = found;
    return { unit, records, features, deviations, internal };
  }

  #run(scenarios: readonly Scenario[], differ: Differ): LabRecord[] {
    const recorder = new LabRecorder();
    const records: LabRecord[] = [];
    for (const [i, scenario] of scenarios.entries()) {
      // Numbers for names: a difference then says which case it is of.
      for (const event of this.#runner.run({ ...scenario, name: `${i}` })) {
        differ.feed(event);
        recorder.add(event);
      }
      const record = recorder.finish();
      if (record !== undefined) records.push({ ...record, case: scenario.name });
    }
    differ.finish();
    return records;
  }
}

interface Found {
  internal: number;
  readonly deviations: Deviation[];
}

function note(found: Found, difference: RunDifference): void {
  const fields = difference.fields.filter(isVisible);
  const [a, b] = difference.ends;
  if (fields.length === 0 && a === b && !oneRefuses(difference)) {
    found.internal++;
    return;
  }
  // Each case by itself: a key is not to depend on what other cases of the unit show.
  const findings = new Findings();
  findings.add({ ...difference, fields });
  for (const finding of findings.list()) {
    if (finding.kind === "carried") continue;
    found.deviations.push(deviationOf(finding, Number(difference.scenario)));
  }
}

/**
 * Whether checks fail under one policy only. Which of several broken rules is found first is nobody's
 * business but the log's.
 */
function oneRefuses({ reports }: RunDifference): boolean {
  if (reports === undefined) return false;
  const [a, b] = reports.map((side) => side.filter(({ kind }) => kind === "check").length);
  const warned = reports.some((side) => side.some(({ kind }) => kind === "warn"));
  return warned || (a === 0) !== (b === 0);
}

function deviationOf(finding: Finding, number: number): Deviation {
  const fields = finding.fields.map((field) => {
    const { a, b } = valueTexts(field);
    return { field: fieldText(field), a, b };
  });
  const { id, title, parted, kind } = finding;
  const checks = Object.keys(finding.checks).sort();
  const detail = kind === "outcome" ? checks : fields.slice(0, KEY_FIELDS).map(detailOf).sort();
  return { key: `${id}|${detail.join(",")}`, id, title, case: number, fields, parted, checks };
}

/** A field as a key names it: of an exit code, what it is too. */
function detailOf({ field, a, b }: Deviation["fields"][number]): string {
  return field.endsWith("exit_code") ? `${field} ${a} ${b}` : field;
}
