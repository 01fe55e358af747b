import { assert, assertEquals } from "@std/assert";
import { copyEvent } from "../codecs/mod.ts";
import { EARLY_EXIT, LINUX_6_12, type Policy, Replayer, UNIFIED } from "../engine/mod.ts";
import type { TraceEvent } from "../engine/event.ts";
import { builtinScenarios } from "../traces/scenarios/builtin.ts";
import { recordScenarios } from "../traces/scenarios/record.ts";
import { shell, withFolder } from "./cli_process.ts";

const record = (name: string, policy: Policy, switches = true) =>
  Array.fromAsync(recordScenarios(builtinScenarios(name), policy, { switches }), copyEvent);

function replay(events: readonly TraceEvent[], policy: Policy) {
  const found: string[] = [];
  const replayer = new Replayer(policy, ({ field, recorded, replayed }) => {
    found.push(`${field}: ${recorded} / ${replayed}`);
  });
  for (const event of events) replayer.feed(event);
  return { ...replayer.finish(), found };
}

const targets = (events: readonly TraceEvent[]) =>
  events.flatMap((event) => event.kind === "switch" ? [event.to] : []);

Deno.test("an entry switches to vmcb02 and its #VMEXIT back, and a replay sees the same", async () => {
  for (const policy of [EARLY_EXIT, UNIFIED, LINUX_6_12]) {
    const events = await record("enter", policy);
    assertEquals(targets(events), [2, 1]);
    const { agreed, runs, outcomes } = replay(events, policy);
    assertEquals([agreed, runs], [1, 1]);
    assertEquals(outcomes.get("switch"), { compared: 2, agreed: 2 });
  }
});

Deno.test("a failed check switches nothing, but what fails late does and goes back", async () => {
  assertEquals(targets(await record("gif-left-set", LINUX_6_12)), []);
  assertEquals(targets(await record("eventinj-left-late", LINUX_6_12)), [2, 1]);
  // It merges the MSR bitmap and loads CR3 before it switches: what fails there never does.
  const events = await record("eventinj-left-late", UNIFIED);
  assertEquals(targets(events), []);
  const { agreed, found } = replay(events, LINUX_6_12);
  assertEquals(agreed, 0);
  assert(found.some((line) => line.includes("switch to vmcb02")), found.join("\n"));
});

Deno.test("a recording that does not tell of switches is held against none", async () => {
  const events = await record("enter", LINUX_6_12, false);
  assertEquals(targets(events), []);
  const { agreed, runs, outcomes } = replay(events, LINUX_6_12);
  assertEquals([agreed, runs, outcomes.get("switch")], [1, 1, undefined]);
  // Nor is one whose session does not say that it has all of them.
  const some = events.toSpliced(-1, 0, { kind: "switch", vcpu: 0, to: 2 });
  assertEquals(replay(some, LINUX_6_12).agreed, 1);
});

Deno.test("record --switches records them, and dump shows them", () =>
  withFolder(async (folder) => {
    const { code, stdout } = await shell(
      "vmtape record enter -o t -q --switches && vmtape replay t && vmtape dump t --kind switch",
      folder,
    );
    assertEquals(code, 0);
    assert(/switch +2 +2/.test(stdout), stdout);
    assert(/switch .*to vmcb02[^]*switch .*to vmcb01/.test(stdout), stdout);
  }));
