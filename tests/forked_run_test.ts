import { assert, assertEquals } from "@std/assert";
import {
  Driver,
  EARLY_EXIT,
  LINUX_6_1,
  memoryDigest,
  onProcessor,
  RunPaths,
  stateDigest,
  TransitionLog,
  UNIFIED,
} from "../engine/mod.ts";
import { PolicyPair, type Side } from "../engine/diff/policy_pair.ts";
import { StateParts } from "../engine/diff/state_parts.ts";
import { sharesEntry } from "../engine/replay/drive.ts";
import { STATE_SIZE } from "../engine/svm/machine.ts";
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

Deno.test("what a policy is foreseen to do from another state is what it does from it", async () => {
  let foreseen = 0, others = 0;
  for (const policies of [[EARLY_EXIT, UNIFIED], [UNIFIED, LINUX_6_1], [LINUX_6_1, EARLY_EXIT]]) {
    const [first, other] = policies.map((policy) => {
      const log = new TransitionLog("writers");
      const driver = new Driver(onProcessor(policy, EARLY_EXIT.processor));
      driver.observer = log.observer;
      driver.paths = new RunPaths(driver.policy);
      return { driver, log, parts: new StateParts() };
    }) as [Side, Side];
    const pair = new PolicyPair();
    const used: number[] = [];
    // A few ways of doing it, again and again, each time with other values.
    const lines = [...generate({ seed: 3, count: 40, entries: ["vmrun"], sequences: 0 })];
    const specs = ["", ...lines.slice(0, 3).map((line) => line.split(" ").slice(1).join(" "))];
    const scenarios = Array.from({ length: 240 }, (_, i) => {
      const value = (i % 7 * 8 + 0x7000).toString(16);
      const keeps = i % 60 === 0 ? "" : " keepvm";
      return parseScenario(`s${i} s.1d8=${value} ${specs[i >> 3 & 3]}${keeps}`);
    });
    let index = 0;
    for await (const event of recordScenarios(scenarios, EARLY_EXIT)) {
      const runs = event.kind === "vmrun" && event.regs !== undefined &&
        first.driver.vcpu !== undefined && other.driver.vcpu !== undefined;
      if (!runs) {
        for (const { driver } of [first, other]) driver.feed(event, index);
        index++;
        continue;
      }
      first.log.reset();
      other.log.reset();
      // One more difference, in a word that runs read or write.
      const a = first.driver.vcpu!.words, b = other.driver.vcpu!.words;
      const word = used[index * 7 % used.length], was = word === undefined ? 0 : a[word]!;
      if (word !== undefined && index % 3 > 0) a[word]! ^= 1 << index % 32;
      const { memory } = first.driver.vcpu!, [page = 0] = memory.pages();
      const byte = memory.read8(page * 4096);
      if (index % 5 === 0) memory.write8(page * 4096, byte ^ 1);
      const apart = pair.begin(first, other, Number(event.vmcb12_gpa));
      if (apart) pair.foresee(first, other);
      const before = b.slice(0, STATE_SIZE / 4);
      other.driver.feed(event, index);
      before.forEach((value, i) => {
        if (value !== b[i] && !used.includes(i)) used.push(i);
      });
      if (apart && pair.foreseen(other)) {
        foreseen++;
        const copy = pair.fork(first, other);
        copy.feed(event, index);
        const state = ({ vcpu, phase }: Driver) => [
          vcpu && memoryDigest(vcpu, stateDigest(vcpu)),
          vcpu?.looseKey,
          phase,
        ];
        assertEquals(state(copy), state(other.driver));
      } else if (apart) others++;
      if (word !== undefined) a[word] = was;
      if (index % 5 === 0) memory.write8(page * 4096, byte);
      first.driver.feed(event, index++);
    }
  }
  // Both happen often, else the test shows nothing.
  assert(foreseen > 100 && others > 50, `${foreseen} were foreseen, ${others} not`);
});
