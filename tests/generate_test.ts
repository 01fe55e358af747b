import { assert, assertEquals, assertNotEquals } from "@std/assert";
import { generate } from "../traces/generate/generate.ts";
import { MUTATIONS } from "../traces/generate/mutations.ts";
import { Random } from "../traces/generate/random.ts";
import { toLabCase } from "../traces/scenarios/lab_case.ts";
import { ENTRIES } from "../traces/scenarios/scenario.ts";
import { parseScenario } from "../traces/scenarios/scenario_reader.ts";

const MANY = [...generate({ seed: 20240607, count: 10_000 })];
const SCENARIOS = MANY.map((line) => parseScenario(line));

Deno.test("the random numbers of a seed never change", () => {
  const random = new Random(1);
  assertEquals([random.u32(), random.u32(), random.u32()], [393288148, 2174103013, 3814759091]);
  assertNotEquals(new Random(2).u32(), new Random(1).u32());
});

Deno.test("random integers are spread over their range", () => {
  const random = new Random(7);
  const seen = new Array<number>(10).fill(0);
  for (let i = 0; i < 10_000; i++) seen[random.below(10)]!++;
  assert(seen.every((count) => count > 850 && count < 1150), seen.join());
});

Deno.test("the same seed gives the same cases, and a smaller count the first of them", () => {
  assertEquals([...generate({ seed: 20240607, count: 300 })], MANY.slice(0, 300));
  assertNotEquals([...generate({ seed: 5, count: 10 })], [...generate({ seed: 6, count: 10 })]);
});

Deno.test("every case is one that the lab takes, under a name of its own", () => {
  assertEquals(new Set(SCENARIOS.map((scenario) => scenario.name)).size, MANY.length);
  for (const [i, line] of MANY.entries()) {
    assert(/^[\x21-\x7e]+( [\x21-\x7e]+)*$/.test(line), line);
    const { spec: _spec, ...scenario } = SCENARIOS[i]!;
    const { spec: _s, ...again } = parseScenario(toLabCase({ ...scenario, spec: "" }));
    assertEquals(again, scenario);
  }
});

Deno.test("every mutation is taken, for each way in that it is for", () => {
  const taken = new Set<string>();
  for (const { name, entry } of SCENARIOS) {
    const mutations = name.slice(name.indexOf("_", name.indexOf("_") + 1) + 1);
    for (const mutation of mutations.split("+")) taken.add(`${entry} ${mutation}`);
  }
  const missing = MUTATIONS.flatMap(({ name, entries = ENTRIES }) =>
    entries
      .map((way) => `${way} ${name}`).filter((key) => !taken.has(key))
  );
  assertEquals(missing, []);
});

Deno.test("all ways in, modes of L1 and sequences have their share", () => {
  const share = (test: (scenario: typeof SCENARIOS[number]) => boolean) =>
    SCENARIOS.filter(test).length / SCENARIOS.length;
  assert(share((s) => s.entry === "vmrun") > 0.45);
  for (const entry of ["rsm", "setstate", "mid", "migrate"]) {
    assert(share((s) => s.entry === entry) > 0.1, entry);
  }
  assert(share((s) => s.cpuid.length > 0) > 0.05);
  assert(share((s) => s.physicalBits !== undefined) > 0.01);
  assert(share((s) => s.pending) > 0.01);
  assert(share((s) => s.midNmi || s.midIrq !== 0) > 0.02);
  assert(share((s) => s.l1.pae) > 0.03);
  assert(share((s) => !s.gif) > 0.05);
  assert(share((s) => s.keepvm) > 0.1);
  assert(share((s) => s.keepmem) > 0.005);
  assert(share((s) => s.late.length > 0) > 0.15);
});

Deno.test("sequences are two to five cases long", () => {
  const lengths = new Set<number>();
  let length = 1;
  for (const { keepvm } of SCENARIOS.slice(1)) {
    if (keepvm) length++;
    else {
      lengths.add(length);
      length = 1;
    }
  }
  assertEquals([...lengths].sort(), [1, 2, 3, 4, 5]);
});

Deno.test("every bit of the checked registers is flipped, but the one the emulated processor leaks by", () => {
  const scenarios = [...generate({ seed: 11, count: 12_000 })].map((line) => parseScenario(line));
  const flipped = (gpa: number, base: bigint) => {
    let bits = 0n;
    for (const { changes } of scenarios) {
      for (const change of changes) {
        const bit = change.value ^ base;
        if (change.gpa === gpa && change.size === 8 && (bit & bit - 1n) === 0n) bits |= bit;
      }
    }
    return bits;
  };
  assertEquals(flipped(0x104d0, 0x1500n) >> 13n & 1n, 0n);
  for (
    const [gpa, base] of [[0x10558, 0x80000031n], [0x10548, 0x20n], [0x10560, 0x400n]] as const
  ) {
    assertEquals((flipped(gpa, base) & 0xffffffffn).toString(16), "ffffffff");
  }
});

Deno.test("the ways in can be chosen", () => {
  const lines = [...generate({ seed: 9, count: 100, entries: ["rsm"], sequences: 0 })];
  assert(lines.every((line) => line.includes(" entry=rsm") && !line.includes("keepvm")));
});

Deno.test("of an L2 that stops on its way the code changes only behind its port write", () => {
  for (const { entry, changes } of SCENARIOS) {
    if (entry === "vmrun" || entry === "setstate") continue;
    assert(changes.every(({ target, gpa }) => target !== "memory" || gpa < 0x9000 || gpa > 0x90ff));
  }
});

Deno.test("a reserved event stays with the failing check before VMRUN, also with an SMI", () => {
  let seen = 0;
  for (const { name, entry, changes, late } of SCENARIOS) {
    if (entry !== "rsm" || !/injreserved|injbadvector/.test(name)) continue;
    seen++;
    assertEquals(changes.at(-2)?.gpa, 0x100a8, name);
    const inject = late.filter((change) => change.gpa === 0x100a8).map((change) => change.value);
    assert(
      inject.every((value) => [0n, 2n, 3n, 4n].includes(value >> 8n & 7n) || !(value >> 31n & 1n)),
      name,
    );
  }
  assert(seen > 5);
});

Deno.test("mutations can be left out", () => {
  const lines = [...generate({ seed: 3, count: 500, without: ["l1pae", "asid0"] })];
  assert(lines.every((line) => !/[_+](l1pae|asid0)[+ ]/.test(line)));
  assert(lines.some((line) => /[_+]npt[+ ]/.test(line)));
});
