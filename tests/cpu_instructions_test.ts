import { assertEquals } from "@std/assert";
import fc from "fast-check";
import * as alu from "../engine/cpu/alu.ts";
import { Processor } from "../engine/cpu/processor.ts";
import { CODE, exit, GDT, machine, run, S, STACK, V, VMCB02_AT } from "./cpu_machine.ts";

const v = VMCB02_AT;

/** Runs code up to a HLT and gives back RAX, RCX and RDX. */
function registers(code: number[]): [bigint, bigint, bigint] {
  const m = machine([...code, 0xf4]);
  assertEquals([run(m), exit(m).code, exit(m).rip], ["exit", 0x78, BigInt(CODE + code.length)]);
  return [m.u64(v + S.rax), m.u64(V.rcx), m.u64(V.rdx)];
}

const PROGRAMS: [name: string, code: number[], ...registers: bigint[]][] = [
  [
    "mov eax clears the high half",
    [0x48, 0xc7, 0xc0, 0xff, 0xff, 0xff, 0xff, 0xb8, 1, 0, 0, 0],
    1n,
  ],
  [
    "mov rax, imm32 sign extends",
    [0x48, 0xc7, 0xc0, 0xff, 0xff, 0xff, 0xff],
    0xffff_ffff_ffff_ffffn,
  ],
  ["mov rax, imm64", [0x48, 0xb8, 1, 2, 3, 4, 5, 6, 7, 8], 0x0807060504030201n],
  ["mov ah, cl", [0xb1, 0x55, 0x88, 0xcc], 0x5534n],
  ["push, pop", [0x50, 0x59], 0x1234n, 0x1234n],
  ["lea", [0x48, 0x8d, 0x4c, 0x80, 0x10], 0x1234n, 0x1234n * 5n + 16n],
  [
    "store and load",
    [0x48, 0x89, 0x04, 0x25, 0, 0x60, 0, 0, 0x48, 0x8b, 0x0c, 0x25, 0, 0x60, 0, 0],
    0x1234n,
    0x1234n,
  ],
  ["div", [0x31, 0xd2, 0xb9, 0x10, 0, 0, 0, 0xf7, 0xf1], 0x123n, 0x10n, 4n],
  ["imul", [0x6b, 0xc8, 0xfe], 0x1234n, 0xffffdb98n],
  ["shl, sar", [0xc1, 0xe0, 0x13, 0xc1, 0xf8, 0x10], 0xffff91a0n],
  ["rol", [0xc1, 0xc0, 0x1c], 0x40000123n],
  ["movzx, movsx", [0xb0, 0x80, 0x0f, 0xb6, 0xc8, 0x0f, 0xbe, 0xd0], 0x1280n, 0x80n, 0xffffff80n],
  ["sete", [0x31, 0xc9, 0x0f, 0x94, 0xc1], 0x1234n, 1n],
  ["cmov", [0x31, 0xc9, 0x0f, 0x44, 0xc8], 0x1234n, 0x1234n],
  ["loop", [0xb9, 3, 0, 0, 0, 0xff, 0xc0, 0xe2, 0xfc], 0x1237n, 0n],
  ["rep stosb", [0xbf, 0, 0x60, 0, 0, 0xb9, 5, 0, 0, 0, 0xf3, 0xaa], 0x1234n, 0n],
  [
    "bts, bt",
    [0x0f, 0xba, 0xe8, 0x1f, 0x0f, 0xba, 0xe0, 0x1f, 0x19, 0xc9],
    0x80001234n,
    0xffffffffn,
  ],
  ["xchg", [0x31, 0xc9, 0x91], 0n, 0x1234n],
  ["cmpxchg", [0xb9, 7, 0, 0, 0, 0x89, 0xc2, 0x0f, 0xb1, 0xca], 0x1234n, 7n, 7n],
  ["cdqe", [0xb8, 0, 0, 0, 0x80, 0x48, 0x98], 0xffff_ffff_8000_0000n],
  ["read CR0", [0x0f, 0x20, 0xc1], 0x1234n, 0x80000031n],
  ["read DR6", [0x0f, 0x21, 0xf1], 0x1234n, 0xffff0ff0n],
  ["jcc over a hlt", [0x31, 0xc9, 0x74, 0x01, 0xf4, 0xff, 0xc1], 0x1234n, 1n],
];

for (const [name, code, rax = 0n, rcx, rdx] of PROGRAMS) {
  Deno.test(`cpu instruction: ${name}`, () => {
    const [a, c, d] = registers(code);
    assertEquals(a, rax);
    if (rcx !== undefined) assertEquals(c, rcx);
    if (rdx !== undefined) assertEquals(d, rdx);
  });
}

