import {
  assert,
  assertEquals,
  assertRejects,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";
import fc from "fast-check";
import { type LabInner, type LabRecord, readLabRecords } from "../codecs/lab/record.ts";
import {
  compare,
  compareRecords,
  formatComparison,
  skipList,
  SkipListError,
} from "../traces/compare/compare.ts";
import { GROUND_TRUTH, groundTruth, RECORDINGS } from "./lab_ground_truth.ts";
import { anyRecord } from "./lab_records.ts";

const INNER: LabInner = {
  at: "vmrun",
  nested: { gif: "1", active: "02" },
  cpu: { rip: "9000" },
  ctl01: { "060": "0000000003000200" },
  sav01: {},
  ctl02: { "048": "0000000000704000" },
  sav02: { "150": "0000000000040000" },
};
const BASE: LabRecord = {
  case: "a",
  spec: "",
  kernel: "unified",
  npt: 1,
  events: [{ check_failed: "one" }, { warn: "two" }, INNER],
  post: { rip: "8003", gif: 1, rc: 0, errno: 0, vmcb12: { "070": "0000000000000081" } },
};

function fields(a: LabRecord, b: LabRecord): string[] {
  return compareRecords(a, b).disagreements.map((d) => `${d.group} ${d.field}`);
}

/** The base with its inner state changed. */
function inner(change: Partial<LabInner>): LabRecord {
  return { ...BASE, events: [{ check_failed: "one" }, { warn: "two" }, { ...INNER, ...change }] };
}

Deno.test("a record agrees with itself", () => {
  fc.assert(fc.property(anyRecord, (record) => {
    assertEquals(compareRecords(record, record).disagreements, []);
  }));
});

Deno.test("what differs is the same from both sides", () => {
  fc.assert(fc.property(anyRecord, anyRecord, (a, b) => {
    assertEquals(fields(a, b), fields(b, a));
  }));
});

Deno.test("checks and assertions are compared in order", () => {
  const other = { ...BASE, events: [{ check_failed: "zero" }, INNER] };
  assertEquals(compareRecords(BASE, other).disagreements, [
    { group: 1, field: "check", a: "one", b: "zero" },
    { group: 1, field: "warn", a: "two" },
  ]);
});

Deno.test("inner states are compared in number, order and every field", () => {
  assertEquals(fields(BASE, { ...BASE, events: [...BASE.events, INNER] }), [
    "2 states",
    "3 states",
  ]);
  assertEquals(fields(BASE, inner({ at: "rsm" })), ["2 states"]);
  const other = inner({ nested: { gif: "0", active: "02" }, cpu: { rip: "9000", req: "1" } });
  assertEquals(fields(BASE, other), ["2 vmrun.nested.gif", "2 vmrun.cpu.req"]);
});

Deno.test("words of VMCBs are compared by field, less those of the host", () => {
  assertEquals(fields(BASE, inner({ ctl01: { "060": "0000000103000000" } })), [
    "3 vmrun.vmcb01 control.int_ctl",
    "3 vmrun.vmcb01 control.int_vector",
  ]);
  assertEquals(fields(BASE, inner({ ctl02: { "048": "0000000000000001" } })), []);
  const root = inner({ sav02: { "150": "0000000000000001" } });
  assertEquals(fields(BASE, root), ["3 vmrun.vmcb02 save.cr3"]);
  assertEquals(fields({ ...BASE, npt: 0 }, { ...root, npt: 0 }), []);
  assertEquals(fields(BASE, inner({ ctl02: { "3d8": "0000000000000001" } })), [
    "3 vmrun.vmcb02 control+0x3d8",
  ]);
  const { ctl02: _, sav02: __, ...less } = INNER;
  const without = { ...BASE, events: [...BASE.events.slice(0, 2), less] };
  assertEquals(fields(BASE, without), ["3 vmrun.vmcb02", "3 vmrun.vmcb02"]);
});

Deno.test("a side that shows no VMCBs leaves group 3 unknown, not wrong", async () => {
  const { ctl01: _1, sav01: _2, ctl02: _3, sav02: _4, ...bare } = INNER;
  const other = { ...BASE, events: [...BASE.events.slice(0, 2), bare] };
  const { disagreements, unknown } = compareRecords(BASE, other);
  assertEquals([disagreements, [...unknown]], [[], [3]]);
  const { groups } = await compare([BASE], [other]);
  assertEquals([groups[2], groups[3]], [{ cases: 1, agreed: 1 }, { cases: 0, agreed: 0 }]);
});

Deno.test("what userspace saw is compared, vmcb12 by field", () => {
  const post = { ...BASE.post, gif: 0, vmcb12: { "070": "ffffffffffffffff" } };
  assertEquals(compareRecords(BASE, { ...BASE, post }).disagreements, [
    { group: 4, field: "post.gif", a: "1", b: "0" },
    { group: 4, field: "post.vmcb12 control.exit_code", a: "81", b: "ffffffff" },
    { group: 4, field: "post.vmcb12 control.exit_code_hi", a: "0", b: "ffffffff" },
  ]);
  assertEquals(fields(BASE, { ...BASE, mid: {}, setstate: { sregs_errno: 0, errno: 22 } }), [
    "4 setstate.sregs_errno",
    "4 setstate.errno",
    "4 mid",
  ]);
  const smm = { smram: { "0d0": "0000000000000500" } };
  assertEquals(fields({ ...BASE, smm }, { ...BASE, smm: { smram: {} } }), ["4 smm.smram+0x0d0"]);
});

Deno.test("tracepoints and the state before are not compared", () => {
  const events = [...BASE.events, { tracepoint: "kvm_inj_virq", text: "x" }];
  assertEquals(fields(BASE, { ...BASE, events, pre: { rip: "1" } }), []);
});

Deno.test("a record that was stopped is compared as far as it goes", () => {
  const post = { rc: -1, errno: 4 };
  const a = { ...BASE, events: [INNER, INNER, { at: "vmexit", nested: {} }], post };
  const b = { ...BASE, events: [INNER], post };
  assertEquals(fields(a, b), []);
  assertEquals(fields(a, { ...b, events: [{ ...INNER, at: "rsm" }] }), ["2 states"]);
});

Deno.test("registers of a virtual machine that KVM gave up are nobody's", () => {
  const dead = { ...BASE, post: { ...BASE.post, rc: -1, errno: 5 } };
  const other = (rest: object) => ({ ...dead, post: { ...dead.post, ...rest } });
  assertEquals(fields(dead, other({ rip: "40c7d5" })), []);
  assertEquals(fields(dead, other({ exit: 8 })), ["4 post.exit"]);
  assertEquals(fields(dead, other({ vmcb12: {} })), ["4 post.vmcb12 control.exit_code"]);
  // It counts only where both were given up.
  assertEquals(fields(dead, other({ rip: "40c7d5", errno: 0 })), ["4 post.rip", "4 post.errno"]);
});

Deno.test("streams are paired by name in any order", async () => {
  const named = (name: string, gif: number) => ({ ...BASE, case: name, post: { gif } });
  const a = [named("x", 1), named("y", 1), named("x", 0), named("z", 1)];
  const b = [named("y", 1), named("x", 1), named("w", 1), named("x", 1)];
  const result = await compare(a, b);
  assertEquals([result.compared, result.agreed, result.differing], [3, 2, ["x"]]);
  assertEquals([result.onlyA, result.onlyB], [["z"], ["w"]]);
});

Deno.test("specs in other words are the same question, other specs are not", async () => {
  const a = { ...BASE, spec: "save.efer^=SVME" };
  assertEquals((await compare([a], [{ ...a, spec: "s.d0=500" }])).compared, 1);
  const result = await compare([a], [{ ...a, spec: "s.d0=501" }]);
  assertEquals([result.compared, result.otherSpec], [0, ["a"]]);
});

Deno.test("disagreements are counted by case, the most frequent first", async () => {
  const b = { ...BASE, post: { ...BASE.post, gif: 0 } };
  const c = { ...b, events: [] };
  const cases = (records: readonly LabRecord[]) =>
    records.map((record, i) => ({ ...record, case: `c${i}`, spec: i === 2 ? "entry=rsm" : "" }));
  const result = await compare(cases([BASE, BASE, BASE]), cases([b, b, c]), { examples: 2 });
  const [first] = result.disagreements;
  assertEquals(first, {
    group: 4,
    field: "post.gif",
    count: 3,
    examples: [{ case: "c0", a: "1", b: "0" }, { case: "c1", a: "1", b: "0" }],
  });
  assertEquals(result.rows.map((row) => [row.entry, row.groups[1].cases, row.groups[1].agreed]), [
    ["vmrun", 2, 2],
    ["rsm", 1, 0],
  ]);
});

Deno.test("skip lists are lists of names, or such lists by recording", () => {
  assert(skipList(["a"])(BASE));
  const skip = skipList({ "A-unified-npt1": ["a"], "linux-6.12-npt0": ["b"] });
  assert(skip(BASE));
  assert(!skip({ ...BASE, npt: 0 }));
  assert(skip({ ...BASE, case: "b", kernel: "linux-6.12", npt: 0 }));
  assert(!skip({ ...BASE, kernel: "not-unified-at-all" }));
  for (const bad of [null, 1, "a", { x: 1 }, [1]]) {
    assertThrows(() => skipList(bad), SkipListError);
  }
});

Deno.test("skipped cases are counted apart", async () => {
  const result = await compare([BASE], [{ ...BASE, post: {} }], { skip: skipList(["a"]) });
  assertEquals([result.compared, result.skipped], [0, 1]);
});

Deno.test("a stream that fails ends the other", async () => {
  let ended = false;
  async function* good(): AsyncGenerator<LabRecord> {
    try {
      for (;;) yield await Promise.resolve(BASE);
    } finally {
      ended = true;
    }
  }
  // deno-lint-ignore require-yield
  async function* failing(): AsyncGenerator<LabRecord> {
    await Promise.resolve();
    throw new RangeError("Broken");
  }
  await assertRejects(() => compare(good(), failing()), RangeError);
  assert(ended);
});

Deno.test("the text says what was compared and what differs", async () => {
  const a = [BASE, { ...BASE, case: "b" }, { ...BASE, case: "c" }];
  const b = [BASE, { ...BASE, case: "b", post: { ...BASE.post, gif: 0 } }];
  assertEquals(
    formatComparison(await compare(a, b)),
    `2 cases compared, 1 agrees in everything, 0 left out by the skip list
1 only in the first: c

kernel   npt  entry  cases   group 1   group 2   group 3  group 4
unified  1    vmrun      2  100.00 %  100.00 %  100.00 %  50.00 %
all                      2  100.00 %  100.00 %  100.00 %  50.00 %

group 1: failed checks and broken assertions
group 2: inner states: number, order, nested, cpu
group 3: vmcb01 and vmcb02
group 4: what userspace sees, and vmcb12

1 × post.gif (group 4)
    b: 1 / 0
`,
  );
  assertStringIncludes(formatComparison(await compare(a, b), 0), "and 1 more field");
});

Deno.test({
  name: "two kernels' recordings differ where their handling does",
  ignore: !GROUND_TRUTH,
  async fn() {
    const skip = skipList(JSON.parse(
      await Deno.readTextFile(new URL("unsteady.json", GROUND_TRUTH)),
    ));
    const open = (recording: string) => readLabRecords(groundTruth(recording));
    for (const recording of RECORDINGS) {
      const same = await compare(open(recording), open(recording));
      assertEquals([same.compared, same.agreed], [1131, 1131]);
    }
    const early = await compare(open("A-early-exit-npt1"), open("A-linux-6.12-npt1"), { skip });
    assertEquals([early.compared, early.skipped, early.groups[1].agreed], [1065, 66, 1057]);
    assertEquals([early.disagreements[0]?.field, early.disagreements[0]?.count], ["post.gif", 347]);
  },
});
