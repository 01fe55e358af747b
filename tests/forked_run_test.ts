import { assertEquals } from "@std/assert";
import {
  Driver,
  EARLY_EXIT,
  LINUX_6_1,
  memoryDigest,
  stateDigest,
  TransitionLog,
  UNIFIED,
} from "../engine/mod.ts";
import { sharesEntry } from "../engine/replay/drive.ts";
import { generate, parseScenario, recordScenarios } from "../traces/mod.ts";

Deno.test("a policy carried along up to the first #VMEXIT ends as if it had gone all the way", async () => {
  assertEquals([sharesEntry(EARLY_EXIT, UNIFIED), sharesEntry(UNIFIED, LINUX_6_1)], [true, false]);
  let compared = 0;
  const scenarios = [...generate({ seed: 9, count: 60 })].map((line) => parseScenario(line));
  const driver = new Driver(EARLY_EXIT);
  let spare: Driver | undefined;
  let index = 0;
  for await (const event of recordScenarios(scenarios, EARLY_EXIT)) {
    if (event.kind !== "vmrun" || event.regs === undefined || driver.vcpu === undefined) {
      driver.feed(event, index++);
      continue;
    }
    const alone = driver.fork(UNIFIED), seen = new TransitionLog(), told = new TransitionLog();
    alone.observer = seen.observer;
    alone.feed(event, index);
    const wanted = { policy: UNIFIED, observer: told.observer, spare };
    const [along] = driver.feedForked(event, index++, [wanted]);
    spare = along;
    const state = ({ vcpu, phase }: Driver) => [
      vcpu && memoryDigest(vcpu, stateDigest(vcpu)),
      vcpu?.looseKey,
      phase,
    ];
    assertEquals(state(along!), state(alone));
    const steps = (log: TransitionLog) =>
      log.transitions.map(({ way, outcome, steps }) => [way, outcome, ...steps.map((s) => s.name)]);
    assertEquals(steps(told), steps(seen));
    assertEquals(told.reports, seen.reports);
    compared++;
  }
  assertEquals(compared > 30, true);
});
