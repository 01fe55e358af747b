/**
 * Making what a hunt found small, and having the kernel show it once more.
 *
 * @module
 */
import type { LabRecord } from "../../codecs/lab/types.ts";
import type { Policy } from "../../engine/policy.ts";
import { minimizeLines, NotReproducedError } from "../scenarios/minimize.ts";
import { toLabCase } from "../scenarios/lab_case.ts";
import type { Scenario } from "../scenarios/scenario.ts";
import { ScenarioError } from "../scenarios/scenario_error.ts";
import { type Ask, askUnits } from "./asking.ts";
import { minimizeBatched } from "./batched.ts";
import { Foreseer, type Unit } from "./foresight.ts";
import type { HuntFinding } from "./hunt.ts";
import { gapOf } from "./judging.ts";

/** What findings are reduced with. */
export interface ReduceOptions {
  /** Predicts cases under the kernel and what it is held against. */
  readonly foreseer: Foreseer;
  /** Policy of the kernel. */
  readonly kernel: Policy;
  /** What it is held against. */
  readonly against: Policy;
  /** Whether the kernel uses nested paging itself. */
  readonly npt: boolean;
  /** The modelled kernels of which it is said whether they show it too. */
  readonly kernels: readonly Policy[];
  /** Asks the kernel; what only it can show is left as it is without. */
  readonly ask: Ask | undefined;
  /** Ends it between two findings. */
  readonly signal?: AbortSignal;
}

/**
 * Makes findings small. Those of which the model is sure are made so on it, the others on the kernel
 * itself, which is then asked about all of them once more.
 *
 * @param findings The findings; their `small`, `confirmed` and `shownBy` are set.
 * @param options With what.
 * @throws {HuntError} When the kernel cannot be asked.
 * @example
 * ```ts
 * import { Foreseer, type HuntFinding, reduceFindings } from "@vmtape/vmtape/traces";
 * import { EARLY_EXIT, UNIFIED } from "@vmtape/vmtape/engine";
 * const foreseer = new Foreseer(EARLY_EXIT, UNIFIED, true);
 * const unit = ["a save.cr2=1234 control.asid=0"];
 * const { key, title, fields, parted } = foreseer.foresee(unit).deviations[0]!;
 * const what = { key, sign: key, title, fields, parted };
 * const found: HuntFinding = { ...what, kind: "deviation", count: 1, unit };
 * const policies = { kernel: EARLY_EXIT, against: UNIFIED, npt: true, kernels: [], ask: undefined };
 * await reduceFindings([found], { foreseer, ...policies });
 * if (found.small?.join() !== "case1 c.58.4=0") throw new Error(found.small?.join());
 * ```
 */
export async function reduceFindings(
  findings: readonly HuntFinding[],
  options: ReduceOptions,
): Promise<void> {
  const { ask, foreseer } = options;
  const fresh = findings.filter(({ small }) => small === undefined);
  for (const finding of fresh) {
    // Between two findings Ctrl-C has to be heard.
    await new Promise((resolve) => setTimeout(resolve));
    options.signal?.throwIfAborted();
    if (finding.kind === "deviation") {
      finding.small = await smallDeviation(finding, foreseer);
      finding.shownBy = shownBy(finding, finding.small, options);
    } else if (finding.kind === "gap" && ask !== undefined) {
      finding.small = await smallGap(finding, foreseer, ask);
    } else if (ask !== undefined) finding.small = finding.unit;
  }
  if (ask === undefined) return;
  // Twice: a boot whose clock is unstable differs in the kernel's bookkeeping from what is foreseen.
  for (let times = 0; times < 2; times++) {
    const asked = fresh.filter(({ small, confirmed }) => small !== undefined && !confirmed);
    const { records } = await askUnits(ask, asked.map(({ small }) => small!));
    asked.forEach((finding, i) => {
      finding.confirmed = isShown(finding, finding.small!, records[i], foreseer);
    });
  }
}

/** Whether a kernel's answer shows a finding. */
function isShown(
  { sign, kind }: HuntFinding,
  unit: Unit,
  records: readonly LabRecord[] | undefined,
  foreseer: Foreseer,
): boolean {
  if (records === undefined || kind === "silent") return records === undefined && kind === "silent";
  const foresight = foreseer.foresee(unit);
  const gap = gapOf(foresight, records);
  if (kind === "gap") return gap?.key === sign;
  return gap === undefined && shows(foresight.deviations, sign, unit.length);
}

function shows(
  deviations: readonly { readonly key: string; readonly case: number }[],
  key: string,
  length: number,
): boolean {
  return deviations.some((one) => one.key === key && one.case === length - 1);
}

async function smallDeviation({ sign, unit }: HuntFinding, foreseer: Foreseer): Promise<Unit> {
  try {
    const { lines } = await minimizeLines(unit.map(apart), (scenarios) => {
      const tried = scenarios.map((scenario, i) => caseLine(scenario, i));
      return shows(foreseer.foresee(tried).deviations, sign, tried.length);
    });
    return lines.map(renamed);
  } catch (error) {
    if (error instanceof NotReproducedError) return unit;
    throw error;
  }
}

/** A word of one of a unit's cases. */
interface Atom {
  readonly index: number;
  readonly word: string;
}

async function smallGap({ sign, unit }: HuntFinding, foreseer: Foreseer, ask: Ask): Promise<Unit> {
  const atoms = unit.flatMap((line, index): Atom[] =>
    apart(line).spec.split(/\s+/).filter((word) => word !== "" && word !== "keepvm")
      .map((word) => ({ index, word }))
  );
  const linesOf = (left: readonly Atom[]) => {
    const words = unit.map((_, index) => left.filter((atom) => atom.index === index));
    // A case before the last one that nothing is left of is none.
    return words.filter((own, i) => own.length > 0 || i === words.length - 1)
      .map((own, i) =>
        [name(i), ...own.map(({ word }) => word), ...(i > 0 ? ["keepvm"] : [])].join(" ")
      );
  };
  const showsMany = async (candidates: readonly (readonly Atom[])[]) => {
    const units = candidates.map(linesOf);
    const { records } = await askUnits(ask, units);
    return units.map((tried, i) => {
      const own = records[i];
      return own !== undefined && gapOf(foreseer.foresee(tried), own)?.key === sign;
    });
  };
  const [whole] = await showsMany([atoms]);
  return whole ? linesOf(await minimizeBatched(atoms, showsMany)) : unit;
}

/** Names of the kernels whose models differ in the same way from what the kernel is held against. */
function shownBy(
  { sign }: HuntFinding,
  unit: Unit,
  { kernel, kernels, against, npt }: ReduceOptions,
): string[] {
  const plain = (text: string, of: string) => text.replaceAll(of, "K");
  return kernels.filter((other) => {
    try {
      const { deviations } = new Foreseer(other, against, npt).foresee(unit);
      return deviations.some((one) => plain(one.key, other.name) === plain(sign, kernel.name));
    } catch (error) {
      if (error instanceof ScenarioError) return false;
      throw error;
    }
  }).map(({ name }) => name);
}

function apart(line: string): { readonly name: string; readonly spec: string } {
  const at = line.indexOf(" ");
  return at < 0 ? { name: line, spec: "" } : { name: line.slice(0, at), spec: line.slice(at + 1) };
}

function caseLine(scenario: Scenario, index: number): string {
  return renamed(toLabCase(scenario), index);
}

function renamed(line: string, index: number): string {
  return `${name(index)} ${apart(line).spec}`.trimEnd();
}

function name(index: number): string {
  return `case${index + 1}`;
}
