import { assertEquals } from "@std/assert";
import type { LabInner } from "../codecs/lab/record.ts";
import {
  EARLY_EXIT,
  LINUX_6_1,
  LINUX_6_12,
  LINUX_7_3,
  type Policy,
  UNIFIED,
} from "../engine/mod.ts";
import { Emulator } from "../traces/scenarios/emulator.ts";
import { parseScenario } from "../traces/scenarios/scenario_reader.ts";

// What the real kernels do, asked in the lab.

function run(spec: string, policy: Policy = LINUX_6_12, npt = true) {
  return new Emulator(policy, { npt, full: true }).run(parseScenario(`x ${spec}`));
}

/** Exit code and EXITINTINFO that L1 gets. */
function exit(spec: string, policy: Policy = LINUX_6_12, npt = true): (string | undefined)[] {
  const { post } = run(spec, policy, npt);
  return [post?.vmcb12?.["070"], post?.vmcb12?.["088"]];
}

const code = (exit: number) => exit.toString(16).padStart(16, "0");

Deno.test("#UD where KVM cannot read the code is #UD", () => {
  // UD2 in a PAE L2 with nested paging, whose PDPTEs have become bad to KVM.
  const spec = "m.9000.2=b0f s.d0=1000 s.150=50000 s.12.2=c9b c.90=1 c.b0=60000 c.8.4=4040";
  for (const policy of [LINUX_6_12, LINUX_7_3]) {
    assertEquals(exit(spec, policy), [code(0x46), undefined]);
  }
});

Deno.test("SYSEXIT in long mode is KVM's, and #GP without SYSENTER_CS", () => {
  assertEquals(exit("m.9000.2=350f c.8.4=ffffffff")[0], code(0x4d));
  assertEquals(exit("m.9000.2=340f c.8.4=ffffffff")[0], code(0x46), "SYSENTER is not");
});

Deno.test("KVM lets a supervisor with RFLAGS.AC through SMAP", () => {
  // mov rax, cr4; or eax, 0x200000; mov cr4, rax; stac; pushfq; pop rax; vmmcall
  const spec = "m.9000=2000000de0200f m.9008=589ccb010fe0220f m.9010.4=d9010f";
  assertEquals(exit(spec, LINUX_6_12, false)[0], code(0x81));
  const { post } = run(spec, LINUX_6_12, false);
  assertEquals(post?.vmcb12?.["5f8"], "0000000000040002");
});

Deno.test("LMSW takes its operand from memory", () => {
  // mov word [0x9800], 0x3f; lmsw [0x9800]; vmmcall
  const spec = "m.9000=98002504c766 m.9008=98002534010f003f m.9010.4=10f0000 m.9014.1=d9";
  assertEquals(exit(spec)[0], code(0x81));
  assertEquals(run(spec).post?.vmcb12?.["558"], "000000008000003f");
});

Deno.test("RSM into a mode that the emulator does not know is given up, and shuts nothing down", () => {
  // CS of the state save area is not present.
  for (const policy of [EARLY_EXIT, LINUX_7_3]) {
    const { post, events } = run("entry=rsm c.90=1 c.b0=60000 xr.10=0", policy);
    assertEquals([post?.vmcb12?.["070"], post?.ev_exc], [code(0x81), "0/0/6/0"]);
    assertEquals(events.filter((event) => "warn" in event), []);
  }
});

Deno.test("Linux 7.3 gives both VMCBs a new PAT, and none without nested paging", () => {
  // mov ecx, 0x277; mov eax, 0x10001; xor edx, edx; wrmsr; vmmcall
  const spec = "m.9000=1b800000277b9 m.9008=10f300fd2310001 m.9010.1=d9";
  const patOf = (policy: Policy, npt: boolean) => {
    const { events } = run(spec, policy, npt);
    const last = events.findLast((event) => "sav01" in event);
    return last !== undefined && "sav01" in last ? last.sav01?.["268"] ?? "0" : undefined;
  };
  assertEquals(patOf(LINUX_7_3, true), "0000000000010001");
  assertEquals(patOf(LINUX_7_3, false), "0");
  assertEquals(patOf(UNIFIED, false), "0000000000010001");
});

/** The last state that the kernel showed of itself. */
function last(spec: string, policy: Policy = LINUX_6_12, npt = true): LabInner | undefined {
  const { events } = run(spec, policy, npt);
  return events.filter((event): event is LabInner => "at" in event).at(-1);
}

Deno.test("an INT n above 0x7f whose delivery was interrupted is executed again, not injected", () => {
  // Its delivery reaches for the IDT, which L0 has not mapped yet.
  const rip = (code: string) => last(`m.9000.2=${code} s.84.4=fff`)?.sav02?.["178"];
  assertEquals(rip("80cd"), "0000000000009000");
  assertEquals(rip("40cd"), "0000000000009002");
});

Deno.test("SMSW of 16 bits leaves the rest of the register where KVM emulates it", () => {
  for (const npt of [true, false]) {
    const { post } = run("m.9000=d9010fe0010f66", LINUX_7_3, npt);
    assertEquals(post?.vmcb12?.["5f8"], "0000000000000031");
  }
});

