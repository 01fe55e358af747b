import {
  assert,
  assertEquals,
  assertMatch,
  assertRejects,
  assertStringIncludes,
} from "@std/assert";
import fc from "fast-check";
import { Differ, Findings, minimize } from "../engine/diff/mod.ts";
import { EARLY_EXIT, LINUX_6_12, UNIFIED } from "../engine/policies/mod.ts";
import type { Policy } from "../engine/policy.ts";
import { findingIds, minimizeCases, NotReproducedError } from "../traces/scenarios/minimize.ts";
import { recordScenarios } from "../traces/scenarios/record.ts";
import { parseScenario } from "../traces/scenarios/scenario_reader.ts";
import { shell, vmtapeHere as vmtape, withFolder } from "./cli_process.ts";

Deno.test("what is left shows it, and no item can go", async () => {
  const list = fc.uniqueArray(fc.nat(40), { maxLength: 24 });
  await fc.assert(fc.asyncProperty(list, fc.func(fc.boolean()), async (items, wanted) => {
    const needed = items.filter((item) => wanted(item));
    const shows = (left: readonly number[]) => needed.every((item) => left.includes(item));
    assertEquals(await minimize(items, shows), needed);
  }));
});

/** Ids of the findings that the last of some lines shows. */
async function idsOf(lines: readonly string[], policies: [Policy, Policy], npt = true) {
  const findings = new Findings();
  let ids: string[] = [];
  const differ = new Differ(policies, (difference) => ids = findingIds(findings, difference));
  const scenarios = lines.map((line) => parseScenario(line));
  for await (const event of recordScenarios(scenarios, policies[0], { npt })) differ.feed(event);
  differ.finish();
  return ids;
}

const CASES: readonly (readonly [string, [Policy, Policy], boolean, string[], string[]])[] = [
  [
    "noise around a failed check",
    [EARLY_EXIT, LINUX_6_12],
    true,
    ["a save.cr2=1234 control.asid=0 save.dr7=500 m.9000.1=f4"],
    ["a c.58.4=0"],
  ],
  [
    "many reserved bits",
    [EARLY_EXIT, LINUX_6_12],
    true,
    ["a save.efer=ffffffffffff1500"],
    ["a s.d0=8000000000001500"],
  ],
  [
    "RSM",
    [EARLY_EXIT, LINUX_6_12],
    true,
    ["a save.cr2=1 entry=rsm late.save.rax=55 late.control.asid=0"],
    ["a entry=rsm xc.58.4=0"],
  ],
  [
    "a follow-on, which needs the run before",
    [EARLY_EXIT, UNIFIED],
    true,
    ["x save.cr2=1", "y keepvm save.cr2=2", "z keepvm save.cr2=3 control.asid=0"],
    ["y", "z c.58.4=0 keepvm"],
  ],
];

for (const [name, policies, npt, before, after] of CASES) {
  Deno.test(`minimize: ${name}`, async () => {
    const ids = await idsOf(before, policies, npt);
    assert(ids.length > 0);
    const cases = before.map((line) => {
      const [first = "", ...rest] = line.split(" ");
      return { name: first, spec: rest.join(" ") };
    });
    const { lines } = await minimizeCases(cases, policies, { npt, ids });
    assertEquals(lines, after);
    const shown = new Set(await idsOf(lines, policies, npt));
    for (const id of ids) assert(shown.has(id), `${id} is not among ${[...shown]}`);
  });
}

Deno.test("a difference that the cases do not show is refused", async () => {
  await assertRejects(
    () =>
      minimizeCases([{ name: "a", spec: "" }], [EARLY_EXIT, LINUX_6_12], {
        npt: true,
        ids: ["gif|failed check|early-exit"],
      }),
    NotReproducedError,
    "The cases do not show this difference",
  );
});

