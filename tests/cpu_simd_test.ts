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

/** A VMCB with CR4.OSFXSR whose code begins with these bytes, and 32 bytes of operands at 0x6000. */
function withSse(code: string) {
  const m = machine([...bytes(code), 0xf4]);
  m.set32(v + 8, 0xffffffff);
  m.set64(v + S.cr4, 0x220n);
  for (const [i, word] of OPERANDS.entries()) m.memory.write64(0x6000 + 8 * i, word);
  run(m);
  return m;
}
const OPERANDS = [0x0123_4567_89ab_cdefn, 0x7fff_8000_00ff_ff00n, 0x1111_2222_f0f0_0f0fn, 3n];
/** movups xmm0, [0x6000]; movups xmm1, [0x6010] */
const LOAD = "0f10042500600000 0f100c2510600000";
/** movups [0x6020], xmm0 */
const STORE = "0f11042520600000";
const result = (code: string) => {
  const m = withSse(`${LOAD} ${code} ${STORE}`);
  assertEquals(exit(m).code, HLT, code);
  return [m.memory.read64(0x6020), m.memory.read64(0x6028)];
};

const UD = 0x46, NM = 0x47, GP = 0x4d, HLT = 0x78;
const OSFXSR = 0x220n, TS = 0x80000039n, EM = 0x80000035n;

Deno.test("SSE is #UD without CR4.OSFXSR or with CR0.EM, and #NM with CR0.TS", () => {
  for (const code of ["0f57c0", "660fefc9", "f20f2ac0", "660f38dcc0", "0fae1c2500600000"]) {
    assertEquals(outcome(code), UD, code);
    assertEquals(outcome(code, EM, OSFXSR), UD, code);
    assertEquals(outcome(code, TS, OSFXSR), NM, code);
  }
  for (const code of ["f20f2ac0", "660f38dcc0"]) {
    assertEquals(outcome(code, undefined, OSFXSR), "unmodelled", code);
  }
});

Deno.test("SSE moves and computes with whole numbers, as the lab's processor does", () => {
  const [a, b, c, d] = OPERANDS as [bigint, bigint, bigint, bigint];
  assertEquals(result("0f57c0"), [0n, 0n], "xorps xmm0, xmm0");
  assertEquals(result("660fefc1"), [a ^ c, b ^ d], "pxor");
  assertEquals(result("660ffdc1"), [0x1234_6789_7a9b_dcfen, 0x7fff_8000_00ff_ff03n], "paddw");
  assertEquals(result("660fd9c1"), [0x0000_2345_0000_bee0n, 0x7fff_8000_00ff_fefdn], "psubusw");
  assertEquals(result("660f73f804"), [0x89ab_cdef_0000_0000n, 0x00ff_ff00_0123_4567n], "pslldq 4");
  assertEquals(result("660f70c11b"), [0x3_0000_0000n, 0xf0f0_0f0f_1111_2222n], "pshufd 1b");
  assertEquals(result("660f6cc1"), [a, c], "punpcklqdq");
  assertEquals(result("0f12c1"), [d, b], "movhlps");
  assertEquals(result("660f6ec4"), [0x7000n, 0n], "movd xmm0, esp");
  assertEquals(result("f30f7ec1"), [c, 0n], "movq");
});

Deno.test("MMX registers are the x87's, all held after any of its instructions", () => {
  // movq mm0, [0x6000]; paddb mm0, [0x6010]; movq [0x6020], mm0
  const m = withSse("0f6f042500600000 0ffc042510600000 0f7f042520600000");
  assertEquals(m.memory.read64(0x6020), 0x1234_6789_799b_dcfen);
  assertEquals([m.u8(V.ftw), m.u16(V.fsw)], [0xff, 0]);
});

Deno.test("an SSE operand in memory is aligned or #GP, a shift's apart", () => {
  assertEquals(outcome("660fef042508600000", undefined, OSFXSR), GP, "pxor");
  assertEquals(outcome("0f28042501600000", undefined, OSFXSR), GP, "movaps");
  for (const code of ["0f10042501600000", "660ff1042501600000", "f30f12042501600000"]) {
    assertEquals(outcome(code, undefined, OSFXSR), HLT, code);
  }
});

Deno.test("QEMU checks the prefix first, then OSFXSR, TS and EM, and nothing of moves between MMX and SSE", () => {
  const both = 0x8000003dn;
  assertEquals(outcome("0f6cc1", TS, OSFXSR), UD, "punpcklqdq without 66");
  assertEquals(outcome("0f6fc0", both), NM);
  for (const code of ["f20fd6c0", "f30fd6c0", "0f77"]) assertEquals(outcome(code, both), HLT, code);
});

Deno.test("AVX is #UD before the operating system has set XCR0, and XSAVE without CR4.OSXSAVE", () => {
  assertEquals(outcome("c5f857c0"), UD);
  assertEquals(outcome("c5f857c0", undefined, 0x40020n), UD);
  assertEquals(outcome("0fae242500600000"), UD);
});

Deno.test("MMX needs no CR4.OSFXSR; EMMS and FEMMS empty the stack", () => {
  assertEquals(outcome("0f6fc0"), HLT);
  assertEquals(outcome("0f6fc0", EM), UD);
  assertEquals(outcome("0f6fc0", TS), NM);
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
