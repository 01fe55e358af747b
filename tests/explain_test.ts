import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import type { FieldValue } from "../engine/image/fields.ts";
import { BETWEEN, Explainer, type Explanation, valueTexts } from "../engine/diff/mod.ts";
import { EARLY_EXIT, LINUX_6_12, UNIFIED } from "../engine/policies/mod.ts";
import type { Policy } from "../engine/policy.ts";
import { recordScenarios } from "../traces/scenarios/record.ts";
import { parseScenarios } from "../traces/scenarios/scenario_reader.ts";
import { shell, vmtapeHere as vmtape, withFolder } from "./cli_process.ts";

async function explained(
  text: string,
  policies: [Policy, Policy],
  event?: number,
): Promise<Explanation | undefined> {
  const events = await Array.fromAsync(recordScenarios(parseScenarios(text), policies[0]));
  const explainer = new Explainer(policies, event ?? events.length - 1);
  for (const one of events) explainer.feed(one);
  return explainer.finish();
}

Deno.test("the parting step is the first that is not the same, and the changes are under it", async () => {
  const { rows, difference } = (await explained("a control.asid=0", [EARLY_EXIT, LINUX_6_12]))!;
  const marked = rows.filter((row) => row.parts);
  assertEquals(marked.length, 1);
  const at = rows.indexOf(marked[0]!);
  for (const { a, b } of rows.slice(0, at)) assertEquals(a?.name, b?.name);
  const names = rows.slice(at).map(({ a, b }) => [a?.name, b?.name]);
  assertEquals(names.slice(0, 3), [
    [undefined, "clear EVENTINJ"],
    [undefined, "clear GIF"],
    ["unmap vmcb12", "unmap vmcb12"],
  ]);
  const gif = rows.find(({ b }) => b?.name === "clear GIF")!.b!.changes;
  assertEquals(
    gif.map((change) => [change.area, change.field.name, ...valueTexts(change).bits]),
    [["nested", "gif"], ["vmcb01", "control.int_ctl", "V_GIF"]],
  );
  assertEquals(difference?.fields.map(({ field }) => field.name), ["gif", "control.int_ctl"]);
});

Deno.test("a failed check is reported at its step, under both", async () => {
  const { rows } = (await explained("a control.asid=0", [EARLY_EXIT, UNIFIED]))!;
  const row = rows.find(({ a }) => a?.name === "check controls")!;
  for (const step of [row.a, row.b]) {
    assertEquals(step?.reports.map(({ id }) => id), ["asid-zero"]);
  }
});

Deno.test("what each step changed leads from the first state to the last", async () => {
  const { rows } = (await explained("a", [UNIFIED, LINUX_6_12]))!;
  for (const side of ["a", "b"] as const) {
    const values = new Map<string, FieldValue>();
    let changes = 0;
    for (const row of rows) {
      for (const { area, field, a: before, b: after } of row[side]?.changes ?? []) {
        // vmcb12 is worked on in a copy while it is mapped.
        if (area === "vmcb12") continue;
        const key = `${area} ${field.name}`;
        assertEquals(values.get(key) ?? before, before, key);
        values.set(key, after);
        changes++;
      }
    }
    assert(changes > 50);
    assert(rows.some((row) => row[side]?.name === BETWEEN));
  }
});

Deno.test("steps of a #VMEXIT within a failed VMRUN are set in", async () => {
  const text = "a control.msrpm_base_pa=8000000";
  const { rows } = (await explained(text, [EARLY_EXIT, UNIFIED]))!;
  const inner = rows.filter(({ a }) => a?.depth === 1);
  assert(inner.length > 5 && inner.every(({ a }) => a?.way === "vmexit"));
});

Deno.test("an event before, in and after a run names that run; one in none is refused", async () => {
  const text = "one\ntwo control.asid=0\n";
  const events = await Array.fromAsync(recordScenarios(parseScenarios(text), LINUX_6_12));
  const second = events.findLastIndex(({ kind }) => kind === "case");
  const of = async (event: number) =>
    (await explained(text, [LINUX_6_12, EARLY_EXIT], event))?.scenario;
  assertEquals(await of(0), "one");
  assertEquals(await of(second), "two");
  assertEquals(await of(events.length - 1), "two");
  assertEquals(await of(events.length), undefined);
});

Deno.test("explain prints two columns, plain in a pipe, and marks where they part", () =>
  withFolder(async (folder) => {
    const trace = `${folder}/t`;
    await vmtape(["record", "gif-left-set", "-o", trace]);
    const args = ["explain", trace, "-e", "0", "-p", "early-exit,linux-6.12"];
    const { code, stdout, stderr } = await vmtape(args);
    assertEquals([code, stderr], [1, ""]);
    assertMatch(stdout, /^Event \d+ \(gif-left-set control\.asid=0\)$/m);
    assertMatch(stdout, /^> The policies part here\n> {30,}clear EVENTINJ$/m);
    assertMatch(stdout, /^\| {30,}clear GIF\n {30,}nested gif: 0x1 → 0x0$/m);
    assertStringIncludes(stdout, "FAILED asid-zero: control->asid == 0");
    assert(!stdout.includes("\x1b"));
    for (const line of stdout.split("\n")) assert(line.length <= 150, line);
    const json = JSON.parse((await vmtape([...args, "--json"])).stdout);
    assertEquals(json.policies, ["early-exit", "linux-6.12"]);
    assertEquals(json.rows.filter((row: { parts: boolean }) => row.parts).length, 1);
  }));

Deno.test("explain takes two policies and an event that there is", () =>
  withFolder(async (folder) => {
    const { stderr } = await shell(
      "vmtape record enter -o t -q; vmtape explain t -e 0 -p early-exit,unified,linux-6.12; " +
        "vmtape explain t -e 500 -p early-exit,unified; vmtape explain t -p early-exit,unified",
      folder,
    );
    assertStringIncludes(stderr, "One policy or two are explained at a time");
    assertMatch(stderr, /There is no event 500: the trace has \d+/);
    assertMatch(stderr, /--event N is needed/);
  }));

Deno.test("a VMRUN of a log is explained as far as it does not depend on what was not recorded", () =>
  withFolder(async (folder) => {
    await Deno.writeTextFile(
      `${folder}/log`,
      " q-7 [000] .....  3.648900: kvm_nested_vmenter_failed: control->asid == 0\n",
    );
    const { stdout } = await shell(
      "vmtape import log -o t -q; vmtape explain t -e 1 -p early-exit,unified",
      folder,
    );
    assertStringIncludes(stdout, "FAILED asid-zero: control->asid == 0");
    assertMatch(stdout, /^\| {30,}clear GIF$/m);
    assertMatch(stdout, /unified goes on with "save L1 in vmcb01"; \d+ fields differ at the end$/m);
    // Whether GIF was set before is not in the log.
    assert(!/nested gif: 0x1 → 0x0/.test(stdout), stdout);
  }));

Deno.test("one policy is explained alone, in one column", () =>
  withFolder(async (folder) => {
    const { stdout, code } = await shell(
      "vmtape record gif-left-set -o t -q; vmtape explain t -e 20 -p linux-6.12",
      folder,
    );
    assertEquals(code, 0);
    assertMatch(stdout, /^ {2}linux-6\.12$/m);
    assertMatch(stdout, /^ {2}clear GIF\n {4}nested gif: 0x1 → 0x0$/m);
    assert(!stdout.includes("part here"));
  }));
