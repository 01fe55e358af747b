import { assert, assertEquals, assertMatch } from "@std/assert";
import type { TraceEvent } from "../engine/event.ts";
import { Differ, type Finding, Findings, type RunDifference } from "../engine/diff/mod.ts";
import { EARLY_EXIT, LINUX_6_12, LINUX_7_3, UNIFIED } from "../engine/policies/mod.ts";
import { list, OK, type Policy, type Step } from "../engine/policy.ts";
import { V } from "../engine/svm/machine.ts";
import { readLabRecords } from "../codecs/lab/record.ts";
import { importLab } from "../traces/scenarios/lab_import.ts";
import { recordScenarios } from "../traces/scenarios/record.ts";
import { parseScenarios } from "../traces/scenarios/scenario_reader.ts";
import { GROUND_TRUTH, groundTruth } from "./lab_ground_truth.ts";

interface Found {
  readonly findings: Finding[];
  readonly differences: RunDifference[];
}

async function compare(
  events: AsyncIterable<TraceEvent> | Iterable<TraceEvent>,
  policies: readonly Policy[],
): Promise<Found> {
  const findings = new Findings();
  const differences: RunDifference[] = [];
  const differ = new Differ(policies, (difference) => {
    findings.add(difference);
    differences.push(difference);
  });
  for await (const event of events) differ.feed(event);
  differ.finish();
  return { findings: findings.list(), differences };
}

const record = (text: string, policy = EARLY_EXIT) => recordScenarios(parseScenarios(text), policy);

Deno.test("a follow-on is told as one, with the run it comes from", async () => {
  const text = "first\nsecond keepvm control.asid=0\nthird keepvm control.asid=0\n";
  const { findings, differences } = await compare(record(text), [EARLY_EXIT, UNIFIED]);
  const of = (run: number, field: string) =>
    differences.find((d) => d.run === run)?.fields.find((f) => f.field.name === field);
  assertEquals(of(0, "msrpm01")?.carried, false);
  for (const run of [1, 2]) {
    const carried = of(run, "msrpm01");
    assertEquals([carried?.carried, carried?.origin?.scenario], [true, "first"]);
    // The failed check itself is this run's own doing, whatever state it began with.
    assertEquals(of(run, "gif")?.carried, false);
  }
  const follow = findings.filter((finding) => finding.kind === "carried");
  assert(follow.length > 0);
  for (const { cause, first } of follow) {
    assertEquals([cause?.run.scenario, first.scenario], ["first", "second"]);
    assert(cause!.title !== "" && findings.some(({ title }) => title === cause!.title));
  }
});

Deno.test("an outcome that only earlier state explains is a follow-on", async () => {
  // The first #VMEXIT leaves the flag set, and only the next VMRUN minds it.
  const leave: Step = {
    name: "leave the flag",
    doc: "Sets a flag that nothing else minds",
    run(v) {
      v.set64(V.nmi_iret_rip, 1n);
      return OK;
    },
  };
  const mind: Step = {
    name: "mind the flag",
    doc: "Asserts that the flag is clear",
    run(v) {
      v.assertThat(v.u32(V.nmi_iret_rip) === 0, "!iret");
      return OK;
    },
  };
  const { vmrun, vmexit } = LINUX_6_12.ways;
  const ways = {
    ...LINUX_6_12.ways,
    vmrun: [...list([mind]), ...vmrun],
    vmexit: [...vmexit, ...list([leave])],
  };
  const sticky: Policy = { ...LINUX_6_12, name: "sticky", ways };
  const { findings, differences } = await compare(record("one\ntwo keepvm\n"), [
    LINUX_6_12,
    sticky,
  ]);
  const [first, second] = differences;
  assertEquals([first?.reports, second?.reportsOrigin?.scenario], [undefined, "one"]);
  assertEquals(second?.reports?.[1].map(({ text }) => text), ["!iret"]);
  const [state, follow, ...more] = findings;
  assertEquals([state?.kind, follow?.kind, follow?.cause?.run.scenario], [
    "state",
    "carried",
    "one",
  ]);
  assertEquals([state?.first.scenario, more.length], ["one", 0]);
});

Deno.test("titles are in the field's words and name the policy", async () => {
  const text = "fine\nasid control.asid=0\nevent control.asid=0 control.event_inj=80000220\n" +
    "rsm entry=rsm late.control.asid=0\n";
  const titles = async (...policies: Policy[]) =>
    (await compare(record(text), policies)).findings.map(({ title }) => title).join("\n");
  const unified = await titles(EARLY_EXIT, UNIFIED);
  assertMatch(unified, /^GIF stays set after a failed consistency check under early-exit$/m);
  assertMatch(unified, /^vmcb01 points at the merged MSR bitmap under unified/m);
  const shipped = await titles(LINUX_6_12, EARLY_EXIT);
  assertMatch(shipped, /^EVENTINJ stays in vmcb12 after a failed consistency check under early-/m);
  assertMatch(shipped, /^early-exit lets L2 in on RSM where linux-6.12 refuses/m);
});

Deno.test("who refuses later and without a failed check lets nobody in", async () => {
  const text = (msrpm: string) => `a control.event_inj=80000302${msrpm}\n`;
  const titles = async (msrpm: string) => {
    const findings = new Findings();
    const differ = new Differ([LINUX_6_12, LINUX_7_3], (difference) => findings.add(difference));
    for await (const event of recordScenarios(parseScenarios(text(msrpm)), LINUX_6_12)) {
      differ.feed(event);
    }
    differ.finish();
    return findings.list().filter(({ kind }) => kind === "outcome").map(({ title }) => title);
  };
  const what =
    "EVENTINJ has a type that cannot be injected, or an exception's type with a vector " +
    "that is none";
  assertEquals(await titles(""), [`linux-6.12 lets L2 in where linux-7.3 refuses: ${what}`]);
  assertEquals(await titles(" control.msrpm_base_pa=8000000"), [
    `Both refuse: linux-7.3 by a failed check (${what}), linux-6.12 later and without one`,
  ]);
});

Deno.test("the first run of a finding is the first that shows it", async () => {
  const text = "fine\nbad control.asid=0\nworse save.efer=500\n";
  const { findings, differences } = await compare(record(text), [EARLY_EXIT, UNIFIED]);
  const gif = findings.find(({ id }) => id.startsWith("gif|"))!;
  assertEquals([gif.first.scenario, gif.runs], ["bad", 2]);
  assertEquals(gif.checks, { "asid-zero": 1, "efer-svme": 1 });
  assert(differences.some(({ event }) => event === gif.first.event));
});

for (const [npt, most] of [["1", 16], ["0", 20]] as const) {
  Deno.test({
    name: `suite A with npt=${npt}: early-exit and unified differ in about a dozen findings`,
    ignore: GROUND_TRUTH === undefined,
    async fn() {
      const records = groundTruth(`A-early-exit-npt${npt}`);
      const { findings, differences } = await compare(importLab(readLabRecords(records)), [
        EARLY_EXIT,
        UNIFIED,
      ]);
      assert(differences.length > 1000, `${differences.length} runs differ`);
      const titles = findings.map(({ runs, title }) => `${runs} ${title}`).join("\n");
      assert(findings.length >= 8 && findings.length <= most, titles);
      for (const { kind, cause } of findings) assertEquals(kind === "carried", cause !== undefined);
    },
  });
}
