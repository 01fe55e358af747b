import { assertEquals } from "@std/assert";
import { LabRecorder } from "../codecs/lab/recorder.ts";
import { LINUX_6_12, LINUX_7_3 } from "../engine/mod.ts";
import { Emulator } from "../traces/scenarios/emulator.ts";
import { EmulatedVm } from "../traces/scenarios/emulated_vm.ts";
import { ScenarioRunner } from "../traces/scenarios/runner.ts";
import { parseScenario } from "../traces/scenarios/scenario_reader.ts";

const IO = 2;

/** What userspace sees after an L2 whose first bytes are given, little-endian. */
function after(code: string, changes = "", policy = LINUX_7_3): (string | number | undefined)[] {
  const { post } = new Emulator(policy, { npt: true }).run(
    parseScenario(`outs m.9000.8=${code} ${changes}`),
  );
  return [post?.exit, post?.port, post?.rip, post?.rflags];
}

// As Linux does: one piece each time, with REP the same instruction until RCX is 0.
Deno.test("OUTS ends KVM_RUN with port I/O, after the instruction", () => {
  for (const policy of [LINUX_6_12, LINUX_7_3]) {
    assertEquals(after("6e", "", policy), [IO, "0", "9001", "2"]);
    assertEquals(after("6ef300000002b9", "", policy), [IO, "0", "9005", "10002"]);
    assertEquals(after("6ef300000001b9", "", policy), [IO, "0", "9007", "2"]);
  }
});

Deno.test("REP OUTS of nothing is skipped, and a single step does not trap before userspace", () => {
  // xor ecx, ecx; rep outsb; hlt: L1 gets the HLT and goes on to its own port.
  assertEquals(after("f46ef3c931").slice(0, 2), [IO, "80"]);
  assertEquals(after("6e", "s.170=102"), [IO, "0", "9001", "102"]);
});

/** RAX of L2 as it goes on after a port's value came, which is zero; and what is at 0x9800 then. */
function afterInput(code: string): (string | bigint | undefined)[] {
  const vm = new EmulatedVm(LINUX_7_3, { npt: true, full: true });
  const recorder = new LabRecorder();
  const scenario = parseScenario(`ins entry=mid m.9800=1122334455667788 ${code}`);
  for (const event of new ScenarioRunner(vm).run(scenario)) recorder.add(event);
  const { post } = recorder.finish()!;
  return [post?.port, post?.vmcb12?.["5f8"], vm.vcpu?.memory.read64(0x9800)];
}

// As the lab says: KVM clears what userspace could have written a value into.
Deno.test("IN gives zero where userspace gave nothing, and INS stores it", () => {
  const before = 0x1122334455667788n;
  assertEquals(afterInput("m.9000=d9010fec"), ["80", "0000000000001200", before]);
  assertEquals(afterInput("m.9000=d9010fed"), ["80", undefined, before]);
  assertEquals(afterInput("m.9000.1=bf m.9001.4=9800 m.9005.4=d9010f6d"), [
    "80",
    "0000000000001234",
    0x11223344_00000000n,
  ]);
  // mov ecx, 3; mov edi, 0x9800; rep insb
  assertEquals(afterInput("m.9000.1=b9 m.9001.4=3 m.9005.1=bf m.9006.4=9800 m.900a=d9010f6cf3"), [
    "80",
    "0000000000001234",
    0x1122334455000000n,
  ]);
});

Deno.test("OUTS faults where its operand cannot be read", () => {
  // mov rsi, 0x10000000: no page is there, and L2 has no IDT.
  assertEquals(after("6e10000000be48").slice(0, 2), [IO, "80"]);
});

/** What the second of two cases on one virtual machine ends with. */
function second(first: string, next: string) {
  const emulator = new Emulator(LINUX_7_3, { npt: true });
  emulator.run(parseScenario(`first ${first}`));
  const { events, post } = emulator.run(parseScenario(`next keepvm ${next}`));
  return { vmruns: events.filter((e) => "at" in e).length, ...post };
}

// As the lab says: the emulator goes on with what it had decoded.
Deno.test("INS that waited goes on after itself, whatever registers userspace has set since", () => {
  // insb; vmmcall in L2; then L1 is set up anew, and runs from behind the INS: not from its VMRUN.
  const { vmruns, rip, port } = second("m.9000=d9010f6c", "m.9001=80e6");
  assertEquals([vmruns, rip, port], [0, "9001", "80"]);
  // The flags are L2's, too; RDI moves as wide as addresses were.
  assertEquals(second("m.9000=d9010f6c s.170=402", "m.9001=80e6").rflags, "402");
  const plain = second("m.9000=d9010fec", "");
  assertEquals([plain.vmruns > 0, plain.rip], [true, "8003"], "IN alone is forgotten");
});
