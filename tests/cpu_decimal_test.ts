import { assertEquals } from "@std/assert";
import fc from "fast-check";
import { FLAG, NEXT, VECTOR } from "../engine/cpu/constants.ts";
import { decimal } from "../engine/cpu/decimal.ts";
import { Processor } from "../engine/cpu/processor.ts";

const DAA = 0x27, DAS = 0x2f, AAA = 0x37, AAS = 0x3f, AAM = 0xd4, AAD = 0xd5;

/** AX and the carry after an operation, from AX, the flags before and the immediate. */
function after(op: number, ax: number, flags = 0, base = 10): [ax: number, carry: boolean] {
  const cpu = new Processor();
  cpu.gpr[0] = ax;
  cpu.rflags = flags | 2;
  cpu.insn.imm = base;
  assertEquals(decimal(cpu, op), NEXT);
  return [(cpu.gpr[0] as number) & 0xffff, (cpu.rflags & FLAG.cf) !== 0];
}

const packed = (n: number) => Math.floor(n / 10) << 4 | n % 10;
const digits = fc.nat(99);

Deno.test("DAA and DAS make sums and differences of two decimal digits decimal", () => {
  fc.assert(fc.property(digits, digits, (a, b) => {
    const x = packed(a), y = packed(b);
    const half = (x & 15) + (y & 15) > 15 ? FLAG.af : 0;
    const carry = x + y > 0xff ? FLAG.cf : 0;
    assertEquals(after(DAA, x + y & 0xff, half | carry), [packed((a + b) % 100), a + b > 99]);
    const borrow = (x & 15) < (y & 15) ? FLAG.af : 0;
    const below = x < y ? FLAG.cf : 0;
    assertEquals(after(DAS, x - y & 0xff, borrow | below), [packed((a - b + 100) % 100), a < b]);
  }));
});

Deno.test("AAA and AAS keep one digit and carry into AH", () => {
  fc.assert(fc.property(fc.nat(9), fc.nat(9), (a, b) => {
    const sum = a + b, half = sum > 15 ? FLAG.af : 0;
    assertEquals(after(AAA, 0x500 | sum, half), [
      0x500 + (sum > 9 ? 0x100 : 0) + sum % 10,
      sum > 9,
    ]);
    const borrow = a < b ? FLAG.af : 0, digit = (a - b + 10) % 10;
    // The subtraction of bytes itself leaves AH alone; AL below 6 borrows once more.
    const [ax, carry] = after(AAS, 0x500 | a - b & 0xff, borrow);
    assertEquals([ax & 15, carry], [digit, a < b]);
  }));
});

Deno.test("AAM parts a number by its base, and AAD puts it together", () => {
  fc.assert(fc.property(fc.nat(255), fc.integer({ min: 1, max: 255 }), (n, base) => {
    const [ax] = after(AAM, n, 0, base);
    assertEquals(ax, Math.floor(n / base) << 8 | n % base);
    assertEquals(after(AAD, ax, 0, base)[0], n);
  }));
});

Deno.test("AAM by 0 is #DE", () => {
  const raised: number[] = [];
  class Raising extends Processor {
    override raise(vector: number): number {
      return raised.push(vector);
    }
  }
  const cpu = new Raising();
  cpu.insn.imm = 0;
  decimal(cpu, AAM);
  assertEquals(raised, [VECTOR.de]);
});
