import { assert, assertEquals, assertNotEquals } from "@std/assert";
import {
  ARCHITECTURAL,
  EARLY_EXIT,
  LINUX_6_12,
  POLICIES,
  UNIFIED,
} from "../engine/policies/mod.ts";
import {
  END,
  FAIL,
  list,
  OK,
  type Policy,
  runList,
  type Step,
  type StepEntry,
  withChecks,
} from "../engine/policy.ts";
import { createVcpu } from "../engine/kvm/ioctls.ts";
import { check } from "../engine/checks/check.ts";
import { S } from "../engine/svm/machine.ts";
import { dropGif } from "../engine/steps/vmexit.ts";
import { checkControls, checkSave } from "../engine/steps/vmcb12.ts";
import { Emulator } from "../traces/scenarios/emulator.ts";
import { parseScenario } from "../traces/scenarios/scenario_reader.ts";

function all(entries: readonly StepEntry[]): Step[] {
  return entries.flatMap(({ step, onFail }) => [step, ...all(onFail ?? [])]);
}

function names(entries: readonly StepEntry[]): string[] {
  return entries.map(({ step }) => step.name);
}

function run(policy: Policy, spec: string, npt = true) {
  return new Emulator(policy, { npt, full: true }).run(parseScenario(`case ${spec}`));
}

const machine = () => createVcpu({ physicalBits: 40, npt: true, memory: 1 << 24 }, LINUX_6_12);
const probe = (name: string, outcome: 0 | 1 | 2, log: string[]): Step => ({
  name,
  doc: name,
  run() {
    log.push(name);
    return outcome;
  },
});

Deno.test("a list runs in order up to a failure, and then what handles that", () => {
  const log: string[] = [];
  const entries: StepEntry[] = [
    { step: probe("a", OK, log) },
    { step: probe("b", FAIL, log), onFail: [{ step: probe("handler", OK, log) }], ret: 7 },
    { step: probe("never", OK, log) },
  ];
  const v = machine();
  assertEquals(runList(v, entries), FAIL);
  assertEquals(log, ["a", "b", "handler"]);
  assertEquals(v.failedRet, 7);
});

Deno.test("a step that ends the transition needs no handler", () => {
  const log: string[] = [];
  const handler = list([probe("handler", OK, log)]);
  assertEquals(runList(machine(), list([probe("a", END, log), probe("b", OK, log)], handler)), END);
  assertEquals(log, ["a"]);
});

Deno.test("one name is one step, and every step says what it does", () => {
  const seen = new Map<string, Step>();
  for (const policy of Object.values(POLICIES)) {
    for (const step of Object.values(policy.ways).flatMap(all)) {
      assert(step.name !== "" && step.doc !== "");
      assertEquals(seen.get(step.name) ?? step, step, step.name);
      seen.set(step.name, step);
    }
  }
});

Deno.test("a check of one's own reads what vmcb12 holds: its fields are cached", () => {
  const strict = check(
    "save",
    "rflags-fixed",
    "!(save->rflags & X86_EFLAGS_FIXED)",
    ["save.rflags"],
    "RFLAGS bit 1 is clear",
    (m, at) => (m.u32(at + S.rflags) & 2) === 0,
  );
  const { checks } = LINUX_6_12.kernel;
  const policy = withChecks(LINUX_6_12, { ...checks, checks: [...checks.checks, strict] });
  assert(!run(policy, "").events.some((event) => "check_failed" in event));
  const failed = run(policy, "s.170=0").events.find((event) => "check_failed" in event);
  assertEquals(failed, { check_failed: "!(save->rflags & X86_EFLAGS_FIXED)" });
});

Deno.test("unified puts every check before the switch, the others the loading of CR3 after it", () => {
  const at = (policy: Policy, name: string) => names(policy.ways.vmrun).indexOf(name);
  for (const policy of Object.values(POLICIES)) {
    const late = at(policy, "load CR3") > at(policy, "switch to vmcb02");
    assertEquals(late, policy !== UNIFIED, policy.name);
    assert(at(policy, "check controls") < at(policy, "switch to vmcb02"), policy.name);
  }
});

Deno.test("what a failed check leaves of GIF and EVENTINJ tells the policies apart", () => {
  const left = (policy: Policy) => {
    const { post } = run(policy, "c.58.4=0 c.a8=80000220") as never as {
      post: { gif: number; vmcb12: Record<string, string> };
    };
    assertEquals(post.vmcb12["070"], "ffffffffffffffff");
    return [post.gif, post.vmcb12["0a8"] ?? "0"];
  };
  assertEquals(left(EARLY_EXIT), [1, "0000000080000220"]);
  assertEquals(left(UNIFIED), [0, "0000000080000220"]);
  assertEquals(left(LINUX_6_12), [0, "0"]);
  assertEquals(left(ARCHITECTURAL), [0, "0"]);
});

Deno.test("architectural refuses what only the manual forbids", () => {
  for (const spec of ["c.a8=80000302", "c.a8=80000501", "c.90=1 c.b0=60000 s.268=2"]) {
    const manual = run(ARCHITECTURAL, spec), kernel = run(LINUX_6_12, spec);
    assert(manual.events.some((event) => "check_failed" in event), spec);
    assert(!kernel.events.some((event) => "check_failed" in event), spec);
  }
});

Deno.test("a policy of one's own is another order of the same steps", () => {
  // Controls before the save area, and an early exit that clears GIF.
  const swapped: Policy = {
    ...EARLY_EXIT,
    name: "mine",
    ways: {
      ...EARLY_EXIT.ways,
      vmrun: EARLY_EXIT.ways.vmrun.map((entry) => {
        if (entry.step === checkSave) return { ...entry, step: checkControls };
        if (entry.step !== checkControls) return entry;
        return { ...entry, step: checkSave, onFail: [...entry.onFail ?? [], { step: dropGif }] };
      }),
    },
  };
  const first = (policy: Policy, spec: string) =>
    run(policy, spec).events.find((event) => "check_failed" in event);
  const both = "c.58.4=0 s.d0=500";
  assertNotEquals(first(swapped, both), first(EARLY_EXIT, both));
  assertEquals((run(swapped, "s.d0=500").post as { gif?: unknown }).gif, 0);
  assertEquals((run(EARLY_EXIT, "s.d0=500").post as { gif?: unknown }).gif, 1);
});

Deno.test("the same case gives the same record, whatever ran before", () => {
  const emulator = new Emulator(LINUX_6_12, { npt: false, full: true });
  const again = () => emulator.run(parseScenario("case s.178=8000 c.8.4=4000 entry=rsm"));
  const first = again();
  emulator.run(parseScenario("other l1pae c.90=1 c.b0=60000"));
  assertEquals(again(), first);
});