Deno.test("minimize prints a line that the recorder takes and that still differs", () =>
  withFolder(async (folder) => {
    await Deno.writeTextFile(`${folder}/c`, "big save.cr2=1 control.asid=0 save.rax=2\n");
    const { code, stdout, stderr } = await shell(
      "vmtape record c -o t -q && vmtape minimize t -e 0 -p early-exit,unified -o small && " +
        "vmtape record small -o s -q && vmtape diff s -p early-exit,unified",
      folder,
    );
    assertEquals(code, 1, stderr);
    assertMatch(stdout, /^big c\.58\.4=0$/m);
    assertStringIncludes(stdout, "GIF stays set after a failed consistency check under early-exit");
    const text = await Deno.readTextFile(`${folder}/small`);
    assertMatch(text, /^# control\.asid: 0x1 → 0x0$/m);
    assertMatch(text, /\nbig c\.58\.4=0\n$/);
  }));

Deno.test("minimize says why it cannot", () =>
  withFolder(async (folder) => {
    const trace = `${folder}/t`;
    await vmtape(["record", "enter", "gif-left-set", "-o", trace]);
    const refused = async (...args: string[]) => {
      const { code, stderr } = await vmtape(["minimize", trace, ...args]);
      assertEquals(code, 2);
      return stderr;
    };
    const pair = ["-p", "early-exit,linux-6.12"];
    assertMatch(await refused("-e", "0", ...pair), /Event 0: early-exit and linux-6.12 end alike/);
    assertMatch(await refused("-e", "999", ...pair), /There is no event 999: the trace has \d+/);
    const gif = ["-e", "30", ...pair];
    assertMatch(await refused(...gif, "--finding", "CR9"), /it shows: GIF stays set/);
    const alone = ["-e", "30", "-p", "early-exit"];
    assertMatch(await refused(...alone, "--finding", "GIF"), /of a difference, and needs two/);
  }));

Deno.test("minimize under one policy keeps what becomes of the VMRUN", () =>
  withFolder(async (folder) => {
    await Deno.writeTextFile(
      `${folder}/c`,
      "big save.cr2=1 control.asid=0 save.rax=2\nfine save.cr2=7 save.rip=9100 save.dr6=ffff0ff0\n",
    );
    const { code, stdout, stderr } = await shell(
      "vmtape record c -o t -q && vmtape minimize t -e 0 -p linux-6.12 && " +
        "vmtape minimize t -e 44 -p linux-6.12 --json",
      folder,
    );
    assertEquals(code, 0, stderr);
    assertMatch(stdout, /^big c\.58\.4=0$/m);
    assertMatch(stderr, /^# {3}failed check: asid-zero$/m);
    const { lines, outcome } = JSON.parse(stdout.split("\n")[1]!);
    assertMatch(outcome, /^entered L2 \(exit code 0x[0-9a-f]+\)$/);
    // Another instruction than the base's is what L2 executes; CR2 says nothing.
    assertMatch(lines.join(), /^fine s\.178=9[0-9a-f]+$/);
  }));

Deno.test("minimize of a log makes a scenario of what was recorded, and names what that cannot show", () =>
  withFolder(async (folder) => {
    const line = (time: string, text: string) => ` qemu-1 [000] ..... ${time}: ${text}\n`;
    const enter =
      "kvm_nested_vmenter: rip: 0x0000000000008000 vmcb: 0x0000000000010000 nested_rip: " +
      "0x0000000000009000 int_ctl: 0x00000000 event_inj: 0x00000000 nested_npt=n " +
      "guest_cr3: 0x0000000000040000";
    await Deno.writeTextFile(
      `${folder}/log`,
      "# tracer: nop\n" + line("1.000001", enter) +
        line("1.000002", "kvm_nested_vmenter_failed: control->asid == 0") +
        line("1.000003", enter),
    );
    const { code, stdout, stderr } = await shell(
      "vmtape import log -o t -q && " +
        "vmtape minimize t -e 2 -p early-exit,unified -o small && " +
        "vmtape minimize t -e 2 -p linux-7.3 && " +
        "vmtape record small -q -o s && { vmtape diff s -p early-exit,unified; [ $? = 1 ]; } && " +
        "{ vmtape minimize t -e 9 -p linux-7.3; [ $? = 2 ]; }",
      folder,
    );
    assertEquals(code, 0, stderr);
    assertMatch(stdout, /^event_\d c\.58\.4=0$/m);
    assertMatch(stderr, /There is no event 9: the trace has \d/);
  }));
