import { assert, assertEquals, assertMatch } from "@std/assert";
import type { LabInner, LabRecord } from "../codecs/lab/record.ts";
import { formatLabRecord, parseLabRecord } from "../codecs/lab/record.ts";
import { fitImage, identify, INNER_LAYOUT, LINUX_6_12, LINUX_7_3 } from "../engine/mod.ts";
import type { Policy } from "../engine/policy.ts";
import { Emulator } from "../traces/scenarios/emulator.ts";
import { recordScenarios } from "../traces/scenarios/record.ts";
import { parseScenario } from "../traces/scenarios/scenario_reader.ts";

const IO = 2, SHUTDOWN = 8, INTERNAL_ERROR = 17;

function run(spec: string, policy: Policy = LINUX_7_3, npt = true): LabRecord {
  return new Emulator(policy, { npt }).run(parseScenario(`x ${spec}`));
}

const exitCode = ({ post }: LabRecord) => post?.vmcb12?.["070"] ?? "0";
const inners = ({ events }: LabRecord) =>
  events.filter((event): event is LabInner => "at" in event);
const checks = ({ events }: LabRecord) => events.filter((event) => "check_failed" in event).length;

// What the real kernel does; each beside 6.12, which does otherwise.
Deno.test("a vmcb12 without memory ends VMRUN in an internal error, and L1 stays before it", () => {
  const { post } = run("rax=fffff000");
  assertEquals([post?.exit, post?.rip, post?.ev_exc], [INTERNAL_ERROR, "8000", "0/0/0/0"]);
  assertEquals(run("rax=fffff000", LINUX_6_12).post?.exit, SHUTDOWN);
});

Deno.test("outside 64-bit code VMRUN takes EAX, whatever the rest of RAX holds", () => {
  const spec = "l1pae rax=100010000";
  const { post } = run(`${spec} c.58.4=0`);
  assertEquals([post?.exit, post?.rip, post?.gif], [IO, "8003", 0], "vmcb12 is read, and refused");
  assertEquals(run(spec, LINUX_6_12).post?.ev_exc, "0/0/d/0", "#GP");
  assertEquals(run("rax=100010000").post?.exit, INTERNAL_ERROR, "in 64-bit code all of it counts");
});

Deno.test("VMLOAD and VMSAVE stop KVM_RUN where their page has no memory", () => {
  // vmsave; out 0x80, al
  const vmsave = "m.8000=80e6db010f";
  const { post } = run(`${vmsave} rax=8000000`);
  assertEquals([post?.exit, post?.rip, post?.ev_exc], [INTERNAL_ERROR, "8000", "0/0/0/0"]);
  assertEquals(run(`${vmsave} rax=8000000`, LINUX_6_12).post?.ev_exc, "0/0/d/0");
  for (const rax of ["8000800", "10000000000"]) {
    assertEquals(run(`${vmsave} rax=${rax}`).post?.ev_exc, "0/0/d/0", "not a page L1 can have");
  }
  // EAX of a PAE L1, and of L2 in compatibility mode: vmload; vmmcall
  assertEquals(run(`${vmsave} l1pae rax=100010000`).post?.rip, "8003");
  assertEquals(exitCode(run("s.1f8=100011000 m.9000=d9010fda010f s.12.2=c9b")).slice(-2), "81");
});

Deno.test("GIF is restored as clear although EFER.SVME is", () => {
  const spec = "efer=0 cr0=11 cr4=0 gif=0";
  assertEquals([run(spec).post?.gif, run(spec, LINUX_6_12).post?.gif], [0, 1]);
});

Deno.test("EXITINFO2 of an emulated port access is the next RIP", () => {
  // mov edx, 0x1f0; outsb: KVM's emulator asks for L1's intercept.
  const spec = "m.9000=6e000001f0ba keepvm";
  const info2 = (policy: Policy) => {
    const emulator = new Emulator(policy, { npt: true, full: true });
    emulator.run(parseScenario(`first ${spec.replace(" keepvm", "")}`));
    const states = inners(emulator.run(parseScenario("next keepvm")));
    return states[0]?.ctl02?.["080"];
  };
  assertEquals([info2(LINUX_7_3), info2(LINUX_6_12)], ["0000000000009006", "0000000000009005"]);
});

Deno.test("a VMRUN that KVM cannot move RIP past ends KVM_RUN, and L2 is not entered", () => {
  // L1 in PAE mode with a PDPTE that is bad, so that KVM cannot read its code.
  const spec = "l1pae m.50008=52081";
  const { post, events } = run(spec);
  assertEquals([post?.exit, post?.rip, post?.guest_mode, events], [INTERNAL_ERROR, "8000", 0, []]);
  assertEquals(run(spec, LINUX_6_12).post?.guest_mode, 1);
});

