/** What the order of a log's events says: what is there, what is not, and what nobody can tell. */
import { assert, assertEquals } from "@std/assert";
import { importTracepoints } from "@vmtape/vmtape/codecs";
import {
  Differ,
  EARLY_EXIT,
  identify,
  LINUX_6_1,
  LINUX_6_12,
  type Policy,
  recordedPolicy,
  Replayer,
  type TraceEvent,
  UNIFIED,
} from "@vmtape/vmtape/engine";
import { builtinScenarios, recordScenarios } from "@vmtape/vmtape/traces";
import { encoder } from "./import_text_log.ts";

const ENTRY = "kvm_nested_vmenter: rip: 0x0000000000400863 vmcb: 0x000000000799a000 " +
  "nested_rip: 0x00000000004001c8 int_ctl: 0x01000001 event_inj: 0x00000000 nested_npt=y " +
  "nested_cr3: 0x0000000001074000";
const INTERCEPTS =
  "kvm_nested_intercepts: cr_read: 0000 cr_write: 0000 excp: 00000000 intercepts: 80000000 00000003 00000000";
const L2EXIT = "kvm_nested_vmexit: vcpu 0 reason hypercall rip 0x4001d6 info1 0x0000000000000000 " +
  "info2 0x0000000000000000 intr_info 0x00000000 error_code 0x00000000";
const INJECT = (reason: string) =>
  `kvm_nested_vmexit_inject: reason: ${reason} ext_inf1: 0x0000000000000000 ` +
  "ext_inf2: 0x0000000000000000 ext_int: 0x00000000 ext_int_err: 0x00000000";
const FAILED = "kvm_nested_vmenter_failed: control->asid == 0";
const CR3 = "kvm_nested_vmenter_failed: !kvm_vcpu_is_legal_cr3(vcpu, cr3)";
/** A VMRUN whose L2 runs. */
const RUN = [ENTRY, INTERCEPTS, L2EXIT, INJECT("hypercall")];
const LOST = "CPU:0 [LOST 12 EVENTS]";
const LEAVING = "kvm_smm_transition: vcpu 0: leaving SMM, smbase 0x30000";

async function eventsOf(lines: readonly string[]): Promise<TraceEvent[]> {
  const text = lines.map((line, i) =>
    line.startsWith("CPU:") ? `${line}\n` : ` qemu-7  [000] .....  3.${100000 + i}: ${line}\n`
  ).join("");
  return (await Array.fromAsync(importTracepoints(encoder.encode(text)))).flat();
}

/** What replay says of a log under a policy: `EVENT FIELD`. */
async function said(lines: readonly string[], policy: Policy) {
  const found: string[] = [];
  const replayer = new Replayer(policy, ({ event, field }) => found.push(`${event} ${field}`));
  for (const event of await eventsOf(lines)) replayer.feed(event);
  const { partial } = replayer.finish();
  assertEquals(partial!.agreed, partial!.transitions - found.length);
  return found;
}

async function kindOf(lines: readonly string[]): Promise<string[]> {
  const events = await eventsOf(lines);
  const open = async function* () {
    await Promise.resolve();
    yield* events;
  };
  const { verdict } = await identify(open);
  return verdict.kind === "known"
    ? [verdict.policy]
    : verdict.kind === "undecided"
    ? [...verdict.policies]
    : [verdict.kind];
}

Deno.test("an entry before a failed check is unified's, and none before it is the others'", async () => {
  const unified = [...RUN, ENTRY, INTERCEPTS, FAILED, ...RUN];
  const early = [...RUN, FAILED, ...RUN];
  assertEquals(await said(unified, UNIFIED), []);
  assertEquals(await said(early, UNIFIED), ["4 entry"]);
  for (const policy of [EARLY_EXIT, LINUX_6_1, LINUX_6_12]) {
    assertEquals(await said(early, policy), []);
    assertEquals(await said(unified, policy), ["5 entry"]);
  }
  assertEquals(await kindOf(unified), ["unified"]);
  assert(!(await kindOf(early)).includes("unified"));
});

