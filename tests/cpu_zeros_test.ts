/**
 * Runs of zeros, done at once and one by one: a processor that may not remember translations does
 * the latter.
 *
 * @module
 */
import { assertEquals, assertGreater } from "@std/assert";
import fc from "fast-check";
import { INSTRUCTION_BUDGET, Processor, runVmcb } from "../engine/cpu/mod.ts";
import { passZeros } from "../engine/cpu/zeros.ts";
import { QEMU_7_2 } from "../engine/processors/mod.ts";
import { VECTOR } from "../engine/cpu/constants.ts";
import {
  C,
  CODE,
  intercept,
  machine,
  paging,
  ROOT,
  S,
  segment,
  V,
  VMCB02_AT,
} from "./cpu_machine.ts";

const v = VMCB02_AT;
/** Where there is a HLT in any case: after the code, and where 16-bit code ends. */
const LAST = [CODE + 0x2000, 0x1_0800] as const;

interface Stray {
  readonly width: 16 | 32 | 64;
  readonly base: number;
  readonly rip: number;
  /** Address of the byte that is added to, and what AL is. */
  readonly at: number;
  readonly al: number;
  /** RFLAGS beside those that are set always, and the interrupt shadow and V_INTR. */
  readonly flags: number;
  readonly shadow: boolean;
  readonly virq: boolean;
  /** Where something else than zeros is. */
  readonly end: number;
}

/** A guest that runs from RIP through zeros up to a HLT. */
function astray(s: Stray) {
  const m = machine();
  const attrib = s.width === 64 ? 0xa9b : s.width === 32 ? 0xc9b : 0x9b;
  segment(m, v + S.cs_selector, 8, attrib, 0xffffffff, s.width === 64 ? 0 : s.base);
  if (s.width !== 64) {
    m.set64(v + S.efer, 0x1000n);
    m.set64(v + S.cr0, 0x11n);
  }
  intercept(m, 0x40 + VECTOR.db, 0x40 + VECTOR.pf, 0x40 + VECTOR.gp, 0x64);
  m.set64(v + S.rip, BigInt(s.rip));
  m.set64(v + S.rflags, BigInt(s.flags | 2));
  m.set32(v + C.int_state, s.shadow ? 1 : 0);
  m.set32(v + C.int_ctl, s.virq ? 0x100100 : 0);
  // ADD [RAX], AL; in 16-bit code ADD [BX+SI], AL.
  m.set64(V.rbx, BigInt(s.at & 0xffff));
  m.set64(v + S.rax, BigInt(s.width === 16 ? s.al : s.at & ~0xff | s.al));
  m.set64(V.rax, m.u64(v + S.rax));
  m.memory.write8(s.end, 0xf4);
  for (const at of LAST) m.memory.write(at, 2, 0xf4f4);
  return m;
}

function outcome(s: Stray, remembers: boolean) {
  const m = astray(s), cpu = new Processor();
  cpu.translations.enabled = remembers;
  const status = runVmcb(cpu, m, v, paging, { model: QEMU_7_2 });
  const pages = m.memory.pages().map((n) => [n, m.memory.page(n * 4096).toHex()]);
  return { status, bytes: m.bytes.toHex(), pages, rip: [cpu.ripLo, cpu.ripHi], flags: cpu.rflags };
}

const PLACES = fc.oneof(
  fc.integer({ min: CODE, max: CODE + 0xfff }),
  fc.constantFrom(ROOT, ROOT + 0x1000, ROOT + 0x2000),
  fc.integer({ min: 0, max: 0x1ffff }),
);
const STRAY: fc.Arbitrary<Stray> = fc.record({
  width: fc.constantFrom(16, 32, 64),
  base: fc.constantFrom(0, 0x10, 0x1000, 0x7f1),
  rip: fc.oneof(fc.integer({ min: CODE - 0x30, max: CODE + 0x1ff }), fc.constant(0xfff0)),
  at: PLACES,
  al: fc.oneof(fc.integer({ min: 0, max: 255 }), fc.integer({ min: 1, max: 7 })),
  flags: fc.constantFrom(0, 0, 0, 0x200, 0x100, 0x10000, 0x10200, 0x8d5),
  shadow: fc.boolean(),
  virq: fc.oneof(fc.constant(false), fc.boolean()),
  end: fc.integer({ min: CODE, max: CODE + 0x1fff }),
});

const PLAIN = { width: 64, base: 0, flags: 0, shadow: false, virq: false } as const;

Deno.test("zeros done at once are what they are one by one", () => {
  fc.assert(
    fc.property(STRAY, (stray) => assertEquals(outcome(stray, true), outcome(stray, false))),
    { numRuns: 400 },
  );
});

Deno.test("a guest in endless zeros is stuck after as many instructions as any other", () => {
  const FAR = 0x100000;
  const s: Stray = { ...PLAIN, rip: FAR, at: 0x6000, al: 3, end: CODE };
  const at = outcome(s, true);
  assertEquals(at, outcome(s, false));
  assertEquals([at.status, at.rip[0]], ["stuck", FAR + 2 * INSTRUCTION_BUDGET]);
});

Deno.test("what is ahead of a guest in zeros and turns into zero only for a moment is no zero", () => {
  // 0xf4 is 0 after two ADDs of 6, when all translations are known, and more when the guest is there.
  const at = 0x9106;
  const s: Stray = { ...PLAIN, rip: CODE, at, al: 6, end: at };
  assertEquals(outcome(s, true), outcome(s, false));
});

Deno.test("most of a page of zeros is passed at once", () => {
  const s: Stray = { ...PLAIN, rip: CODE, at: 0x6001, al: 1, end: CODE + 8 };
  const m = astray(s), cpu = new Processor();
  cpu.translations.enabled = true;
  runVmcb(cpu, m, v, paging);
  assertEquals(m.memory.read8(0x6001), 4);
  // As if the HLT had not stopped it: the bytes before it are zeros, too.
  cpu.ripLo = CODE + 0x10;
  cpu.insn.opcode = cpu.insn.modrm = 0;
  cpu.insn.length = 2;
  assertGreater(passZeros(cpu, 10_000), 2000);
});