Deno.test("a vmcb12 whose memory is gone at #VMEXIT shuts L1 down, out of L2", () => {
  const { post } = run("entry=setstate rax=8000000");
  assertEquals([post?.exit, post?.guest_mode, post?.gif, post?.rip], [SHUTDOWN, 0, 0, "8003"]);
  assertEquals(run("entry=setstate rax=8000000", LINUX_6_12).post?.guest_mode, 1);
});

Deno.test("what cannot be injected is refused, and reserved bits of EVENTINJ are dropped", () => {
  for (const event of ["80000100", "80000302", "8000031f"]) {
    assertEquals(exitCode(run(`c.a8.4=${event}`)), "f".repeat(16), event);
    assertEquals(checks(run(`c.a8.4=${event}`, LINUX_6_12)), 0, event);
  }
  assertEquals(exitCode(run("c.a8.4=7ffff30e")), "0000000000000081");
});

Deno.test("NP_ENABLE that L1's processor does not have is ignored", () => {
  const spec = "c.90=1 c.b0=60000";
  assertEquals(exitCode(run(spec, LINUX_7_3, false)), "0000000000000081");
  assertEquals(checks(run(spec, LINUX_6_12, false)), 1);
  assertEquals(exitCode(run(`${spec} nocpu.8000000a.d=1`)), "0000000000000081");
});

Deno.test("a failed VMRUN under RFLAGS.TF does not trap", () => {
  const failed = run("rflags=102 c.58.4=0");
  assertEquals([failed.post?.rip, failed.post?.exit, exitCode(failed)], [
    "8003",
    IO,
    "f".repeat(16),
  ]);
  assertEquals(run("rflags=102 c.58.4=0", LINUX_6_12).post?.exit, SHUTDOWN);
});

Deno.test("a run that userspace restores as pending is told from one of L1's", () => {
  const pending = (policy: Policy) =>
    inners(run("entry=setstate pending=1", policy))[0]?.nested.run_pending;
  assertEquals([pending(LINUX_7_3), pending(LINUX_6_12)], ["2", "1"]);
});

Deno.test("records show the MMU of the kernel that they are of, and are read again", () => {
  const modern = run("c.90=1 c.b0=60000"), old = run("c.90=1 c.b0=60000", LINUX_6_12);
  const keys = (record: LabRecord) =>
    Object.keys(inners(record)[0]?.cpu ?? {}).filter((key) => /role|pdptrs/.test(key)).sort();
  assertEquals(keys(old), ["cpu_role", "gcpu_role", "groot_role", "ncpu_role", "root_role"]);
  assertEquals(keys(modern), ["groot_role", "gva_role", "ngpa_role", "pdptrs_user", "root_role"]);
  const [vmrun] = inners(modern);
  assertEquals(vmrun?.cpu?.ngpa_role, "4100024f04");
  for (const record of [modern, old]) {
    const line = formatLabRecord(record);
    assertEquals(formatLabRecord(parseLabRecord(line)), line);
  }
  assertMatch(formatLabRecord(modern), /"gva_role":"4100020f04","root_role":"6f85","ngpa_role"/);
});

Deno.test("an image that ends where older kernels' do has nothing known behind that", () => {
  const short = { bytes: new Uint8Array(INNER_LAYOUT.shorter!).fill(1) };
  const { bytes, known } = fitImage(INNER_LAYOUT, short);
  assertEquals([bytes.length, known?.length], [INNER_LAYOUT.size, INNER_LAYOUT.size]);
  assert(known?.subarray(short.bytes.length).every((mask) => mask === 0));
});

Deno.test("a recording of either kernel is told from the other's", async () => {
  for (const policy of [LINUX_6_12, LINUX_7_3]) {
    const scenarios = ["enter", "asid c.58.4=0", "inject c.a8.4=80000302"].map((line) =>
      parseScenario(line)
    );
    const { verdict } = await identify(() => recordScenarios(scenarios, policy));
    assertEquals(verdict.kind === "known" && verdict.policy, policy.name);
  }
});

Deno.test("what controls of the return predictor vmcb12 has is kept by this kernel alone", () => {
  const kept = (policy: Policy) => run("entry=migrate c.5c.4=700", policy).migrate?.state?.["058"];
  assertEquals([kept(LINUX_7_3), kept(LINUX_6_12)], ["0000070000000001", "0000000000000001"]);
});
