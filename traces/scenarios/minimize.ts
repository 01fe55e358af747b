/**
 * The smallest scenario that shows a difference between two policies.
 *
 * @module
 */
import { VmtapeError } from "../../engine/error.ts";
import { Differ, Findings, minimize, type RunDifference } from "../../engine/diff/mod.ts";
import type { Policy } from "../../engine/policy.ts";
import { diffImages } from "../../engine/image/diff.ts";
import { VMCB_LAYOUT } from "../../engine/svm/vmcb_fields.ts";
import { baseL1, basePages, PAE_TABLES, SAVE_GPA, VMCB12_GPA } from "./base.ts";
import { recordScenarios } from "./record.ts";
import { toLabCase } from "./lab_case.ts";
import type { Scenario } from "./scenario.ts";
import { ScenarioError } from "./scenario_error.ts";
import { bytesOf } from "./scenario_memory.ts";
import { parseScenario } from "./scenario_reader.ts";

/** One case of a sequence: its name and its spec, in the case syntax. */
export interface CaseText {
  /** First word of the line. */
  readonly name: string;
  /** The rest. */
  readonly spec: string;
}

/** What is to be kept while a scenario is made smaller. */
export interface MinimizeOptions {
  /** Whether the hypervisor uses nested paging itself. */
  readonly npt: boolean;
  /** Ids of the findings that the last case has to show ({@linkcode Finding.id}). */
  readonly ids: readonly string[];
}

/** The smallest scenario that was found. */
export interface Minimized {
  /** Its cases in order: one, unless the difference needs what earlier ones leave behind. */
  readonly scenarios: readonly Scenario[];
  /** Its lines in the lab's case syntax. */
  readonly lines: readonly string[];
  /** What each line changes, by field name. */
  readonly notes: readonly string[];
  /** How many scenarios were tried. */
  readonly tried: number;
}

/**
 * A difference that its scenario does not show when it is run on the emulator.
 *
 * @example
 * ```ts
 * import { minimizeCases, NotReproducedError } from "@vmtape/vmtape/traces";
 * import { EARLY_EXIT, UPSTREAM } from "@vmtape/vmtape/engine";
 * // Every check passes, so GIF is not left set by a failed one.
 * const options = { npt: true, ids: ["gif|failed check|early-exit"] };
 * const cases = [{ name: "fine", spec: "" }];
 * const caught = await minimizeCases(cases, [EARLY_EXIT, UPSTREAM], options).catch((error) => error);
 * if (!(caught instanceof NotReproducedError)) throw new Error();
 * ```
 */
export class NotReproducedError extends VmtapeError {
  /** Name of the class. */
  override readonly name = "NotReproducedError";
}

/** Words of one case; `keepvm` is not among them but follows from its place. */
interface Words {
  readonly name: string;
  readonly words: readonly string[];
}

/** A word of one of the cases. */
interface Atom {
  readonly index: number;
  readonly word: string;
}

const RAW = /^(x?[csm])\.([0-9a-f]+)(?:\.([0-8]))?=([0-9a-f]+)$/;
const REGISTER = /^(rax|rip|rflags|cr0|cr3|cr4|efer|hsave)=([0-9a-f]+)$/;

/**
 * Makes a sequence of cases as small as it can be while its last case still
 * shows what it showed: fewer cases, fewer changes from the valid base, fewer
 * bits in each.
 *
 * @param cases The cases on one vCPU up to the one that shows it.
 * @param policies The two policies.
 * @param options What has to be kept.
 * @returns The smallest scenario found; its lines have been parsed and run again.
 * @throws {NotReproducedError} When the cases do not show it on the emulator.
 * @throws {ScenarioError} When a case cannot be read.
 * @example
 * ```ts
 * import { minimizeCases } from "@vmtape/vmtape/traces";
 * import { EARLY_EXIT, UPSTREAM } from "@vmtape/vmtape/engine";
 * const { lines } = await minimizeCases(
 *   [{ name: "a", spec: "save.cr2=1234 control.asid=0 save.dr7=500" }],
 *   [EARLY_EXIT, UPSTREAM],
 *   { npt: true, ids: ["gif|failed check|early-exit"] },
 * );
 * if (lines.join() !== "a c.58.4=0") throw new Error(lines.join());
 * ```
 */
export async function minimizeCases(
  cases: readonly CaseText[],
  policies: readonly [Policy, Policy],
  options: MinimizeOptions,
): Promise<Minimized> {
  return await minimizeLines(cases, (scenarios) => showsFindings(scenarios, policies, options));
}