Deno.test("each run of a log that tells counts, and each that does not, however many are alike", async () => {
  const unified = [...RUN, ENTRY, INTERCEPTS, FAILED, ...RUN];
  const events = await eventsOf(Array.from({ length: 20 }, () => unified).flat());
  const { runs, telling, candidates } = await identify(() => events);
  assertEquals([runs, telling], [60, 20]);
  assertEquals(candidates.find(({ policy }) => policy === "unified")?.for, 20);
  assertEquals(candidates.find(({ policy }) => policy === "early-exit")?.against, 20);
});

Deno.test("what comes first in a log is evidence as soon as a later event shows that it would be there", async () => {
  assertEquals(await said([ENTRY, INTERCEPTS, FAILED], EARLY_EXIT), ["2 entry"]);
  // The first event of a log, and the first after a gap: what was before it may be missing.
  assertEquals(await said([FAILED, ...RUN], UNIFIED), []);
  assertEquals(await said([...RUN, LOST, FAILED, ...RUN], UNIFIED), []);
  assertEquals(await said([FAILED, FAILED, ...RUN], UNIFIED), ["2 entry"]);
  // It is told then, and before what that event itself says.
  const told: string[] = [];
  const replayer = new Replayer(UNIFIED, ({ event, field }) => told.push(`${event} ${field}`));
  for (
    const event of await eventsOf([FAILED, FAILED, ENTRY, INTERCEPTS, CR3, INJECT("0xffffffff")])
  ) {
    replayer.feed(event);
  }
  assertEquals(told, ["2 entry", "5 exit"]);
});

Deno.test("what cannot be read in a log is not missing from what happened", async () => {
  const cut = ENTRY.slice(0, -4);
  assertEquals(await said([...RUN, cut, FAILED, ...RUN], UNIFIED), []);
  assertEquals(
    await said(
      [...RUN, ENTRY, INTERCEPTS, CR3, INJECT("0xffffffff").slice(0, -1), ...RUN],
      LINUX_6_12,
    ),
    [],
  );
});

Deno.test("what a log never shows is not missing from it", async () => {
  // Failed checks alone were traced.
  assertEquals(await said([FAILED, FAILED, FAILED], UNIFIED), []);
  // Entries and failed checks alone: the entry may be of the run before.
  assertEquals(await said([ENTRY, ENTRY, FAILED, ENTRY], EARLY_EXIT), []);
  assertEquals(await said([...RUN.slice(0, 3), ENTRY, FAILED], LINUX_6_12), ["4 entry"]);
});

Deno.test("a failure after the checks ends with a #VMEXIT, but not under unified", async () => {
  const late = [...RUN, ENTRY, INTERCEPTS, CR3, INJECT("0xffffffff"), ...RUN];
  const silent = [...RUN, ENTRY, INTERCEPTS, CR3, ...RUN];
  assertEquals(await said(late, LINUX_6_12), []);
  assertEquals(await said(late, UNIFIED), ["6 exit"]);
  assertEquals(await said(silent, UNIFIED), []);
  assertEquals(await said(silent, LINUX_6_12), ["5 exit"]);
  // Where records were lost, or the log ends, it may have been there.
  assertEquals(await said([...RUN, ENTRY, INTERCEPTS, CR3, LOST, ...RUN], LINUX_6_12), []);
  assertEquals(await said([...RUN, ENTRY, INTERCEPTS, CR3], LINUX_6_12), []);
});

Deno.test("a #VMEXIT of an L2 that ran is not taken for that of the failed VMRUN before it", async () => {
  // Entries were not traced.
  const log = [
    L2EXIT,
    INJECT("hypercall"),
    FAILED,
    L2EXIT,
    INJECT("hypercall"),
    FAILED,
    INJECT("npf"),
  ];
  for (const policy of [UNIFIED, LINUX_6_12]) assertEquals(await said(log, policy), []);
});

