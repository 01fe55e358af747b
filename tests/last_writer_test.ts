import { assert, assertEquals } from "@std/assert";
import {
  AREAS,
  Differ,
  Driver,
  EARLY_EXIT,
  LINUX_6_1,
  type Observer,
  RunPaths,
  TransitionLog,
  UNIFIED,
} from "../engine/mod.ts";
import type { TraceEvent } from "../engine/event.ts";
import { placeOf } from "../engine/diff/areas.ts";
import { builtinScenarios, generate, parseScenario, recordScenarios } from "../traces/mod.ts";

/** Tells two listeners. */
function both(one: Observer, other: Observer): Observer {
  return {
    begin: (way, v) => (one.begin?.(way, v), other.begin?.(way, v)),
    end: (way, outcome, v) => (one.end?.(way, outcome, v), other.end?.(way, outcome, v)),
    step: (step, v) => (one.step?.(step, v), other.step?.(step, v)),
    check() {},
    warn() {},
    inner() {},
  };
}

Deno.test("who wrote a field last is the same told while it runs and found by repeating the run", async () => {
  const places = AREAS.flatMap((area) =>
    area.layout.fields.filter((_, i) => i % 6 === 0).map((field) => placeOf(area, field))
  ).filter(({ size }) => size > 0 && size <= 8);
  let written = 0;
  for (const policy of [EARLY_EXIT, UNIFIED, LINUX_6_1]) {
    const watching = new TransitionLog();
    const driver = new Driver(policy);
    let repeating = new TransitionLog();
    const names = (log: TransitionLog) =>
      log.lastWriters(driver.vcpu!, places).map((writer) =>
        writer && `${writer.step} in ${log.transitions.indexOf(writer.transition)}`
      );
    const scenarios = [...generate({ seed: 5, count: 40 })].map((line) => parseScenario(line));
    let index = 0, runs = 0;
    for await (const event of recordScenarios(scenarios, policy)) {
      const begins = event.kind === "setstate" ||
        event.kind === "vmrun" && event.regs !== undefined;
      if (begins || event.kind === "session" || event.kind === "case") {
        if (driver.vcpu !== undefined && repeating.transitions.length > 0) {
          const told = names(watching);
          written += told.filter((name) => name !== undefined).length;
          // Nothing is watched in the first run.
          if (runs++ > 0) assertEquals(told, names(repeating));
        }
        watching.reset();
        repeating = new TransitionLog();
        driver.observer = both(watching.observer, repeating.observer);
      }
      driver.feed(event, index++);
    }
  }
  // It is told of many, else the test shows nothing.
  assertEquals(written > 1000, true, `only ${written}`);
});

Deno.test("sessions with more and with less memory are told of alike", async () => {
  const told: string[][] = [];
  const events: TraceEvent[] = [];
  for (const memory of [1 << 24, (1 << 24) + (1 << 20), 1 << 23]) {
    for await (const event of recordScenarios(builtinScenarios("gif-left-set"), UNIFIED)) {
      const copy = structuredClone(event);
      if (copy.kind !== "session") events.push(copy);
      else {
        const capabilities = { ...copy.meta?.["capabilities"] as Record<string, unknown>, memory };
        events.push({ ...copy, meta: { ...copy.meta, capabilities } });
      }
    }
  }
  const differ = new Differ([EARLY_EXIT, LINUX_6_1], ({ fields }) => {
    told.push(
      fields.map(({ area, field, stepA, stepB }) => `${area} ${field.name} ${stepA} ${stepB}`),
    );
  });
  for (const event of events) differ.feed(event);
  differ.finish();
  assertEquals(told.length, 3);
  assertEquals(told[1], told[0]);
  assertEquals(told[2], told[0]);
});

/** Cases that come again and again, with other values of registers that are only carried. */
function variations(seed: number, count: number, rounds: number) {
  const lines = [...generate({ seed, count })];
  return Array.from({ length: rounds }, (_, round) =>
    lines.map((line, i) => {
      const value = (n: number) => (0x1000 + (i * 7 + round * n) % 3 * 8).toString(16);
      const keeps = round % 2 === 1 ? " keepvm" : "";
      const spec = `s.1d8=${value(1)} s.1f8=${value(2)} s.240=${value(5)} c.50=${value(4)}`;
      return parseScenario(`${line} ${spec}${keeps}`);
    })).flat();
}

for (const npt of [true, false]) {
  Deno.test(`who wrote a field last is known of a path that is followed: npt ${npt ? "on" : "off"}`, async () => {
    const places = AREAS.flatMap((area) => area.layout.fields.map((field) => placeOf(area, field)))
      .filter(({ size }) => size > 0 && size <= 8);
    for (const policy of [EARLY_EXIT, UNIFIED, LINUX_6_1]) {
      const carried = new Driver(policy), followed = new Driver(policy);
      const logs = [new TransitionLog("starts"), new TransitionLog("writers")] as const;
      carried.observer = logs[0].observer;
      followed.observer = logs[1].observer;
      const { run } = followed.paths = new RunPaths(policy);
      let index = 0, seen = 0, written = 0;
      const settle = () => {
        if (carried.vcpu !== undefined && logs[0].transitions.length > 0) {
          const [a, b] = ([carried, followed] as const).map((driver, i) => {
            const log = logs[i as 0 | 1];
            const writers = log.lastWriters(driver.vcpu!, places).map((writer) =>
              writer && `${writer.step} in ${log.transitions.indexOf(writer.transition)}`
            );
            const transitions = log.transitions.map((
              { way, outcome, steps },
            ) => [way, outcome, ...steps.map(({ name }) => name)]);
            return { transitions, reports: [...log.reports], writers };
          });
          assertEquals(b, a);
          if (logs[1].path !== undefined) {
            seen++;
            written += b!.writers.filter((name) => name !== undefined).length;
          }
        }
        for (const log of logs) log.reset();
      };
      for await (const event of recordScenarios(variations(5, 8, 40), policy, { npt })) {
        const begins = event.kind === "setstate" ||
          event.kind === "vmrun" && event.regs !== undefined;
        if (begins || event.kind === "session" || event.kind === "case") settle();
        carried.feed(event, index);
        followed.feed(event, index++);
      }
      settle();
      const { counts } = run;
      // Many follow paths, else the test shows nothing.
      assert(seen > 50 && written > 1000, `${seen} of ${JSON.stringify(counts)}, ${written}`);
    }
  });
}
