import { assertEquals } from "@std/assert";
import { exit, machine, run, S, V, VMCB02_AT } from "./cpu_machine.ts";

const v = VMCB02_AT;
const bytes = (code: string) => [...Uint8Array.fromHex(code.replaceAll(" ", ""))];

/** Exit code of L2's first instruction where L1 intercepts all exceptions; how the run ended, if it did not exit. */
function outcome(code: string, cr0 = 0x80000031n, cr4 = 0x20n): string | number {
  const m = machine([...bytes(code), 0xf4]);
  m.set32(v + 8, 0xffffffff);
  m.set64(v + S.cr0, cr0);
  m.set64(v + S.cr4, cr4);
  const status = run(m);
  return status === "exit" ? exit(m).code : status;
}

const UD = 0x46, NM = 0x47, GP = 0x4d, HLT = 0x78;
const OSFXSR = 0x220n, TS = 0x80000039n, EM = 0x80000035n;

Deno.test("SSE is #UD without CR4.OSFXSR or with CR0.EM, and #NM with CR0.TS", () => {
  for (const code of ["0f57c0", "660fefc9", "f20f2ac0", "660f38dcc0", "0fae1c2500600000"]) {
    assertEquals(outcome(code), UD, code);
    assertEquals(outcome(code, EM, OSFXSR), UD, code);
    assertEquals(outcome(code, TS, OSFXSR), NM, code);
    assertEquals(outcome(code, undefined, OSFXSR), "unmodelled", code);
  }
});

Deno.test("AVX is #UD before the operating system has set XCR0, and XSAVE without CR4.OSXSAVE", () => {
  assertEquals(outcome("c5f857c0"), UD);
  assertEquals(outcome("c5f857c0", undefined, 0x40020n), UD);
  assertEquals(outcome("0fae242500600000"), UD);
});

Deno.test("MMX needs no CR4.OSFXSR; EMMS and FEMMS empty the stack", () => {
  assertEquals(outcome("0f6fc0"), "unmodelled");
  assertEquals(outcome("0f6fc0", EM), UD);
  assertEquals(outcome("0f77", TS), NM);
  for (const emms of ["0f77", "0f0e"]) {
    const m = machine(bytes(`d9e8 ${emms} f4`));
    run(m);
    assertEquals([exit(m).code, m.u8(V.ftw), m.u16(V.fsw)], [HLT, 0, 0]);
  }
});

Deno.test("what is in none of the tables is #UD", () => {
  for (const code of ["0f78c3", "0f38f90425", "f30f3af0c000", "0f3accc000"]) {
    assertEquals(outcome(code), UD, code);
  }
});

Deno.test("FXSAVE saves the x87, and FXRSTOR brings it back", () => {
  // fld1; fxsave [0x6000]; fninit; fxrstor [0x6000]; fnstsw ax
  const m = machine(bytes("d9e8 0fae042500600000 dbe3 0fae0c2500600000 dfe0 f4"));
  run(m);
  assertEquals([exit(m).code, m.u64(v + S.rax), m.u8(V.ftw)], [HLT, 0x3800n, 0x80]);
  assertEquals(m.memory.read64(0x6000), 0x80_3800_037fn);
  assertEquals([m.memory.read64(0x6020), m.memory.read(0x6028, 2)], [1n << 63n, 0x3fff]);
  assertEquals(outcome("0fae042508600000"), GP, "not aligned");
});

Deno.test("IRET with RFLAGS.NT finds no task to return to, and a busy one is no target of a jump", () => {
  const legacy = (code: string, rflags: bigint) => {
    const m = machine(bytes(code));
    m.set32(v + 8, 0xffffffff);
    m.set64(v + S.efer, 0x1000n);
    m.set64(v + S.cr0, 0x31n);
    m.set64(v + S.rflags, rflags);
    m.set16(v + S.cs_attrib, 0xc9b);
    m.set32(v + S.gdtr_limit, 0x3f);
    m.memory.write64(0x4030, 0x00008b0060000067n);
    run(m);
    return exit(m).code;
  };
  assertEquals(legacy("cf", 0x4002n), 0x4a);
  assertEquals(legacy("ea00000000 3000", 2n), GP);
});
