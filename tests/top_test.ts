import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import fc from "fast-check";
import { ExitStats, type TraceEvent } from "../engine/mod.ts";
import { shell, vmtapeHere as vmtape, withFolder } from "./cli_process.ts";

const event = fc.record({
  kind: fc.constantFrom("vmrun", "l2exit", "exit", "check", "tracepoint", "lost", "session"),
  vcpu: fc.nat(2),
  step: fc.nat(1000),
  exit_code: fc.constantFrom(0x400n, 0x81n, 0x7bn, undefined),
  name: fc.constantFrom("kvm_entry", "kvm_exit"),
});

/** Events as a log has them, with times that never go back. */
const logs = fc.array(event, { maxLength: 60, size: "max" }).map((list) => {
  let time = 0;
  return list.map(({ step, ...rest }) => ({ ...rest, time: time += step }) as TraceEvent);
});

Deno.test("whatever a log holds, the vCPUs' exits are all exits and no time is longer than the log", () => {
  let exits = 0;
  fc.assert(fc.property(logs, (events) => {
    const all = new ExitStats();
    const each = [0, 1, 2].map((vcpu) => new ExitStats(vcpu));
    for (const next of events) for (const stats of [all, ...each]) stats.feed(next);
    assertEquals(each.reduce((sum, stats) => sum + stats.exits, 0), all.exits);
    const rows = all.rows();
    assertEquals(rows.reduce((sum, row) => sum + row.count, 0), all.exits);
    for (const { count, toL1, l2, handling } of rows) {
      assert(toL1 <= count && l2.known <= count && handling.known <= count);
      for (const times of [l2, handling]) {
        assert(times.min <= times.max && times.max <= (all.duration ?? 0));
        assert(times.total <= times.known * times.max);
      }
    }
    exits += all.exits;
  }));
  assert(exits > 100);
});

Deno.test("an exit that the hypervisor handles itself ends with its next entry, if that is seen", () => {
  const times = (entry: boolean) => {
    const stats = new ExitStats();
    stats.feed({ kind: "vmrun", vcpu: 0, time: 0 });
    stats.feed({ kind: "l2exit", vcpu: 0, time: 10, exit_code: 0x400n });
    if (entry) stats.feed({ kind: "tracepoint", vcpu: 0, time: 30, name: "kvm_entry" });
    stats.feed({ kind: "l2exit", vcpu: 0, time: 70, exit_code: 0x81n });
    stats.feed({ kind: "exit", vcpu: 0, time: 71 });
    stats.feed({ kind: "vmrun", vcpu: 0, time: 100 });
    return stats.rows().map(({ reason, l2, handling, toL1 }) => [
      reason,
      l2.known && l2.total,
      handling.known && handling.total,
      toL1,
    ]);
  };
  assertEquals(times(true), [["NPF", 10, 20, 0], ["VMMCALL", 40, 30, 1]]);
  assertEquals(times(false), [["NPF", 10, 0, 0], ["VMMCALL", 0, 30, 1]]);
});

Deno.test("a VMRUN that is refused is no exit of L2", () => {
  const stats = new ExitStats();
  stats.feed({ kind: "vmrun", vcpu: 0, time: 0 });
  stats.feed({ kind: "check", vcpu: 0, check: "asid-zero" });
  stats.feed({ kind: "exit", vcpu: 0, time: 9 });
  assertEquals([stats.exits, stats.entries, stats.refused], [0, 1, 1]);
});

Deno.test("top prints counts, shares and times; of a recording without times it says so", () =>
  withFolder(async (folder) => {
    await Deno.writeTextFile(
      `${folder}/log`,
      [
        "kvm_nested_vmenter: rip: 0x0000000000400a5b vmcb: 0x000000000799a000 nested_rip: " +
        "0x0000000000400b80 int_ctl: 0x00000000 event_inj: 0x00000000 nested_npt=y nested_cr3: " +
        "0x0000000007997000",
        "kvm_nested_vmexit: vcpu 0 reason npf rip 0x400b80 info1 0x0000000100000004 info2 " +
        "0x0000000000001000 intr_info 0x00000000 error_code 0x00000000",
        "kvm_nested_vmexit_inject: reason: npf ext_inf1: 0x0000000100000004 ext_inf2: " +
        "0x0000000000001000 ext_int: 0x00000000 ext_int_err: 0x00000000",
      ].map((line, i) => ` q-7 [000] .....  3.64890${i}: ${line}\n`).join(""),
    );
    const { stdout } = await shell("vmtape import log -o t -q; vmtape top t", folder);
    assertMatch(stdout, /^1 exit of L2 after 1 VMRUN \(0 refused\), 1 vCPU, in 0\.002 ms$/m);
    assertMatch(stdout, /^ {2}NPF +1 +100\.00% +1 +0\.001 +1\.00 +1\.00 +- +- +-$/m);
    await vmtape(["record", "enter", "-o", `${folder}/e`]);
    const none = await vmtape(["top", `${folder}/e`]);
    assertStringIncludes(none.stdout, "the recording has no times");
    const json = JSON.parse((await vmtape(["top", `${folder}/t`, "--json", "--per-vcpu"])).stdout);
    assertEquals([json.rows[0].reason, json.vcpus[0].exits], ["NPF", 1]);
    const both = await vmtape(["top", `${folder}/t`, "--per-vcpu", "--vcpu", "0"]);
    assertEquals(both.code, 2);
  }));
