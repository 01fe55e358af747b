import { assert, assertEquals } from "@std/assert";
import { copyEvent } from "../codecs/mod.ts";
import type { TraceEvent } from "../engine/event.ts";
import { EARLY_EXIT, type Policy, UNIFIED, UPSTREAM } from "../engine/mod.ts";
import { BUILTINS, builtinScenarios } from "../traces/builtin.ts";
import { recordScenarios } from "../traces/record.ts";

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
      const fast = await recorded([name], UPSTREAM, npt, false);
      assertEquals(fast, await recorded([name], UPSTREAM, npt, true), name);
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

Deno.test("recordScenarios() records a long loop in the time of a short one", async () => {
  const scenarios = builtinScenarios("enter");
  let events = 0;
  const start = performance.now();
  for await (const _ of recordScenarios(scenarios, UPSTREAM, { repeat: 20_000 })) events++;
  const took = performance.now() - start;
  assertEquals(events, 11 + 20_000 * 13);
  // Running every round takes ten seconds and more.
  assert(took < 5_000, `${took} ms`);
});
