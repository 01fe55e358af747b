import { assert, assertEquals } from "@std/assert";
import { copyEvent } from "../codecs/mod.ts";
import type { TraceEvent } from "../engine/event.ts";
import type { Vcpu } from "../engine/kvm/vcpu.ts";
import { EARLY_EXIT, LINUX_6_12, type Policy, Replayer, UNIFIED } from "../engine/mod.ts";
import { BUILTINS, builtinScenarios } from "../traces/scenarios/builtin.ts";
import { generate } from "../traces/generate/generate.ts";
import { recordScenarios } from "../traces/scenarios/record.ts";
import { parseScenario } from "../traces/scenarios/scenario_reader.ts";

const REPEAT = 7;

async function recorded(names: readonly string[], policy: Policy, npt: boolean, all: boolean) {
  const events: TraceEvent[] = [];
  const scenarios = names.flatMap((name) => builtinScenarios(name));
  const options = { npt, repeat: REPEAT, everyRound: all };
  for await (const event of recordScenarios(scenarios, policy, options)) {
    events.push(copyEvent(event));
  }
  return events;
}

for (const npt of [true, false]) {
  Deno.test(`recordScenarios() gives for settled rounds what running them gives, npt ${npt}`, async () => {
    for (const { name } of BUILTINS) {
      const fast = await recorded([name], LINUX_6_12, npt, false);
      assertEquals(fast, await recorded([name], LINUX_6_12, npt, true), name);
    }
  });

  Deno.test(`recordScenarios() repeats all scenarios together as they would run, npt ${npt}`, async () => {
    const names = BUILTINS.map((builtin) => builtin.name);
    for (const policy of [EARLY_EXIT, UNIFIED]) {
      const fast = await recorded(names, policy, npt, false);
      assertEquals(fast, await recorded(names, policy, npt, true), policy.name);
    }
  });
}

Deno.test("recordScenarios() does not run the rounds of a loop that has settled", async () => {
  const scenarios = builtinScenarios("enter");
  let events = 0, runs = 0;
  const steps = LINUX_6_12.ways.vmrun;
  const [first] = steps;
  const counted = {
    ...LINUX_6_12,
    ways: {
      ...LINUX_6_12.ways,
      vmrun: [
        { ...first!, step: { ...first!.step, run: (v: Vcpu) => (runs++, first!.step.run(v)) } },
        ...steps.slice(1),
      ],
    },
  };
  for await (const _ of recordScenarios(scenarios, counted, { repeat: 20_000 })) events++;
  assertEquals(events, 11 + 20_000 * 13);
  assert(runs < 10, `${runs} rounds were run`);
});

for (const npt of [true, false]) {
  Deno.test(`what the emulator records replays in everything, whatever the scenario, npt ${npt}`, async () => {
    const generated = [...generate({ seed: 20261123, count: 500 })];
    // Restoring what an earlier run left in memory, and control registers that KVM refuses.
    const scenarios = [
      ...generated,
      "first c.58.4=0",
      "kept entry=setstate keepvm keepmem s.158=80010031",
      "pae entry=setstate l1pae s.d0=1000 s.150=50000 s.12.2=c9b keepvm keepmem",
      "refused efer=5500",
      "refused-kept cr4=10000000 keepvm",
      "refused-gif gif=0 efer=0",
      "left-in-l2 entry=setstate keepvm",
      "flags rflags=10002 entry=setstate keepvm",
      "left-in-l2-again entry=setstate keepvm",
      "refused-in-l2 efer=5500 entry=setstate keepvm",
      "hsave hsave=20001",
      "prefetch entry=setstate s.d0=1100 s.158=30 s.148=0 s.12.2=a9b c.90=1 c.b0=60000 m.9000=cc c.8.4=8",
    ].map((line) => parseScenario(line));
    for (const policy of [EARLY_EXIT, UNIFIED, LINUX_6_12]) {
      const replayer = new Replayer(policy, (found) => {
        throw new Error(`${policy.name} ${found.scenario}: ${found.field}`);
      });
      for await (const event of recordScenarios(scenarios, policy, { npt })) replayer.feed(event);
      const { runs, agreed, unmodelled } = replayer.finish();
      const unknown = [...unmodelled.values()].reduce((sum, count) => sum + count, 0);
      assertEquals([runs, agreed], [scenarios.length, scenarios.length - unknown]);
    }
  });
}
