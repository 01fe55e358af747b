import { assertEquals } from "@std/assert";
import fc from "fast-check";
import {
  add,
  compare,
  divide,
  type Extended,
  fromInteger,
  fromMemory,
  multiply,
  type Rounding,
  squareRoot,
  toInteger,
  toMemory,
} from "../engine/cpu/x87_number.ts";
import { CODE, exit, machine, run, S, V, VMCB02_AT } from "./cpu_machine.ts";

const v = VMCB02_AT;
const bytes = (code: string) => [...Uint8Array.fromHex(code.replaceAll(" ", ""))];

/** Runs code up to a HLT; gives back RAX. */
function rax(code: string): bigint {
  const all = bytes(code);
  const m = machine([...all, 0xf4]);
  assertEquals([run(m), exit(m).code, exit(m).rip], ["exit", 0x78, BigInt(CODE + all.length)]);
  return m.u64(v + S.rax);
}

/** Stores ST(0) as an integer of 32 bits and loads it into EAX. */
const RESULT = "db1c2500600000 8b042500600000";

Deno.test("x87: constants, arithmetic and integers", () => {
  assertEquals(rax(`d9e8 d9e8 dec1 ${RESULT}`), 2n, "fld1; fld1; faddp");
  assertEquals(rax(`c704250060000007000000 db042500600000 d9e8 d8c0 def9 ${RESULT}`), 4n, "7/2");
  assertEquals(rax(`d9eb ${RESULT}`), 3n, "pi, rounded");
  assertEquals(rax(`c704250060000051000000 db042500600000 d9fa ${RESULT}`), 9n, "root of 81");
});

/** Loads ten bytes, carries out code, stores ST(0) as ten bytes, and gives back its significand. */
function significand(low: string, high: string, code: string, pops = ""): bigint {
  const put = (value: string, at: string) =>
    `48b8${value.match(/../g)!.reverse().join("")} 48890425${at}600000`;
  return rax(
    `${put(low, "00")} ${put(high, "08")} db2c2500600000 ${code} ${pops} ` +
      "db3c2520600000 488b042520600000",
  );
}

// As QEMU's processor in the lab.
Deno.test("x87: FXTRACT parts exponent and significand", () => {
  const of = (low: string, high: string, pops?: string) => significand(low, high, "d9f4", pops);
  const minus100 = ["c800000000000000", "000000000000c005"] as const;
  assertEquals(of(...minus100), 0xc800000000000000n, "100 / 64");
  assertEquals(of(...minus100, "ddd8"), 0xc000000000000000n, "6, below it");
  const zero = ["0000000000000000", "0000000000000000"] as const;
  assertEquals(of(...zero), 0n);
  assertEquals(of(...zero, "ddd8"), 1n << 63n, "minus infinity");
  assertEquals(rax("d9ee d9f4 dfe0"), 0x3004n, "which is noted as a division by zero");
  const denormal = ["0000000000000123", "0000000000000000"] as const;
  assertEquals(of(...denormal), 0x9180000000000000n);
});

Deno.test("x87: decimal numbers are stored and loaded", () => {
  const at = "2500600000";
  const stored = (load: string) => rax(`${load} df34${at} 488b04${at}`);
  assertEquals(stored(`c704${at}d2040000 db04${at}`), 0x1234n, "fild 1234");
  assertEquals(stored(`c704${at}2efbffff db04${at}`), 0x1234n, "of -1234 the sign is elsewhere");
  assertEquals(rax(`c704${at}2efbffff db04${at} df34${at} 8b042508600000`) & 0xffffn, 0x8000n);
  assertEquals(rax(`48c704${at}99990000 df24${at} ${RESULT}`), 9999n, "fbld");
  // 1 divided by 0 has no digits.
  assertEquals(stored("d9e8 d9ee def9"), 0xc000_0000_0000_0000n);
});

Deno.test("x87: the status word, and a reset of it", () => {
  assertEquals(rax("d9e8 d9ee d8d9 dfe0"), 0x3900n, "0 < 1: C0, and one number left");
  assertEquals(rax("d9e8 dbe3 dfe0"), 0n);
  assertEquals(rax("d9e8 d9ee def9 dfe0"), 0x3804n, "1/0 is noted");
  assertEquals(rax("d93c2500600000 66b80000 668b042500600000"), 0x37fn, "the control word");
});

Deno.test("x87: CR0.EM comes first, and what does not exist is #UD", () => {
  const m = machine(bytes("d9e8"));
  m.set64(v + S.cr0, 0x80000035n);
  m.or32(v + 8, 1 << 7);
  run(m);
  assertEquals(exit(m).code, 0x47);
  const none = machine(bytes("d90c2500600000"));
  none.or32(v + 8, 1 << 6);
  run(none);
  assertEquals(exit(none).code, 0x46);
});

Deno.test("x87: what a reset leaves is all zero in the vCPU area", () => {
  const m = machine(bytes("dbe3 f4"));
  run(m);
  assertEquals([m.u16(V.fcw), m.u16(V.fsw), m.u8(V.ftw)], [0, 0, 0]);
});

/** Rounded to a double at once, so that JavaScript's own arithmetic is the judge. */
const nearest = (): Rounding => ({ mode: 0, precision: 53, flags: 0 });
const view = new DataView(new ArrayBuffer(8));

function extended(x: number): Extended {
  view.setFloat64(0, x);
  return fromMemory(view.getBigUint64(0), 8, nearest());
}

function double(x: Extended): number {
  view.setBigUint64(0, toMemory(x, 8, nearest()));
  return view.getFloat64(0);
}

Deno.test("x87: numbers agree with doubles where those are wide enough", () => {
  // Exponents far from where a double's range ends: there an extended number goes on.
  const some = fc.double({ noNaN: true, noDefaultInfinity: true, min: -1e100, max: 1e100 })
    .filter((x) => x === 0 || Math.abs(x) > 1e-100);
  fc.assert(fc.property(some, some, (a, b) => {
    const [x, y] = [extended(a), extended(b)];
    assertEquals(double(x), a);
    assertEquals(double(add(x, y, false, nearest())), a + b);
    assertEquals(double(add(x, y, true, nearest())), a - b);
    assertEquals(double(multiply(x, y, nearest())), a * b);
    if (b !== 0) assertEquals(double(divide(x, y, nearest())), a / b);
    if (a >= 0) assertEquals(double(squareRoot(x, nearest())), Math.sqrt(a));
    assertEquals(compare(x, y, true, nearest()), a < b ? -1 : a > b ? 1 : 0);
  }));
});

Deno.test("x87: integers go there and back, and one that does not fit is the least", () => {
  fc.assert(fc.property(fc.bigInt({ min: -(1n << 63n), max: (1n << 63n) - 1n }), (value) => {
    const r: Rounding = { mode: 0, precision: 64, flags: 0 };
    assertEquals(toInteger(fromInteger(value), 64, 0, r), value);
    const small = BigInt.asIntN(32, value) === value;
    assertEquals(toInteger(fromInteger(value), 32, 0, r), small ? value : -(1n << 31n));
    assertEquals(r.flags, small ? 0 : 1);
  }));
});

Deno.test("x87: single precision rounds as Math.fround does, down to denormal numbers", () => {
  fc.assert(fc.property(fc.double({ noNaN: true }), (x) => {
    const bits = toMemory(extended(x), 4, nearest());
    view.setUint32(0, Number(bits));
    assertEquals(view.getFloat32(0), Math.fround(x));
  }));
});
