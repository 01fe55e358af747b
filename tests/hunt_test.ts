import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { ARCHITECTURAL, LINUX_7_3, POLICIES } from "../engine/policies/mod.ts";
import type { LabRecord } from "../codecs/lab/record.ts";
import { type Ask, Hunt, HuntError, type Known, reduceFindings } from "../traces/hunt/mod.ts";
import { askUnits } from "../traces/hunt/asking.ts";
import { minimizeBatched } from "../traces/hunt/batched.ts";
import { KNOWN } from "../traces/hunt/known.ts";
import { Coverage } from "../traces/hunt/coverage.ts";
import { pickUnits, unitsOf } from "../traces/hunt/units.ts";
import { generate } from "../traces/generate/generate.ts";
import { Emulator } from "../traces/scenarios/emulator.ts";
import { parseScenario } from "../traces/scenarios/scenario_reader.ts";
import { deviate } from "./hunt_fake_lab.ts";

const COUNT = 120;

function fakeLab(change: (record: LabRecord) => LabRecord): Ask {
  const emulator = new Emulator(KERNEL, { npt: true, full: true });
  return (lines) => Promise.resolve(lines.map((line) => change(emulator.run(parseScenario(line)))));
}

const KERNEL = LINUX_7_3;
const GIF = "gap|vmrun|post.gif";

function newHunt(seed: number, known?: readonly Known[]): Hunt {
  return new Hunt({
    kernel: KERNEL,
    against: ARCHITECTURAL,
    npt: true,
    seed,
    ...(known === undefined ? {} : { known }),
  });
}

Deno.test("a hunt finds what a kernel does otherwise than its model, and makes it small", async () => {
  const hunt = newHunt(3);
  const ask = fakeLab(deviate);
  await hunt.batch(ask, COUNT);
  const found = hunt.findings.filter(({ key }) => key === GIF);
  assert(found.length === 1, hunt.findings.map(({ key }) => key).join("\n"));
  const { foreseer } = hunt;
  const kernels = [LINUX_7_3];
  await reduceFindings(found, {
    foreseer,
    kernel: KERNEL,
    against: ARCHITECTURAL,
    npt: true,
    kernels,
    ask,
  });
  assertEquals(found[0]?.small, ["case1 c.58.4=0"]);
  assertEquals(found[0]?.confirmed, true);
  const right = newHunt(3);
  await right.batch(fakeLab((record) => record), COUNT);
  assertEquals(right.findings.filter(({ kind }) => kind === "gap"), []);
});

Deno.test("deviations from what the kernel is held against are made small, with the kernels that show them", async () => {
  const hunt = newHunt(3, []);
  const ask = fakeLab((record) => record);
  await hunt.batch(ask, COUNT);
  const [first] = hunt.findings;
  assert(first !== undefined && first.kind === "deviation");
  const { foreseer } = hunt;
  const kernels = [LINUX_7_3];
  const options = { foreseer, kernel: KERNEL, against: ARCHITECTURAL, npt: true, kernels, ask };
  await reduceFindings([first], options);
  assert(first.confirmed);
  assertEquals(first.shownBy, ["linux-7.3"]);
  const length = (unit: readonly string[]) => unit.join(" ").split(" ").length;
  assert(length(first.small!) <= length(first.unit));
});

Deno.test("the same seed has the same findings, and another seed other cases", async () => {
  const states = [];
  for (const seed of [5, 5, 6]) {
    const hunt = newHunt(seed);
    await hunt.batch(fakeLab(deviate), COUNT);
    states.push(hunt.state);
  }
  assertEquals(states[0], states[1]);
  assert(JSON.stringify(states[0]) !== JSON.stringify(states[2]));
});

Deno.test("a hunt that goes on from its state comes to what one without a break does", async () => {
  const whole = newHunt(7);
  for (let i = 0; i < 2; i++) await whole.batch(fakeLab(deviate), COUNT);
  const first = newHunt(7);
  await first.batch(fakeLab(deviate), COUNT);
  const state = JSON.parse(JSON.stringify(first.state));
  const options = { kernel: KERNEL, against: ARCHITECTURAL, npt: true, seed: 7 };
  const second = new Hunt(options, state);
  await second.batch(fakeLab(deviate), COUNT);
  assertEquals(JSON.stringify(second.state), JSON.stringify(whole.state));
});

