import { terminalText } from "../cli/paint.ts";
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { diffLines, type DiffOutput, failsOn, markdownLines } from "../cli/diff_output.ts";
import { Differ, Findings } from "../engine/diff/mod.ts";
import { EARLY_EXIT, UNIFIED } from "../engine/policies/mod.ts";
import { recordScenarios } from "../traces/scenarios/record.ts";
import { parseScenarios } from "../traces/scenarios/scenario_reader.ts";
import { shell, withFolder } from "./cli_process.ts";

const CASES =
  "fine\nasid control.asid=0\nmore keepvm control.asid=0\nrsm entry=rsm late.control.asid=0\n";

async function output(cases = CASES, trace = "run.vmtape"): Promise<DiffOutput> {
  const findings = new Findings();
  const differ = new Differ([EARLY_EXIT, UNIFIED], (difference) => findings.add(difference));
  const events = recordScenarios(parseScenarios(cases), EARLY_EXIT);
  for await (const event of events) differ.feed(event);
  const policies = ["early-exit", "./my unified.ts"];
  return { result: differ.finish(), findings: findings.list(), trace, policies };
}

Deno.test("each finding prints a command that shows it, quoted for a shell", async () => {
  const text = [...diffLines(await output(CASES, "my run"), false)].join("\n");
  assertMatch(
    text,
    /^ {3}vmtape explain 'my run' --event \d+ --policies 'early-exit,\.\/my unified\.ts'$/m,
  );
  assert(!text.includes("\x1b"));
});

Deno.test("of a log too, the command explains the first VMRUN that shows a finding", async () => {
  const whole = await output();
  const findings = whole.findings.map((finding) => ({
    ...finding,
    first: { ...finding.first, scenario: undefined },
  }));
  const { event } = whole.findings[0]!.first;
  const text = [...diffLines({ ...whole, findings }, false)].join("\n");
  assertStringIncludes(text, `vmtape explain run.vmtape --event ${event} --policies `);
});

Deno.test("a follow-on says where it comes from", async () => {
  const cases = "fine\nasid keepvm control.asid=0\n";
  const text = [...diffLines(await output(cases), false)].join("\n");
  assertMatch(text, /^ {3}Comes from event \d+ \(fine\): vmcb01 points at the merged MSR bitmap/m);
});

Deno.test("colour is around the same text", async () => {
  const one = await output();
  const plain = [...diffLines(one, false)].join("\n");
  const coloured = terminalText([...diffLines(one, true)].join("\n"));
  // deno-lint-ignore no-control-regex
  assertEquals(coloured.replace(/\x1b\[\d+m/g, ""), plain);
  assert(coloured !== plain);
});

Deno.test("Markdown tables have as many cells in every row, and escape what means something", async () => {
  const one = await output();
  const [first] = one.findings;
  const evil = {
    ...first!,
    title: "a|b *c* <d> `e`",
    fields: first!.fields.slice(0, 1).map((row) => (
      { ...row, field: { ...row.field, name: "x|`y`" } }
    )),
  };
  const text = [...markdownLines({ ...one, findings: [evil, ...one.findings] })].join("\n");
  assertStringIncludes(text, "### 1. a\\|b \\*c\\* \\<d\\> \\`e\\` (");
  assertStringIncludes(text, " x\\|`y` ``");
  for (const row of text.split("\n").filter((line) => line.startsWith("|"))) {
    assertEquals(row.replaceAll("\\|", "").split("|").length, 7, row);
  }
});

Deno.test("--fail-on chooses what ends with status 1", async () => {
  const one = await output();
  const same = { ...one, result: { ...one.result, different: [0] }, findings: [] };
  assertEquals([failsOn(one), failsOn(same)], [true, false]);
  assertEquals([failsOn(one, "none"), failsOn(one, "outcome"), failsOn(one, "gif")], [
    false,
    true,
    true,
  ]);
  const { findings } = one;
  const states = { ...one, findings: findings.filter(({ kind }) => kind !== "outcome") };
  assertEquals([failsOn(states, "outcome"), failsOn(one, "pdptrs")], [false, false]);
});

Deno.test("the JSON has the keys that its page documents, and no others", () =>
  withFolder(async (folder) => {
    const page = await Deno.readTextFile(new URL("../docs/diff-json.md", import.meta.url));
    const tables = page.split(/^\| Key .*\n\| -.*\n/m).slice(1).map((table) =>
      [...table.split("\n\n")[0]!.matchAll(/^\| `(\w+)`/gm)].map(([, key]) => key!)
    );
    const [result = [], finding = [], field = [], run = []] = tables;
    await Deno.writeTextFile(`${folder}/c`, CASES.replace("asid ", "asid keepvm "));
    const { stdout } = await shell(
      "vmtape record c -o t -q -p early-exit; vmtape diff t -p early-exit,unified --json",
      folder,
    );
    const json = JSON.parse(stdout);
    assertEquals(Object.keys(json).sort(), result.toSorted());
    const seen = { finding: new Set<string>(), field: new Set<string>(), run: new Set<string>() };
    for (const one of json.findings) {
      for (const key of Object.keys(one)) seen.finding.add(key);
      for (const key of Object.keys(one.first)) seen.run.add(key);
      for (const row of one.fields) for (const key of Object.keys(row)) seen.field.add(key);
      assert(["outcome", "state", "carried", "unsettled"].includes(one.kind));
    }
    assertEquals([...seen.finding].sort(), finding.toSorted());
    assertEquals([...seen.field].sort(), field.toSorted());
    assertEquals([...seen.run].sort(), run.toSorted());
  }));

Deno.test("diff --format markdown and --fail-on work on the command line", () =>
  withFolder(async (folder) => {
    const { code, stdout, stderr } = await shell(
      "vmtape record gif-left-set -o t -q -p early-exit; set -e; " +
        "vmtape diff t -p early-exit,unified --format markdown --fail-on none; " +
        "vmtape diff t -p early-exit,unified --fail-on outcome >/dev/null; " +
        "! vmtape diff t -p early-exit,unified --fail-on gif >/dev/null",
      folder,
    );
    assertEquals([code, stderr], [0, ""]);
    assertMatch(
      stdout,
      /^### 1\. GIF stays set after a failed consistency check under early-exit/m,
    );
    assertMatch(stdout, /`vmtape explain t --event \d+ --policies early-exit,unified`/);
  }));
