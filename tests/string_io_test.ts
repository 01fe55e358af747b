import { assertEquals } from "@std/assert";
import { LINUX_6_12, LINUX_7_3 } from "../engine/mod.ts";
import { Emulator } from "../traces/scenarios/emulator.ts";
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

Deno.test("OUTS faults where its operand cannot be read", () => {
  // mov rsi, 0x10000000: no page is there, and L2 has no IDT.
  assertEquals(after("6e10000000be48").slice(0, 2), [IO, "80"]);
});