Deno.test("cpu instruction: call and ret", () => {
  // call +1; hlt; ret
  const m = machine([0xe8, 1, 0, 0, 0, 0xf4, 0xc3]);
  run(m);
  assertEquals([exit(m).rip, m.u64(v + S.rsp)], [BigInt(CODE + 5), BigInt(STACK)]);
});

Deno.test("cpu instruction: a jump to itself and an endless loop are stuck", () => {
  assertEquals(run(machine([0xeb, 0xfe])), "stuck");
  assertEquals(run(machine([0x90, 0xeb, 0xfd])), "stuck");
});

Deno.test("cpu instruction: what is not modelled says so", () => {
  assertEquals(run(machine([0x0f, 0x31])), "unmodelled");
  assertEquals(run(machine([0xd9, 0xf0])), "unmodelled");
});

Deno.test("cpu instruction: an instruction across a page boundary faults on the second page", () => {
  const m = machine();
  m.memory.writeBytes(0x1fffff, Uint8Array.of(0xb8));
  m.memory.write64(0x42008, 0n);
  m.set64(v + S.rip, 0x1fffffn);
  m.or32(v + 8, 1 << 14);
  run(m);
  assertEquals([exit(m).code, exit(m).info2, exit(m).rip], [0x4e, 0x200000n, 0x1fffffn]);
});

const mask = (size: number) => (1n << BigInt(size * 8)) - 1n;
const half = (x: bigint, i: bigint) => Number(x >> i * 32n & 0xffffffffn);

Deno.test("cpu instruction: addition and subtraction agree with bigints", () => {
  const cpu = new Processor();
  const any = fc.oneof(
    fc.bigInt(0n, mask(8)),
    fc.constantFrom(
      0n,
      1n,
      0x7fn,
      0x80n,
      0xffn,
      0x7fff_ffffn,
      0x8000_0000n,
      0xffff_ffffn,
      mask(8),
      1n << 63n,
    ),
  );
  fc.assert(
    fc.property(
      fc.constantFrom(1, 2, 4, 8),
      any,
      any,
      fc.nat(7),
      fc.nat(1),
      (size, x, y, op, carry) => {
        const a = x & mask(size);
        const b = y & mask(size);
        cpu.rflags = 2 | carry;
        alu.group1(cpu, op, size, half(a, 0n), half(a, 1n), half(b, 0n), half(b, 1n));
        const c = op === 2 || op === 3 ? BigInt(carry) : 0n;
        const sum = op === 0 || op === 2;
        const difference = op === 3 || op === 5 || op === 7;
        const exact = sum
          ? a + b + c
          : difference
          ? a - b - c
          : op === 1
          ? a | b
          : op === 4
          ? a & b
          : a ^ b;
        const r = exact & mask(size);
        assertEquals(BigInt(alu.result.hi) << 32n | BigInt(alu.result.lo), r);
        const bits = size * 8;
        const s = (n: bigint) => BigInt.asIntN(bits, n);
        const signed = sum ? s(a) + s(b) + c : s(a) - s(b) - c;
        const arithmetic = sum || difference;
        let parity = 0;
        for (let i = 0n; i < 8n; i++) parity ^= Number(r >> i & 1n);
        const expected = (exact !== r ? 1 : 0) | (parity === 0 ? 4 : 0) | (r === 0n ? 0x40 : 0) |
          (r >> BigInt(bits - 1) === 1n ? 0x80 : 0) | (arithmetic && s(r) !== signed ? 0x800 : 0) |
          (arithmetic && ((a ^ b ^ r) & 0x10n) !== 0n ? 0x10 : 0);
        assertEquals(cpu.rflags & 0x8d5, expected);
      },
    ),
    { numRuns: 3000 },
  );
});

Deno.test("a far return of 32 bits reads the stack below 4 GiB in 64-bit code, too", () => {
  // lret with RSP 0x1_0000_7000: 0x9100 and the selector 8 lie at 0x7000.
  const m = machine([0xcb]);
  m.set64(VMCB02_AT + S.rsp, 0x1_0000_7000n);
  m.set32(VMCB02_AT + S.gdtr_limit, 0x3f);
  m.memory.write64(GDT + 8, 0x00af9b000000ffffn);
  m.memory.write64(0x7000, 0x8_0000_9100n);
  m.memory.write8(0x9100, 0xf4);
  run(m);
  assertEquals([exit(m).rip, m.u64(VMCB02_AT + S.rsp)], [0x9100n, 0x7008n]);
});
