import { assertEquals } from "@std/assert";
import { CODE, exit, machine, run, S, STACK, V, VMCB02_AT } from "./cpu_machine.ts";

/** Code, and what RAX and the arithmetic flags are at the HLT behind it. */
const CASES: [name: string, code: string, rax: bigint, flags: number][] = [
  ["popcnt", "b8ff000000 f30fb8c0", 8n, 0],
  ["lzcnt", "b8ff000000 f30fbdc0", 24n, 0],
  ["lzcnt of 0", "31c0 f30fbdc0", 32n, 1],
  ["tzcnt", "b8f0000000 f30fbcc0", 4n, 0],
  ["shld", "b878563412 bb00000080 0fa4d804", 0x23456788n, 0x805],
  ["shrd, 64 bits", "48c7c3ffffffff 480facd808", 0xff00000000000012n, 0x884],
  ["movbe", "0f38f0042500900000", 0x0f38f004n, 0],
  ["crc32", "31c0 bb01000000 f20f38f1c3", 0xdd45aab8n, 0x44],
  ["adcx", "b8ffffffff f9 660f38f6c0", 0xffffffffn, 1],
  ["andn", "bbff000000 c4e260f2c0", 0x1200n, 4],
  ["blsr", "c4e278f3c8", 0x1230n, 0],
  ["bzhi", "bb08000000 c4e260f5c0", 0x34n, 0],
  ["pdep", "bb05000000 c4e263f5c0", 0x24n, 0],
  ["pext", "bbff000000 c4e262f5c0", 0x7n, 0],
  ["rorx", "c4e37bf0c004", 0x40000123n, 0],
  ["shlx", "bb04000000 c4e261f7c0", 0x12340n, 0],
  ["cmpxchg8b that differs", "0fc70c2500900000", 0x25_0cc70fn, 0],
  ["enter and leave", "89c5 c8100001 89ec 89e0 c9", BigInt(STACK - 8), 0],
];

const bytes = (code: string) => [...Uint8Array.fromHex(code.replaceAll(" ", ""))];
const v = VMCB02_AT;

for (const [name, code, rax, flags] of CASES) {
  Deno.test(`cpu instruction: ${name}`, () => {
    const all = bytes(code);
    const m = machine([...all, 0xf4]);
    assertEquals([run(m), exit(m).code, exit(m).rip], ["exit", 0x78, BigInt(CODE + all.length)]);
    assertEquals([m.u64(v + S.rax), m.u32(v + S.rflags) & 0x8d5], [rax, flags]);
  });
}

/** GDT entries behind the null one: 64-bit code, data, and nothing. */
function withGdt(code: string) {
  const m = machine([...bytes(code), 0xf4]);
  m.memory.write64(0x4008, 0x00af9b000000ffffn);
  m.memory.write64(0x4010, 0x00cf93000000ffffn);
  m.set32(v + S.gdtr_limit, 0x1f);
  run(m);
  return m;
}

Deno.test("LAR and LSL answer in ZF, and only where there is a segment to tell of", () => {
  const zf = (m: ReturnType<typeof withGdt>) => (m.u32(v + S.rflags) & 0x40) !== 0;
  const lar = withGdt("b810000000 0f02c0");
  assertEquals([lar.u64(v + S.rax), zf(lar)], [0xc09300n, true]);
  const lsl = withGdt("b810000000 0f03c0");
  assertEquals([lsl.u64(v + S.rax), zf(lsl)], [0xffffffffn, true]);
  const none = withGdt("b818000000 0f02c0");
  assertEquals([none.u64(v + S.rax), zf(none)], [0x18n, false]);
  assertEquals(zf(withGdt("b808000000 0f00e0")), true, "VERR of code that can be read");
  assertEquals(zf(withGdt("b808000000 0f00e8")), false, "VERW of code");
});

Deno.test("a far return goes where the stack says, and takes the arguments away", () => {
  // push 8; push 0x903f; retfq 16, to a HLT
  const m = withGdt("6a08 683f900000 48ca1000 " + "90".repeat(0x34));
  assertEquals([exit(m).code, exit(m).rip], [0x78, 0x903fn]);
  assertEquals(m.u64(v + S.rsp), BigInt(STACK + 16));
  assertEquals(exit(withGdt("6a10 683f900000 48cb")).code, 0x7f, "a data segment is no target");
});

Deno.test("a far call through memory pushes CS and RIP", () => {
  const m = withGdt("48b80090000008000000 4889042500600000 ff1c2500600000");
  assertEquals(m.memory.read(STACK - 4, 4), 8);
  assertEquals(m.memory.read(STACK - 8, 4), 0x9019);
});

Deno.test("a breakpoint on execution stops before the instruction, one on data after it", () => {
  const dr = (n: number) => `0f23${(0xc0 | n << 3).toString(16)}`;
  // mov eax, 0x901a; mov dr0, rax; mov eax, 0x403; mov dr7, rax; nops
  const code = machine(bytes(`b81a900000 ${dr(0)} b803040000 ${dr(7)} 9090909090909090909090f4`));
  code.or32(v + 8, 2);
  run(code);
  assertEquals([exit(code).code, exit(code).rip], [0x41, 0x901an]);
  assertEquals(code.u32(v + S.dr6), 0xffff0ff1);
  const data = machine(
    bytes(`b800600000 ${dr(1)} b80c04d000 ${dr(7)} c704250060000001000000 90f4`),
  );
  data.or32(v + 8, 2);
  run(data);
  assertEquals([exit(data).code, exit(data).rip], [0x41, BigInt(CODE + 16 + 11)]);
  assertEquals(data.u32(v + S.dr6), 0xffff0ff2);
  assertEquals(data.u8(V.breakpoints_armed), 2);
});
