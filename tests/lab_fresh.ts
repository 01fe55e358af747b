/**
 * Fresh cases on real kernels: generates scenarios that nobody has seen, asks the lab twice what its
 * kernels do with them, and counts how far the model agrees.
 *
 * As a script it takes a seed, a count, and kernels such as `linux-6.12-npt1` (all when left out).
 *
 * @module
 */
import { answersIn } from "../cli/hunt_lab.ts";
import type { LabRecord } from "../codecs/lab/record.ts";
import { POLICIES } from "../engine/policies/mod.ts";
import { compare, compareRecords, formatComparison, skipList } from "../traces/compare/compare.ts";
import { Emulator } from "../traces/scenarios/emulator.ts";
import { generate } from "../traces/generate/generate.ts";
import { parseScenarios } from "../traces/scenarios/scenario_reader.ts";

const LAB = new URL("../../shared/lab/lab", import.meta.url);

/** The lab's kernels. */
export const KERNELS = ["early-exit", "unified", "linux-6.1", "linux-6.12", "linux-7.3"] as const;

/** The settings there are. */
export const SETTINGS = KERNELS.flatMap((kernel) => [1, 0].map((npt) => `${kernel}-npt${npt}`));

/** Whether the lab can be asked here: it is there, and so is what it runs on. */
export async function labPresent(): Promise<boolean> {
  try {
    await Deno.stat(LAB);
    for (const [program, option] of [["qemu-system-x86_64", "--version"], ["cpio", "--version"]]) {
      const { success } = await new Deno.Command(program!, { args: [option!] }).output();
      if (!success) return false;
    }
    return true;
  } catch {
    return false;
  }
}

/** Some case keeps a real kernel busy for ever. */
export class LabHangs extends Error {}

/**
 * Seconds after which the lab counts as hanging, and how much longer for each case: it takes a
 * tenth of that where nobody else wants the processor.
 */
const PATIENCE = 60, PATIENCE_PER_CASE = 0.6;
/** What timeout(1) ends with when it ended the command, and all that this started. */
const TIMED_OUT = [124, 137];

async function askOnce(
  file: string,
  count: number,
  kernel: string,
  npt: string,
): Promise<LabRecord[]> {
  const patience = Math.ceil(PATIENCE + PATIENCE_PER_CASE * count);
  const { code, success, stdout, stderr } = await new Deno.Command("timeout", {
    args: ["-k", "5", `${patience}`, LAB.pathname, file, "--kernel", kernel, "--npt", npt],
  }).output();
  if (TIMED_OUT.includes(code)) throw new LabHangs(`The lab hangs under ${kernel}-npt${npt}`);
  if (!success) throw new Error(`The lab failed: ${new TextDecoder().decode(stderr)}`);
  return answersIn(new TextDecoder().decode(stdout));
}

/** What the lab answers. On a busy host it ends a run early now and then; then it is asked again. */
async function ask(
  file: string,
  count: number,
  kernel: string,
  npt: string,
): Promise<LabRecord[]> {
  let longest: LabRecord[] = [];
  for (let attempt = 0; attempt < 3 && longest.length < count; attempt++) {
    const records = await askOnce(file, count, kernel, npt);
    if (records.length > longest.length) longest = records;
  }
  return longest;
}

/**
 * Names of cases that go on with a machine that a signal stopped in a loop: where in the loop, and
 * so what they begin with, is chance, also when it was the same twice.
 */
function afterSignal(records: readonly LabRecord[]): string[] {
  let stopped = false;
  return records.filter(({ spec, post }) => {
    const follows = stopped && /(^| )keepvm( |$)/.test(spec);
    stopped = follows || post?.rc === -1 && post.errno === EINTR;
    return follows;
  }).map((record) => record.case);
}

const EINTR = 4;

/** What the model and one kernel make of fresh cases. */
export interface Agreement {
  /** Cases that ran alike twice. */
  readonly compared: number;
  /** Those of them in which the model agrees in everything. */
  readonly agreed: number;
  /**
   * Cases that ran differently the second time, began where a signal stopped another, or whose answer
   * cannot be read.
   */
  readonly unsteady: number;
  /** Both as a table, with the disagreements. */
  readonly text: string;
}

/**
 * Counts agreement on fresh cases.
 *
 * @param seed Seed of the generator.
 * @param count How many cases.
 * @param setting Kernel and paging, such as `linux-6.12-npt1`.
 * @throws {LabHangs} When a case keeps the kernel busy for ever.
 */
export async function freshAgreement(
  seed: number,
  count: number,
  setting: string,
): Promise<Agreement> {
  const [, kernel, npt] = /^(.*)-npt([01])$/.exec(setting) ?? [];
  if (!kernel || !npt || !(kernel in POLICIES)) throw new Error(`There is no setting ${setting}`);
  const suite = [...generate({ seed, count })].join("\n") + "\n";
  const file = await Deno.makeTempFile({ suffix: ".txt" });
  try {
    await Deno.writeTextFile(file, suite);
    const records = await ask(file, count, kernel, npt);
    const again = await ask(file, count, kernel, npt);
    const unsteady = records.filter((record, i) => {
      const other = again[i];
      if (record.post === undefined || other === undefined) return true;
      return compareRecords(record, other).disagreements.length > 0;
    }).map((record) => record.case);
    const emulator = new Emulator(POLICIES[kernel]!, { npt: npt === "1", full: true });
    const predictions = parseScenarios(suite).map((scenario) => emulator.run(scenario));
    const skipped = [...new Set([...unsteady, ...afterSignal(records)])];
    const result = await compare(records, predictions, { skip: skipList(skipped) });
    const { compared, agreed } = result;
    return { compared, agreed, unsteady: skipped.length, text: formatComparison(result, 20) };
  } finally {
    await Deno.remove(file);
  }
}

if (import.meta.main) {
  const [seed = "1", count = "200", ...settings] = Deno.args;
  for (const setting of settings.length > 0 ? settings : SETTINGS) {
    const { compared, agreed, unsteady, text } = await freshAgreement(
      Number(seed),
      Number(count),
      setting,
    );
    const percent = (100 * agreed / compared).toFixed(2);
    await Deno.stdout.write(new TextEncoder().encode(
      `${setting}: ${agreed} of ${compared} (${percent} %), ${unsteady} unsteady\n${text}\n`,
    ));
  }
}
