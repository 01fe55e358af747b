import { assertEquals } from "@std/assert";
import { type CodeWidth, decode, Instruction } from "../engine/cpu/mod.ts";

const hex = (text: string) => Uint8Array.from(text.split(" ").map((b) => parseInt(b, 16)));

/** Bytes, then the lengths in 64-, 32- and 16-bit code. */
const LENGTHS: [string, number, number, number][] = [
  ["90", 1, 1, 1],
  ["0f 01 d9", 3, 3, 3],
  ["48 b8 01 02 03 04 05 06 07 08", 10, 1, 1],
  ["66 b8 01 02 03 04", 4, 4, 6],
  ["b8 01 02 03 04", 5, 5, 3],
  ["8b 04 25 00 00 00 80", 7, 7, 2],
  ["8b 05 00 00 00 00", 6, 6, 2],
  ["8b 84 24 00 00 00 00", 7, 7, 4],
  ["8b 44 24 08", 4, 4, 3],
  ["67 8b 46 08", 4, 4, 4],
  ["a1 00 00 00 00 00 00 00 00", 9, 5, 3],
  ["f6 c0 01", 3, 3, 3],
  ["f6 d0", 2, 2, 2],
  ["f7 c0 01 00 00 00", 6, 6, 4],
  ["f7 f1", 2, 2, 2],
  ["c8 10 00 01", 4, 4, 4],
  ["ea 00 00 00 00 08 00", 7, 7, 5],
  ["e8 00 00 00 00", 5, 5, 3],
  ["66 e8 00 00", 4, 4, 6],
  ["0f 84 00 00 00 00", 6, 6, 4],
  ["0f ba e0 01", 4, 4, 4],
  ["0f 3a 0f c1 08", 5, 5, 5],
  ["66 0f 38 00 c1", 5, 5, 5],
  ["0f 22 c0", 3, 3, 3],
  ["0f 22 04", 3, 3, 3],
  ["c5 f8 77", 3, 3, 2],
  ["c4 e2 79 18 c1", 5, 5, 2],
  ["c4 e3 7d 18 c1 01", 6, 6, 2],
  ["69 c0 01 00 00 00", 6, 6, 4],
  ["6b c0 01", 3, 3, 3],
  ["c2 08 00", 3, 3, 3],
  ["66 0f 78 c1 08 04", 6, 6, 6],
  ["0f 78 c1", 3, 3, 3],
  ["f3 48 0f b8 c0", 5, 2, 2],
];

for (const [bytes, ...lengths] of LENGTHS) {
  Deno.test(`cpu decode: ${bytes}`, () => {
    const code = new Uint8Array(15);
    code.set(hex(bytes));
    const insn = new Instruction();
    const widths: CodeWidth[] = [64, 32, 16];
    for (const [i, width] of widths.entries()) {
      assertEquals(decode(code, 15, width, insn), "ok");
      assertEquals(insn.length, lengths[i], `${width} bits`);
    }
  });
}

Deno.test("cpu decode: every cut of an instruction is short", () => {
  for (const [bytes] of LENGTHS) {
    const code = hex(bytes);
    const insn = new Instruction();
    decode(code, code.length, 64, insn);
    const length = insn.length;
    for (let n = 0; n < length; n++) assertEquals(decode(code, n, 64, insn), "short");
  }
});

Deno.test("cpu decode: more than 15 bytes are too long", () => {
  const code = new Uint8Array(15).fill(0x66);
  assertEquals(decode(code, 15, 64, new Instruction()), "long");
});

Deno.test("cpu decode: operands", () => {
  const insn = new Instruction();
  decode(hex("64 48 03 4c d8 f0 00 00 00"), 9, 64, insn);
  assertEquals(
    [insn.opcode, insn.segment, insn.reg, insn.base, insn.index, insn.scale, insn.disp, insn.dflag],
    [0x03, 4, 1, 0, 3, 3, -16, 3],
  );
});