Deno.test("a segment register that KVM's emulator loads is loaded", () => {
  // L2's page table is L1's nested one, which KVM protects: LFS sets an Accessed bit in it.
  const state = last("m.9000=98002504b40f m.9008.4=d9010f s.150=60000 c.90=1 c.b0=60000");
  assertEquals([state?.at, state?.sav01?.["040"]], ["vmexit", undefined]);
});

Deno.test("SIDT into a device is tried for ever, LIDT from one asks userspace", () => {
  const EINTR = 4, MMIO = 6;
  const end = (modrm: string) => run(`m.9000=100000025${modrm}010f`).post;
  assertEquals(end("0c")?.errno, EINTR, "sidt [0x1000000]");
  assertEquals(end("1c")?.exit, MMIO, "lidt [0x1000000]");
});

Deno.test("L1 whose CR3 failed to load goes on with a root that KVM does not mend", () => {
  // The processor set Accessed bits in L1's PDPTEs, which KVM refuses; IDT's page was never mapped.
  const spec = "l1pae entry=mid c.c.4=99000000 m.34010.1=2";
  assertEquals(run(spec).post?.errno, 0);
  assertEquals(run(`${spec} midirq=80`).post?.errno, 4);
});

Deno.test("ENTER with nested frames is none of the emulator's", () => {
  // enter 0x10, 2: PAE's EBP of 0 makes it read a device at the end of 4 GiB.
  const spec = "s.d0=1000 s.150=50000 s.12.2=c9b c.8.4=40 m.9000.4=20010c8";
  assertEquals(exit(spec)[0], code(0x46));
});

Deno.test("RSM brings RFLAGS.RF back", () => {
  // L2 is refused at first, so that the SMI finds it at its first instruction.
  const { post } = run("entry=rsm c.a8=80000319 s.170=4010002", LINUX_7_3);
  assertEquals([post?.smm, post?.rflags], [0, "4010002"]);
});

Deno.test("a nested NPT that nobody checked has no PAE root to be shadowed by", () => {
  // RSM of these kernels looks at nothing, and the hypervisor has no nested paging itself.
  const spec = "entry=rsm xc.90=1 xc.b0=60000", EIO = 5;
  const end = run(`${spec} l1pae`, EARLY_EXIT, false).post;
  assertEquals([end?.rc, end?.errno, end?.guest_mode, end?.run_pending], [-1, EIO, 1, 1]);
  // A 64-bit L1 has four levels, and L2 gets in to fault for ever.
  assertEquals(run(spec, EARLY_EXIT, false).post?.errno, 4);
  assertEquals(run(`${spec} l1pae`, LINUX_6_12, false).post?.errno, 0, "checked");
});

Deno.test("L2's tables beyond memory are not there, however far beyond", () => {
  for (const page of ["8000000087", "8000000000087"]) {
    const spec = `pa=34 c.90=1 c.b0=60000 m.61000=${page}`;
    assertEquals(exit(spec), [code(0x7f), "0000000080000b0e"], "a #PF that L2 has no IDT for");
  }
});

/** L2 takes interrupt 31 at 0x9100 in a loop or a sled; an NMI that waits meanwhile pops RIP into RAX. */
const WAITING_NMI = "entry=mid midnmi=1 midirq=31 s.170=202 s.64.4=3f m.4008=00af9b000000ffff " +
  "m.4010=00cf93000000ffff s.84.4=fff m.5310=8e0000089100 m.5020=8e0000089020 m.9020=d9010f58";

Deno.test("an event that waits for the next exit gets it, at the latest as the timer ticks", () => {
  const { post } = run(`${WAITING_NMI} m.9100=feeb`);
  assertEquals([post?.vmcb12?.["070"], post?.vmcb12?.["5f8"]], [code(0x81), code(0x9100)]);
  // add [rax], al over and over; RAX leads to L2's stack.
  const sled = run(`${WAITING_NMI} s.1f8=6e00`).post?.vmcb12;
  const rip = Number(`0x${sled?.["5f8"]}`);
  assertEquals(rip > 0x9100 && rip < 0xa000, true, rip.toString(16));
});

/** A PAE L2 whose PDPTEs only the processor takes: KVM finds no memory where its code is, and emulates all of it. */
const EMULATED = "s.d0=1000 s.158=80000031 s.148=20 s.12.2=c9b s.150=1000";

/** Exit code and EXITINTINFO of L2's instruction, which VMMCALL follows, as KVM emulates it. */
function emulated(instruction: string, changes = ""): (string | undefined)[] {
  const bytes = instruction.match(/../g)!.reverse().join("");
  return exit(`m.9000=d9010f${bytes} ${EMULATED} ${changes}`, UNIFIED);
}

const goesOn = [code(0x81), undefined], ud = [code(0x7f), "0000000080000306"];