Deno.test("the cases that are picked reach more than as many that are not", () => {
  const { foreseer } = newHunt(1);
  const coverage = new Coverage();
  const picked = pickUnits(1, 0, COUNT, foreseer, coverage);
  const count = picked.flatMap(({ unit }) => unit).length;
  const plain = new Set<string>();
  let left = count;
  for (const unit of unitsOf(generate({ seed: 1, count: 2 * COUNT }))) {
    if (left <= 0) break;
    left -= unit.length;
    for (const feature of foreseer.foresee(unit).features) plain.add(feature);
  }
  const reached = Object.keys(coverage.counts()).length;
  assert(reached > plain.size, `${reached} and ${plain.size}`);
  const steps = coverage.reached(KERNEL).find(({ what }) => what === "steps");
  assert(steps?.of !== undefined && steps.reached + steps.missing.length === steps.of);
});

Deno.test("what is known is counted, and no finding", async () => {
  const row: Known = { id: "gif", kind: "model", gap: /\|post\.gif 1 0;/, reason: "", source: "" };
  const hunt = newHunt(3, [row]);
  await hunt.batch(fakeLab(deviate), COUNT);
  assert((hunt.state.known["gif"]?.count ?? 0) > 0);
  assertEquals(hunt.findings.filter(({ key }) => key === GIF), []);
  const elsewhere = newHunt(3, [{ ...row, kernels: ["linux-6.1"] }]);
  await elsewhere.batch(fakeLab(deviate), COUNT);
  assert(elsewhere.findings.some(({ key }) => key === GIF));
});

Deno.test("every known deviation has a name of its own, a reason and a source", () => {
  assertEquals(new Set(KNOWN.map(({ id }) => id)).size, KNOWN.length);
  for (const { id, reason, source, kernels = [] } of KNOWN) {
    assert(reason !== "" && source !== "", id);
    for (const name of kernels) assert(name in POLICIES, `${id}: ${name}`);
  }
});

Deno.test("an answer that changes when the kernel is asked again is no finding", async () => {
  const hunt = newHunt(3);
  let asked = 0;
  const sometimes: Ask = (lines) => fakeLab(asked++ === 0 ? deviate : (record) => record)(lines);
  await hunt.batch(sometimes, COUNT);
  assertEquals(hunt.findings.filter(({ kind }) => kind === "gap"), []);
  const { steady, answered } = hunt.state.funnel;
  assert(steady < answered);
});

Deno.test("a case that a kernel never answers is found, and the others are asked all the same", async () => {
  const units = unitsOf(["a", "b", "c keepvm", "d", "e"]);
  assertEquals(units, [["a"], ["b", "c keepvm"], ["d"], ["e"]]);
  const record = (line: string): LabRecord => ({
    case: line.split(" ")[0]!,
    spec: "",
    kernel: "k",
    npt: 1,
    events: [],
    post: { rc: 0 },
  });
  const hangs: Ask = (lines) => {
    const at = lines.findIndex((line) => line.startsWith("c"));
    return Promise.resolve((at < 0 ? lines : lines.slice(0, at)).map(record));
  };
  const { records } = await askUnits(hangs, units);
  assertEquals(records.map((own) => own?.length), [1, undefined, 1, 1]);
  // A lab that says nothing of any case when it hangs at one.
  const mute: Ask = (lines) =>
    Promise.resolve(lines.some((line) => line.startsWith("c")) ? [] : lines.map(record));
  const halves = await askUnits(mute, units);
  assertEquals(halves.records.map((own) => own?.length), [1, undefined, 1, 1]);
  const many = unitsOf(Array.from({ length: 64 }, (_, i) => `x${i}`));
  assert(await askUnits(() => Promise.resolve([]), many).catch((e) => e) instanceof HuntError);
  // One whose answer cannot be read has others behind it, and is not asked again.
  let asked = 0;
  const unreadable: Ask = (lines) => {
    asked++;
    const { post: _, ...stub } = record("c");
    return Promise.resolve(lines.map((line) => line.startsWith("c") ? stub : record(line)));
  };
  const second = await askUnits(unreadable, units);
  assertEquals(second.records.map((own) => own?.length), [1, undefined, 1, 1]);
  assertEquals(asked, 1);
});

Deno.test("a list made small in batches still shows it, and no item of it can go", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.uniqueArray(fc.nat(40), { minLength: 1, maxLength: 24 }),
      fc.nat(),
      fc.nat(),
      async (items, a, b) => {
        const need = [items[a % items.length]!, items[b % items.length]!];
        const shows = (list: readonly number[]) => need.every((item) => list.includes(item));
        const small = await minimizeBatched(
          items,
          (lists) => Promise.resolve(lists.map((list) => shows(list))),
        );
        assertEquals(small, items.filter((item) => need.includes(item)));
      },
    ),
  );
});
