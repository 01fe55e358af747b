import { assertEquals } from "@std/assert";
import type { LabRecord } from "../codecs/lab/record.ts";
import { LINUX_6_1, LINUX_6_12 } from "../engine/policies/mod.ts";
import type { Policy } from "../engine/policy.ts";
import { Emulator } from "../traces/scenarios/emulator.ts";
import { parseScenario } from "../traces/scenarios/scenario_reader.ts";

function run(spec: string, policy: Policy = LINUX_6_1): LabRecord {
  return new Emulator(policy, { npt: true }).run(parseScenario(`x ${spec}`));
}

const vmcb12 = ({ post }: LabRecord, at: string) => post?.vmcb12?.[at] ?? "0";

// What the real kernel does; each beside 6.12, which does otherwise.
Deno.test("a failed check leaves EVENTINJ in vmcb12", () => {
  const spec = "c.58.4=0 c.a8.4=8000030e";
  assertEquals(vmcb12(run(spec), "0a8"), "000000008000030e");
  assertEquals(vmcb12(run(spec, LINUX_6_12), "0a8"), "0");
});

Deno.test("#VMEXIT writes TLB_CONTROL back as the nested state has it", () => {
  const spec = "entry=migrate xn.5c.1=5";
  assertEquals(vmcb12(run(spec), "058"), "0000000500000001");
  assertEquals(vmcb12(run(spec, LINUX_6_12), "058"), "0000000000000001");
});
