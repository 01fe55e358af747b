import { assertEquals } from "@std/assert";
import type { LabRecord } from "../codecs/lab/record.ts";
import { LINUX_6_1, LINUX_6_12 } from "../engine/policies/mod.ts";
import type { Policy } from "../engine/policy.ts";
import { Emulator } from "../traces/scenarios/emulator.ts";
import { parseScenario } from "../traces/scenarios/scenario_reader.ts";

function run(spec: string, policy: Policy): LabRecord {
  return new Emulator(policy, { npt: true }).run(parseScenario(`x entry=rsm ${spec}`));
}

/** L1's CPUID without long mode, for which the vCPU stays as a reset leaves it. */
const LEGACY = "nocpu.80000001.d=20000000";

// As the lab says.
Deno.test("without long mode SMRAM has the layout of 32 bits", () => {
  const { smm } = run(LEGACY, LINUX_6_12);
  const word = (at: number) =>
    Number(
      BigInt(`0x${smm?.smram?.[(at & ~7).toString(16).padStart(3, "0")] ?? 0}`) >>
          BigInt(8 * (at & 7)) & 0xffffffffn,
    );
  assertEquals(word(0xfc), 0x20000, "revision");
  assertEquals(word(0xf8), 0x30000, "SMBASE");
  assertEquals(word(0x1fc), 0x60000010, "CR0");
  assertEquals([word(0x1cc), word(0x1c8)], [0xffff0ff0, 0x400], "DR6 and DR7");
  assertEquals([word(0x1ac), word(0x190)], [0, 0x9a00], "CS and its flags");
});

Deno.test("RSM brings back what the area of 32 bits holds", () => {
  const { smm, post } = run(`${LEGACY} xr.1fc.4=31 xr.1f0.4=8003 xr.1d0.4=77`, LINUX_6_12);
  assertEquals([smm?.smm, post?.smm], [1, 0]);
  assertEquals([post?.cr0, post?.rax, post?.dr7], ["31", "77", "400"]);
});

Deno.test("an RSM without host save area returns where 6.1 shows its state", () => {
  const states = (policy: Policy) =>
    run("hsave=1000000", policy).events.flatMap((event) => "at" in event ? [event.at] : []);
  assertEquals(states(LINUX_6_1), ["vmrun", "vmexit", "rsm"]);
  assertEquals(states(LINUX_6_12), ["vmrun", "vmexit"]);
});
