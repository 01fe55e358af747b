/**
 * The proof that recordings from a live KVM are true: Deno inside the lab's
 * kernels records cases through /dev/kvm, and what it saw is what the lab's own
 * program saw. 50 cases on each kernel; all of them by
 * `VMTAPE_LAB=all deno test -A tests/kvm_lab_test.ts`.
 */
import { assertEquals } from "@std/assert";
import { type LabRecord, labRecords, readLabRecords, readTrace } from "../codecs/mod.ts";
import { identify } from "../engine/mod.ts";
import { compare, formatComparison, type Scenario, skipList } from "../traces/mod.ts";
import { parseScenarios } from "../traces/mod.ts";
import { GROUND_TRUTH, groundTruth } from "./lab_ground_truth.ts";
import { buildRoot, missing, recordInLab } from "./kvm_lab.ts";

const ALL = Deno.env.get("VMTAPE_LAB") === "all";
const KERNELS = ["linux-6.12", "early-exit", "unified"] as const;
const MODES = ALL ? [1, 0] : [1];
/** Cases of the short version. */
const COUNT = 50;

const lacks = GROUND_TRUTH ? await missing() : ["../shared/ground-truth"];
if (lacks.length > 0) {
  const text = `Skipped, since ${lacks.join(", ")} is missing: recording in the lab's kernels\n`;
  Deno.stderr.writeSync(new TextEncoder().encode(text));
}

async function readJson(name: string): Promise<unknown> {
  return JSON.parse(await Deno.readTextFile(new URL(name, GROUND_TRUTH)));
}

/** Cases on one machine, one after another: the first has it anew, the rest keep it. */
function sequences(scenarios: readonly Scenario[]): Scenario[][] {
  const out: Scenario[][] = [];
  for (const scenario of scenarios) {
    if (scenario.keepvm) out.at(-1)?.push(scenario);
    else out.push([scenario]);
  }
  return out;
}

/** Some of each way in, a sequence on one machine, and every so many of the rest. */
function selection(scenarios: readonly Scenario[], unsteady: ReadonlySet<string>): Scenario[] {
  const steady = sequences(scenarios).filter((s) => !s.some(({ name }) => unsteady.has(name)));
  const single = steady.flatMap((s) => s.length === 1 ? s : []);
  const kept = steady.find((s) => s.length > 1 && s.length <= 4) ?? [];
  const evenly = (list: readonly Scenario[], count: number) =>
    Array.from({ length: count }, (_, i) => list[Math.floor(i * list.length / count)]!);
  const by = (entry: string) => single.filter((scenario) => scenario.entry === entry);
  const inject = by("vmrun").filter(({ name }) => name.startsWith("eventinj_kept_on_failure"));
  const chosen = [
    ...kept,
    ...evenly(by("rsm"), 5),
    ...evenly(by("setstate"), 5),
    ...inject.slice(0, 2),
  ];
  return [...chosen, ...evenly(by("vmrun"), COUNT - chosen.length)];
}

Deno.test({
  name: "recordings from /dev/kvm are the lab's, and tell which kernel they are of",
  ignore: lacks.length > 0,
  async fn(t) {
    const text = await Deno.readTextFile(new URL("suiteA.txt", GROUND_TRUTH));
    const unsteady = await readJson("unsteady.json");
    const names = new Set(Object.values(unsteady as Record<string, string[]>).flat());
    const scenarios = parseScenarios(text);
    const chosen = ALL ? scenarios : selection(scenarios, names);
    const cases = chosen.map(({ name, spec }) => `${name} ${spec}\n`).join("");
    const wanted = new Set(chosen.map(({ name }) => name));

    const root = await Deno.makeTempDir({ prefix: "vmtape-root-" });
    try {
      await buildRoot(root);
      for (const npt of MODES) {
        for (const kernel of KERNELS) {
          await t.step(`${kernel}, npt=${npt}`, async () => {
            const { trace } = await recordInLab(root, kernel, npt, cases);
            const events = async function* () {
              yield* (await readTrace(new Blob([trace]).stream())).events();
            };
            const truth = async function* (): AsyncGenerator<LabRecord> {
              for await (const record of readLabRecords(groundTruth(`A-${kernel}-npt${npt}`))) {
                if (wanted.has(record.case)) yield record;
              }
            };
            const result = await compare(truth(), labRecords(events()), {
              skip: skipList(unsteady),
            });
            assertEquals(result.disagreements, [], formatComparison(result));
            assertEquals(result.compared + result.skipped, wanted.size);
            assertEquals([result.onlyA, result.onlyB, result.otherSpec], [[], [], []]);
            assertEquals(result.groups[4], { cases: result.compared, agreed: result.compared });
            assertEquals(result.groups[1], result.groups[4]);
            const { verdict } = await identify(events);
            assertEquals(verdict, { kind: "known", policy: kernel, checks: ["linux-6.12"] });
          });
        }
      }
    } finally {
      await Deno.remove(root, { recursive: true });
    }
  },
});