/**
 * Makes a sequence of cases as small as it can be while it still shows something.
 *
 * @param cases The cases on one vCPU up to the one that shows it.
 * @param shows Whether cases still show it.
 * @returns The smallest scenario found; its lines have been parsed and tried again.
 * @throws {NotReproducedError} When the cases do not show it.
 * @throws {ScenarioError} When a case cannot be read.
 */
export async function minimizeLines(
  cases: readonly CaseText[],
  shows: (scenarios: readonly Scenario[]) => boolean | Promise<boolean>,
): Promise<Minimized> {
  const trial = new Trial(shows);
  for (const { name, spec } of cases) parseScenario(`${name} ${spec}`);
  let list = await trial.lastOf(cases.map(wordsOf));
  list = await trial.fewerWords(list);
  list = await trial.fewerBits(list);
  list = await trial.fewerWords(list);
  const lines = list.map((_, i) => toLabCase(parseScenario(lineOf(list, i))));
  if (!await trial.showsLines(lines)) throw new NotReproducedError(NOT_SHOWN);
  const scenarios = lines.map((line) => parseScenario(line));
  return { scenarios, lines, notes: scenarios.map(noteOf), tried: trial.count };
}

const NOT_SHOWN =
  "The cases do not show this difference when they are run on the emulator; the trace was recorded " +
  "in a state that they do not set up";

/** Whether the last of some cases shows all findings that are to be kept, on the emulator. */
async function showsFindings(
  scenarios: readonly Scenario[],
  policies: readonly [Policy, Policy],
  { npt, ids }: MinimizeOptions,
): Promise<boolean> {
  const shown = await shownFindings(scenarios, policies, npt);
  return ids.every((id) => shown.has(id));
}

/**
 * The findings that the last of some cases shows when they are run on the emulator.
 *
 * @param scenarios The cases.
 * @param policies The two policies.
 * @param npt Whether the hypervisor uses nested paging itself.
 * @returns Their ids ({@linkcode Finding.id}).
 */
export async function shownFindings(
  scenarios: readonly Scenario[],
  policies: readonly [Policy, Policy],
  npt: boolean,
): Promise<ReadonlySet<string>> {
  const last = `${scenarios.length - 1}`;
  const shown = new Set<string>();
  const findings = new Findings();
  const differ = new Differ(policies, (difference) => {
    const found = findingIds(findings, difference);
    if (difference.scenario === last) { for (const id of found) shown.add(id); }
  });
  for await (const event of recordScenarios(numbered(scenarios), policies[0], { npt })) {
    differ.feed(event);
  }
  differ.finish();
  return shown;
}

/** Cases with numbers for names, so that the last one is told from those before. */
export function numbered(scenarios: readonly Scenario[]): Scenario[] {
  return scenarios.map((scenario, i) => ({ ...scenario, name: `${i}` }));
}

/** Runs candidates and says whether they still show what is to be kept. */
class Trial {
  readonly #show: (scenarios: readonly Scenario[]) => boolean | Promise<boolean>;
  count = 0;

  constructor(shows: (scenarios: readonly Scenario[]) => boolean | Promise<boolean>) {
    this.#show = shows;
  }

  async showsLines(lines: readonly string[]): Promise<boolean> {
    const scenarios: Scenario[] = [];
    for (const line of lines) {
      try {
        scenarios.push(parseScenario(line));
      } catch (error) {
        if (error instanceof ScenarioError) return false;
        throw error;
      }
    }
    this.count++;
    // Ctrl-C is heard in between.
    await new Promise((resolve) => setTimeout(resolve));
    return await this.#show(scenarios);
  }

