import { assert, assertEquals, assertMatch } from "@std/assert";
import { readLabRecords } from "../codecs/lab/record.ts";
import { Differ, Findings } from "../engine/diff/mod.ts";
import type { TraceEvent } from "../engine/event.ts";
import { LINUX_6_12 } from "../engine/policies/mod.ts";
import { list, type Policy, type Step } from "../engine/policy.ts";
import fixed from "../examples/fixed_unified.ts";
import { BUILTINS, builtinScenarios } from "../traces/scenarios/builtin.ts";
import { importLab } from "../traces/scenarios/lab_import.ts";
import { recordScenarios } from "../traces/scenarios/record.ts";
import { parseScenarios } from "../traces/scenarios/scenario_reader.ts";
import { shell, vmtape, withFolder } from "./cli_process.ts";
import { GROUND_TRUTH, groundTruth } from "./lab_ground_truth.ts";

const PAGE = await Deno.readTextFile(new URL("../docs/writing-a-policy.md", import.meta.url));

/** What the page explains: words that a finding's id has, all of them. */
const EXPLAINED = [...PAGE.matchAll(/^\| `([^`]+)` +\| (.+?) +\|$/gm)].map(
  ([, words = "", why = ""]) => {
    assert(why.length > 40, `${words} is not explained`);
    return words.split(" ");
  },
);

async function idsOf(events: AsyncIterable<TraceEvent> | Iterable<TraceEvent>): Promise<string[]> {
  const findings = new Findings();
  const differ = new Differ([LINUX_6_12, fixed], (difference) => findings.add(difference));
  for await (const event of events) differ.feed(event);
  differ.finish();
  return findings.list().map(({ id }) => id);
}

function assertExplained(ids: readonly string[]): Set<string> {
  const used = new Set<string>();
  for (const id of ids) {
    const parts = id.split(/[|:]/);
    const row = EXPLAINED.find((words) => words.every((word) => parts.includes(word)));
    assert(row !== undefined, `Not explained: ${id}`);
    used.add(row.join(" "));
  }
  return used;
}

Deno.test("the page explains what is left, each thing once", () => {
  assert(EXPLAINED.length >= 5);
  assertEquals(new Set(EXPLAINED.map(String)).size, EXPLAINED.length);
});

Deno.test("the fixed policy differs from linux-6.12 in nothing that is not explained", async () => {
  const ids: string[] = [];
  for (const npt of [true, false]) {
    const scenarios = BUILTINS.flatMap(({ name }) => builtinScenarios(name));
    ids.push(...await idsOf(recordScenarios(scenarios, LINUX_6_12, { npt })));
  }
  assertExplained(ids);
  for (const fault of ["msrpm01", "msrpm-recalc", "pdptrs", "mmu"]) {
    assert(!ids.some((id) => id.startsWith(`${fault}|`) || id.includes(`|${fault}|`)), fault);
  }
});

Deno.test({
  name: "suite A: the fixed policy differs from linux-6.12 in what the page explains, all of it",
  ignore: GROUND_TRUTH === undefined,
  async fn() {
    const used = new Set<string>();
    for (const npt of [1, 0]) {
      const records = readLabRecords(groundTruth(`A-linux-6.12-npt${npt}`));
      for (const one of assertExplained(await idsOf(importLab(records)))) used.add(one);
    }
    assertEquals(used, new Set(EXPLAINED.map((words) => words.join(" "))));
  },
});

/** linux-6.12 with a step of its own where its checks begin. */
function withStep(name: string, run: Step["run"]): Policy {
  const step: Step = { name: "my step", doc: "Goes wrong", run };
  const { vmrun } = LINUX_6_12.ways;
  const ways = {
    ...LINUX_6_12.ways,
    vmrun: [...vmrun.slice(0, 5), ...list([step]), ...vmrun.slice(5)],
  };
  return { ...LINUX_6_12, name, ways };
}

const WRONG: readonly (readonly [string, Step["run"], RegExp])[] = [
  ["throws", () => {
    throw new TypeError("no such field");
  }, /^Step "my step" of throws threw TypeError: no such field$/],
  [
    "forgets to say how it ended",
    () => undefined as never,
    /ended with undefined, which is none of OK/,
  ],
  [
    "calls itself for ever",
    (v) => v.policy.ways.vmrun[5]!.step.run(v),
    /threw RangeError: Maximum call/,
  ],
  ["breaks an invariant", (v) => {
    v.assertThat(false, "my invariant");
    return 0;
  }, /^my invariant$/],
];

for (const [name, run, message] of WRONG) {
  Deno.test(`a policy that ${name} is reported, and the run goes on`, async () => {
    const texts: string[] = [];
    const events: number[] = [];
    const policy = withStep(name.split(" ")[0]!, run);
    const differ = new Differ([LINUX_6_12, policy], ({ event, reports }) => {
      texts.push(...reports?.[1].map(({ text }) => text) ?? []);
      events.push(event);
    });
    const scenarios = parseScenarios("one\ntwo\nthree keepvm\n");
    for await (const event of recordScenarios(scenarios, LINUX_6_12)) differ.feed(event);
    const { runs, different } = differ.finish();
    assertEquals([runs, different, events.length], [3, [3], 3]);
    assertEquals(texts.filter((text) => message.test(text)).length, 3, texts.join("\n"));
  });
}

Deno.test("every subcommand takes a policy of the user's own, and says where it goes wrong", () =>
  withFolder(async (folder) => {
    await Deno.writeTextFile(
      `${folder}/mine.ts`,
      'import { list, LINUX_6_12 } from "@vmtape/vmtape/engine";\n' +
        'const step = { name: "mine", doc: "Throws", run() { throw new Error("oops"); } };\n' +
        "const ways = { ...LINUX_6_12.ways, vmrun: [...list([step]), ...LINUX_6_12.ways.vmrun] };\n" +
        'export default { ...LINUX_6_12, name: "mine", ways };\n',
    );
    const pair = "-p linux-6.12,./mine.ts";
    const { stdout, stderr } = await shell(
      "vmtape record enter gif-left-set -o t -p ./mine.ts -q; vmtape replay t -p linux-6.12 | tail -3; " +
        `vmtape diff t ${pair}; vmtape explain t -e 0 ${pair}; vmtape stats t ${pair} --passes 1; ` +
        `vmtape report t ${pair} -o r.html; echo 'a control.asid=0' | vmtape predict - -p ./mine.ts`,
      folder,
    );
    assertMatch(
      stdout,
      /^1\. mine goes wrong: Step "mine" of mine threw Error: oops \(2 runs\)$/m,
    );
    assertMatch(stdout, /First: event \d+ \(enter\)/);
    assertMatch(stdout, /ASSERTION Step "mine" of mine threw Error:\s+oops/);
    assertMatch(stdout, /"warn":"Step \\"mine\\" of mine threw Error: oops"/);
    assert(!stderr.includes("    at "), stderr);
    assertMatch(stderr, /^1 finding in 2 VMRUNs, in r\.html/m);
  }));

Deno.test("a step that never ends is named, with the event, by another thread", () =>
  withFolder(async (folder) => {
    const engine = import.meta.resolve("../engine/mod.ts");
    await Deno.writeTextFile(
      `${folder}/loop.ts`,
      `import { UNIFIED } from ${JSON.stringify(engine)};
const loop = { name: "think", doc: "", run() { for (;;); } };
const { vmrun } = UNIFIED.ways;
export default { ...UNIFIED, name: "loop", ways: { ...UNIFIED.ways, vmrun: [{ step: loop }, ...vmrun] } };
`,
    );
    await vmtape(["record", "enter", "-o", `${folder}/t`]);
    const main = new URL("../cli/main.ts", import.meta.url).pathname;
    const child = new Deno.Command(Deno.execPath(), {
      args: ["run", "-q", "--allow-all", main, "replay", `${folder}/t`, "-p", `${folder}/loop.ts`],
      stdout: "null",
      stderr: "piped",
    }).spawn();
    try {
      let said = "";
      for await (const text of child.stderr.pipeThrough(new TextDecoderStream())) {
        said += text;
        if (said.includes("Ctrl-C")) break;
      }
      assertMatch(
        said,
        /Step "think" of \w+ has not ended for 5 s, at event \d+: it seems to loop/,
      );
    } finally {
      child.kill("SIGKILL");
      await child.status;
    }
  }));