Deno.test("the entry after RSM is RSM's, whether the transition or the exit shows it", async () => {
  const exit = "kvm_exit: vcpu 0 reason rsm rip 0x8000 info1 0x0000000000000000 " +
    "info2 0x0000000000000000 intr_info 0x00000000 error_code 0x00000000";
  const vmrun = exit.replace("reason rsm", "reason vmrun");
  const kinds = async (lines: readonly string[]) =>
    (await eventsOf(lines)).map(({ kind }) => kind).filter((kind) => kind !== "tracepoint").join();
  assertEquals(await kinds([exit, LEAVING, ...RUN]), "session,rsm,l2exit,exit");
  assertEquals(await kinds([exit, ...RUN]), "session,rsm,l2exit,exit");
  assertEquals(await kinds([LEAVING, ...RUN]), "session,rsm,l2exit,exit");
  // Back to L1, which executes VMRUN later.
  assertEquals(await kinds([LEAVING, vmrun, ...RUN]), "session,rsm,vmrun,l2exit,exit");
  assertEquals(await kinds([exit, vmrun, ...RUN]), "session,vmrun,l2exit,exit");
  assertEquals(
    await kinds([...RUN.slice(0, 2), LEAVING.replace("leaving", "entering"), LEAVING, ...RUN]),
    "session,vmrun,smi,rsm,l2exit,exit",
  );
  const [, rsm] = await eventsOf([LEAVING, ...RUN]);
  assert(rsm?.kind === "rsm" && rsm.vmcb12_gpa === 0x799a000n);
  // The intercepts are in it too.
  assertEquals(rsm.vmcb12!.bytes[0x10], 3);
});

Deno.test("policies that check vmcb12 at RSM, and those that do not, are held against what the log shows", async () => {
  const bad = (line: string) =>
    line.replace("intercepts: 80000000 00000003", "intercepts: 80000000 00000002");
  const ran = [LEAVING, ...RUN.map(bad)];
  const refused = [...RUN, LEAVING, FAILED];
  for (const policy of [EARLY_EXIT, LINUX_6_1]) {
    assertEquals(await said(ran, policy), []);
    assertEquals(await said(refused, policy), ["5 rsm"]);
  }
  for (const policy of [UNIFIED, LINUX_6_12]) {
    assertEquals(await said(ran, policy), ["1 rsm"]);
    assertEquals(await said(refused, policy), []);
    assertEquals(await said([LEAVING, ...RUN], policy), []);
  }
});

Deno.test("policies are not compared over an entry by RSM, of which a log shows too little", async () => {
  const found: string[] = [];
  const differ = new Differ([UNIFIED, LINUX_6_12], ({ event }) => found.push(`${event}`));
  for (const event of await eventsOf([LEAVING, ...RUN])) differ.feed(event);
  const { runs, skipped } = differ.finish();
  assertEquals([runs, skipped, found], [1, 1, []]);
});

Deno.test("a run over a gap is unknown, never a mismatch; what follows in another machine is told", async () => {
  const all = await Array.fromAsync(
    recordScenarios(
      [...builtinScenarios("gif-left-set"), ...builtinScenarios("eventinj-left")],
      EARLY_EXIT,
    ),
  );
  const played = (events: readonly TraceEvent[]) => {
    const found: number[] = [];
    const replayer = new Replayer(UNIFIED, ({ event }) => found.push(event));
    for (const event of events) replayer.feed(event);
    const { runs, agreed, skipped } = replayer.finish();
    return { found, runs, agreed, skipped };
  };
  const whole = played(all);
  assert(whole.found.length > 0 && whole.skipped === 0);
  const sessions = all.flatMap(({ kind }, i) => kind === "session" ? [i] : []);
  assert(sessions.length >= 1 && recordedPolicy(all[0]!) !== undefined);
  const end = sessions[1] ?? all.length;
  for (let at = 1; at <= end - 3; at++) {
    // Some of the events at that place are missing.
    const { found, skipped } = played([
      ...all.slice(0, at),
      { kind: "lost", vcpu: 0 },
      ...all.slice(at + 3),
    ]);
    const before = whole.found.filter((event) => event < at);
    assert(skipped >= 1 || at > end - 10, `lost at ${at}`);
    assertEquals(found.filter((event) => event < end - 2), before, `lost at ${at}`);
  }
});