  #shows(list: readonly Words[]): Promise<boolean> {
    return this.showsLines(list.map((_, i) => lineOf(list, i)));
  }

  /** The last cases that show it: as few as do, looked for in steps of doubled length. */
  async lastOf(all: readonly Words[]): Promise<Words[]> {
    for (let n = 1; n < 2 * all.length; n *= 2) {
      const list = all.slice(-n);
      if (!await this.#shows(list)) continue;
      const last = list[list.length - 1] as Words;
      const before = await minimize(list.slice(0, -1), (less) => this.#shows([...less, last]));
      return [...before, last];
    }
    throw new NotReproducedError(NOT_SHOWN);
  }

  async fewerWords(list: readonly Words[]): Promise<Words[]> {
    const atoms = list.flatMap(({ words }, index) => words.map((word) => ({ index, word })));
    const from = (left: readonly Atom[]) =>
      list.map(({ name }, index) => ({
        name,
        words: left.filter((atom) => atom.index === index).map(({ word }) => word),
      }));
    return from(await minimize(atoms, (left) => this.#shows(from(left))));
  }

  /** Gives every value back as many bits of the base's as it can have. */
  async fewerBits(list: readonly Words[]): Promise<Words[]> {
    let cases = list.map(({ name }, i) => {
      const line = toLabCase(parseScenario(lineOf(list, i)));
      return wordsOf({ name, spec: line.slice(name.length) });
    });
    for (const [index, { words }] of cases.entries()) {
      for (const [at, word] of words.entries()) {
        const value = valueOf(word, words);
        if (value === undefined) continue;
        const bits = bitsOf(value.now ^ value.base);
        const put = (left: readonly bigint[]) => {
          const next = left.reduce((sum, bit) => sum ^ bit, value.base);
          const changed = value.prefix + next.toString(16);
          return cases.map((one, i) =>
            i === index ? { ...one, words: one.words.with(at, changed) } : one
          );
        };
        cases = put(await minimize(bits, (left) => this.#shows(put(left))));
      }
    }
    return cases;
  }
}

/**
 * Ids of the findings that a run's differences belong to.
 *
 * @param findings Where the differences of the runs before went; the run's are added.
 * @param difference The run's differences.
 */
export function findingIds(findings: Findings, difference: RunDifference): string[] {
  const prefix = `${difference.policies.join("|")}|`;
  return findings.add(difference).map((key) => key.slice(prefix.length));
}

function wordsOf({ name, spec }: CaseText): Words {
  return { name, words: spec.split(/\s+/).filter((word) => word !== "" && word !== "keepvm") };
}

/** A case as a line; all but the first go on with the vCPU of the one before. */
function lineOf(list: readonly Words[], index: number): string {
  const { name, words } = list[index] as Words;
  return [name, ...words, ...(index > 0 ? ["keepvm"] : [])].join(" ");
}

interface Value {
  readonly prefix: string;
  readonly now: bigint;
  readonly base: bigint;
}

/** The value that a word sets, and the valid base's there. */
function valueOf(word: string, words: readonly string[]): Value | undefined {
  const raw = RAW.exec(word);
  if (raw !== null) {
    const [, letters = "", offset = "", size = "8", value = ""] = raw;
    const area = letters.at(-1) as "c" | "s" | "m";
    const gpa = { c: VMCB12_GPA, s: SAVE_GPA, m: 0 }[area] + Number(`0x${offset}`);
    const prefix = word.slice(0, word.indexOf("=") + 1);
    return { prefix, now: BigInt(`0x${value}`), base: baseValue(gpa, Number(size)) };
  }
  const register = REGISTER.exec(word);
  if (register === null) return undefined;
  const [, name = "", value = ""] = register;
  const usual = baseL1();
  if (words.includes("l1pae")) {
    usual.efer = 0x1000n;
    usual.cr3 = BigInt(PAE_TABLES);
  }
  const base = usual[name as "rax" | "rip" | "rflags" | "cr0" | "cr3" | "cr4" | "efer" | "hsave"];
  return { prefix: `${name}=`, now: BigInt(`0x${value}`), base };
}

function baseValue(gpa: number, size: number): bigint {
  let value = 0n;
  for (let i = size - 1; i >= 0; i--) {
    const page = basePages().get((gpa + i) - (gpa + i) % 4096);
    value = value << 8n | BigInt(page?.[(gpa + i) % 4096] ?? 0);
  }
  return value;
}

function bitsOf(mask: bigint): bigint[] {
  const bits: bigint[] = [];
  for (let bit = 1n; bit <= mask; bit <<= 1n) if ((mask & bit) !== 0n) bits.push(bit);
  return bits;
}

/** What a scenario changes in vmcb12, by field name, and its other words as they are. */
function noteOf(scenario: Scenario): string {
  const before = (basePages().get(VMCB12_GPA) as Uint8Array).slice();
  const after = before.slice();
  for (const change of scenario.changes) {
    const at = change.gpa - VMCB12_GPA;
    if (at >= 0 && at + change.size <= after.length) after.set(bytesOf(change), at);
  }
  const fields = diffImages(VMCB_LAYOUT, { bytes: before }, { bytes: after })
    .map((row) => `${row.field}: ${row.aText} → ${row.bText}`);
  return fields.join("; ");
}