Deno.test("KVM's emulator has no SVM, MONITOR, RDTSCP, RDRAND, and what else 0F 01 has beside its own", () => {
  const lacking = [
    "da",
    "db",
    "dc",
    "dd",
    "df",
    "c8",
    "c9",
    "f9",
    "d0",
    "f8",
    "ca",
    "cb",
    "fd",
    "ee",
  ];
  for (const modrm of lacking) assertEquals(emulated(`0f01${modrm}`), ud, modrm);
  assertEquals(emulated("0fc7f0"), ud, "rdrand");
  const intercepted = emulated("0f01f9", "c.c.4=ffffffff c.10.4=ffffffff");
  assertEquals(intercepted[0], code(0x87), "L1's intercept comes before that");
});

Deno.test("KVM's emulator reads and writes MSRs, CPUID, debug registers and the x87's", () => {
  for (const plain of ["0fa2", "0f32", "dbe3", "ce"]) assertEquals(emulated(plain), goesOn, plain);
  assertEquals(emulated("0f33"), [code(0x7f), "0000000080000b0d"], "RDPMC is #GP before all else");
  assertEquals(emulated("0f33", "c.c.4=ffffffff")[1], "0000000080000b0d");
  const spec = (bytes: string) => run(`m.9000=d9010f${bytes} ${EMULATED}`, UNIFIED).post;
  // RAX is 0x1234.
  assertEquals(spec("f0230f")?.vmcb12?.["568"], "00000000ffff0ff4", "mov dr6, rax");
  assertEquals(spec("f8230f")?.vmcb12?.["560"], "0000000000000634", "mov dr7, rax");
  assertEquals(emulated("0f21e0", "c.4.4=ffffffff")[0], code(0x24), "mov eax, dr4");
  assertEquals(emulated("f390", "c.c.4=ffffffff")[0], code(0x77), "pause");
  assertEquals(emulated("0f20c8", "c.0.4=ffffffff c.8.4=40")[0], code(0x46), "CR1 is none");
});

Deno.test("KVM's emulator keeps interrupts away after a load of SS that failed, and reads what CLFLUSH flushes", () => {
  const { post } = run(`m.9000.2=d08e ${EMULATED} c.8.4=2000`, UNIFIED);
  assertEquals([post?.vmcb12?.["070"], post?.vmcb12?.["068"]], [code(0x4d), "0000000000000001"]);
  // clflush [0xd9010f00], where L2 has no page; TR with a selector of the LDT
  assertEquals(exit(`m.9000=d9010f003dae0f ${EMULATED}`, UNIFIED)[0], code(0x7f));
  assertEquals(
    run(`m.9000=d8000f ${EMULATED} c.8.4=2000`, UNIFIED).post?.vmcb12?.["078"],
    undefined,
  );
  assertEquals(run(`m.9000.2=feeb ${EMULATED}`, UNIFIED).post?.errno, 4, "a jump to itself");
});

Deno.test("CMPXCHG8B writes all of its eight bytes at once", () => {
  // Into a page of L1's tables, across two entries: KVM drops what it knew of that page, and so the root.
  const LOAD_MMU_PGD = 1 << 13;
  const request = (spec: string) => {
    const last = run(spec, LINUX_6_12, false).events.filter((event) => "at" in event).at(-1);
    return Number(`0x${(last as LabInner | undefined)?.cpu?.req}`) & LOAD_MMU_PGD;
  };
  assertEquals(request("m.9000=d9010f08c70f s.1f8=1234"), 0);
  assertEquals(request("m.9000=d9010f08c70f s.1f8=1230"), LOAD_MMU_PGD);
});

Deno.test("a PDPTE of L1's nested table with bits above its address has no root, and KVM_RUN fails", () => {
  const EFAULT = 14, spec = "c.90=1 c.b0=60000 l1pae m.60000=10000000061007";
  const end = run(spec).post;
  assertEquals([end?.rc, end?.errno, end?.guest_mode, end?.rip], [-1, EFAULT, 1, "9000"]);
  assertEquals(run(spec, LINUX_6_1).post?.errno, 0, "6.1 shuts L1 down");
});

Deno.test("what a VMRUN refused at once leaves of the host's registers is not modelled", () => {
  // The CR4 that L1 comes back with is no CR4 of the processor.
  const { events } = run("entry=rsm xh.148=2020");
  const said = events.flatMap((event) => "unmodelled" in event ? [event.unmodelled] : []);
  assertEquals(said, ["the host's registers, which a refused VMRUN leaves in the VMCB"]);
});

Deno.test("an L2 in a loop without an exit has run: the host's timer ended its entries", () => {
  for (const policy of [LINUX_6_12, LINUX_7_3]) {
    const emulator = new Emulator(policy, { npt: true, full: true });
    const ends = ["m.9000=feeb", "m.9000=feeb keepvm", "m.9000.4=feeb90 keepvm"].map((spec) => {
      const { post } = emulator.run(parseScenario(`x ${spec}`));
      return [post?.errno, post?.rip, post?.run_pending];
    });
    assertEquals(ends, [[4, "9000", 0], [4, "9000", 0], [4, "9001", 0]]);
  }
});
