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

Deno.test("DR6 is read before a waiting #DB hands over what it brings", () => {
  // L2 stops at its port write while it steps: the #DB waits.
  const restored = (policy: Policy) => run("entry=migrate s.170=102", policy).restored?.dr6;
  assertEquals(restored(LINUX_6_1), "ffff0ff0");
  assertEquals(restored(LINUX_6_12), "ffff4ff0");
});

Deno.test("userspace is told that an NMI waits, not how many", () => {
  const nmis = (policy: Policy) =>
    run("entry=mid nmi=1 gif=0 midnmi=1 c.c.4=91000002", policy).post?.ev_nmi;
  assertEquals(nmis(LINUX_6_1), "0/1/0");
  assertEquals(nmis(LINUX_6_12), "0/2/0");
});

Deno.test("an RSM that cannot load L2's CR0 shuts down, without #UD", () => {
  const { post } = run("entry=rsm xs.158=10");
  assertEquals([vmcb12({ post } as LabRecord, "070"), post?.ev_exc], [
    "000000000000007f",
    "0/0/0/0",
  ]);
});
