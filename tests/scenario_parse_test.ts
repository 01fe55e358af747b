import { assert, assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import fc from "fast-check";
import { ENTRIES } from "../traces/scenarios/scenario.ts";
import { bytesOf } from "../traces/scenarios/scenario_memory.ts";
import { parseScenario, parseScenarios } from "../traces/scenarios/scenario_reader.ts";
import { toLabCase } from "../traces/scenarios/lab_case.ts";
import type { Scenario } from "../traces/scenarios/scenario.ts";
import { ScenarioError } from "../traces/scenarios/scenario_error.ts";

/** The changes of a scenario as `target gpa size value`, hexadecimal. */
function changes(spec: string): string[] {
  return parseScenario(`a ${spec}`).changes.map(({ target, gpa, size, value }) =>
    `${target} ${gpa.toString(16)} ${size} ${value.toString(16)}`
  );
}

function problem(text: string): ScenarioError {
  return assertThrows(() => parseScenario(text, { file: "f.txt", line: 7 }), ScenarioError);
}

Deno.test("a bare name is the base", () => {
  const { name, spec, l1, ...rest } = parseScenario("  ok \r");
  assertEquals([name, spec], ["ok", ""]);
  assertEquals(l1, {
    rax: 0x10000n,
    rip: 0x8000n,
    rflags: 2n,
    cr0: 0x80000011n,
    cr3: 0x1000n,
    cr4: 0x20n,
    efer: 0x1500n,
    hsave: 0x20000n,
    pae: false,
  });
  assertEquals(rest, {
    line: 1,
    changes: [],
    gif: true,
    nmi: false,
    irq: 0,
    entry: "vmrun",
    pending: false,
    midNmi: false,
    midIrq: 0,
    cpuid: [],
    physicalBits: undefined,
    late: [],
    keepvm: false,
    keepmem: false,
  });
});

Deno.test("offsets are hexadecimal, sizes decimal and 8 when left out", () => {
  assertEquals(changes("c.58.4=0 s.d0=500 m.9000.1=f4 c.0x10.4=0x2"), [
    "control 10058 4 0",
    "save 104d0 8 500",
    "memory 9000 1 f4",
    "control 10010 4 2",
  ]);
});

Deno.test("values wrap as the lab's C library wraps them", () => {
  assertEquals(changes("c.78=-1 c.58.4=-2 c.5c.1=1ff"), [
    "control 10078 8 ffffffffffffffff",
    "control 10058 4 fffffffe",
    "control 1005c 1 ff",
  ]);
});

Deno.test("writes beyond the end of memory are left out, as the lab leaves them", () => {
  assertEquals(changes("m.fffff8=1 m.fffff9=1 m.1000000=1 m.ffffff.1=2 c.ff0000=1"), [
    "memory fffff8 8 1",
    "memory ffffff 1 2",
  ]);
});

Deno.test("l1pae sets EFER and CR3 where it stands", () => {
  const before = parseScenario("a efer=1d00 cr3=2000 l1pae").l1;
  assertEquals([before.efer, before.cr3, before.pae], [0x1000n, 0x50000n, true]);
  const after = parseScenario("a l1pae efer=1800 cr3=51000").l1;
  assertEquals([after.efer, after.cr3, after.pae], [0x1800n, 0x51000n, true]);
});

Deno.test("gif, nmi and irq are C ints", () => {
  const { gif, nmi, irq } = parseScenario("a gif=100000000 nmi=2 irq=100000020");
  assertEquals([gif, nmi, irq], [false, true, 0x20]);
});

Deno.test("what happens on the way has its tokens", () => {
  const mid = parseScenario("a entry=mid midnmi=1 midirq=30");
  assertEquals([mid.entry, mid.midNmi, mid.midIrq, mid.pending], ["mid", true, 0x30, false]);
  const { entry, pending } = parseScenario("a entry=migrate pending=1");
  assertEquals([entry, pending], ["migrate", true]);
});

Deno.test("L1's processor loses bits of its CPUID, by number or by name", () => {
  const { cpuid, physicalBits } = parseScenario("a nocpu.8000000a.d=1 cpu.la57=0 pa=24");
  assertEquals(cpuid, [
    { fn: 0x8000000a, register: "edx", mask: 1 },
    { fn: 7, register: "ecx", mask: 0x10000 },
  ]);
  assertEquals(physicalBits, 36);
  // A machine that goes on has its processor already.
  const kept = parseScenario("a cpu.la57=0 pa=24 keepvm");
  assertEquals([kept.cpuid, kept.physicalBits], [[], undefined]);
});

Deno.test("late changes go where their way in has a place for them", () => {
  const late = (entry: string) =>
    parseScenario(`a entry=${entry} xc.58.4=0 xm.9000.1=f4 xh.d0=0 xr.d0=0 xn.58.4=0`).late.map((
      { target, gpa },
    ) => `${target} ${gpa?.toString(16)}`);
  const memory = ["control 10058", "memory 9000"];
  assertEquals(late("rsm"), [...memory, "hsave 204d0", "smram 3fed0", "nested 58"]);
  assertEquals(late("mid"), [...memory, "hsave 204d0", "smram d0", "nested 58"]);
  assertEquals(late("migrate"), [...memory, "hsave undefined", "nested undefined"]);
  assertEquals(late("setstate"), ["hsave undefined"]);
  assertEquals(late("vmrun"), []);
});

Deno.test("late changes count from their area", () => {
  const spec = "a entry=rsm xc.58.4=0 xs.d0=500 xm.50000=7 xh.158=11 xr.d0.2=1";
  const late = parseScenario(spec).late.map(({ target, offset, gpa }) =>
    `${target} ${offset.toString(16)} ${gpa?.toString(16)}`
  );
  assertEquals(late, [
    "control 58 10058",
    "save d0 104d0",
    "memory 50000 50000",
    "hsave 158 20558",
    "smram d0 3fed0",
  ]);
});

Deno.test("late changes without effect are left out", () => {
  assertEquals(parseScenario("a xs.d0=500").late, []);
  const set = parseScenario("a xs.d0=500 xh.d0=500 xr.d0=0 entry=setstate").late;
  assertEquals(set.map((change) => change.target), ["hsave"]);
  assertEquals(parseScenario("a entry=setstate xh.bf9=0").late, []);
});

Deno.test("fields go by name", () => {
  assertEquals(changes("save.efer=0x500 control.event_inj=80000220 control.tlb_ctl=ff"), [
    "save 104d0 8 500",
    "control 100a8 4 80000220",
    "control 1005c 1 ff",
  ]);
  assertEquals(changes("save.cr0=PE|PG"), ["save 10558 8 80000001"]);
});

Deno.test("operators work on what the field holds by then", () => {
  assertEquals(changes("efer^=SVME"), ["save 104d0 8 500"]);
  assertEquals(changes("save.efer^=svme save.efer|=1 save.efer&=~LME|LMA"), [
    "save 104d0 8 500",
    "save 104d0 8 501",
    "save 104d0 8 1",
  ]);
  assertEquals(changes("m.104d0.1=ff efer^=1"), ["memory 104d0 1 ff", "save 104d0 8 15fe"]);
});

Deno.test("a word that is a bit's name and a number is a number after =, a name after an operator", () => {
  assertEquals(changes("save.cr0=CD"), ["save 10558 8 cd"]);
  assertEquals(changes("save.cr0|=CD"), ["save 10558 8 c0000031"]);
  assertEquals(changes("save.cr0|=0xCD"), ["save 10558 8 800000fd"]);
});

Deno.test("L1's registers take operators with l1.", () => {
  const { l1, changes } = parseScenario("a l1.cr4|=PGE l1.efer=1d00 l1.efer^=SVME l1.hsave=21000");
  assertEquals([l1.cr4, l1.efer, l1.hsave], [0xa0n, 0xd00n, 0x21000n]);
  assertEquals(changes, []);
});

Deno.test("late fields go by name", () => {
  const { late } = parseScenario(
    "a entry=rsm late.save.efer=500 late.control.asid=0 late.hsave.cr0=11",
  );
  assertEquals(late.map((change) => [change.target, change.offset, change.size]), [
    ["save", 0xd0, 8],
    ["control", 0x58, 4],
    ["hsave", 0x158, 8],
  ]);
});

const PROBLEMS: readonly (readonly [string, number, string])[] = [
  ["c.58=0", 1, "begins with its name"],
  ["a b=1", 3, "lab would ignore it"],
  ["a gfi=0", 3, "did you mean gif?"],
  ["a ok save.efre=0", 3, 'no token "ok"'],
  ["a save.efre=0", 8, "did you mean save.efer?"],
  ["a  sav.efer=0", 4, "did you mean save.efer?"],
  ["a asid=0", 3, "expected control.asid=VALUE"],
  ["a asdi^=1", 3, "did you mean asid?"],
  ["a efer^=SVMEE", 9, "did you mean SVME?"],
  ["a save.efer=LMA|xyz", 17, '"xyz" is neither'],
  ["a save.efer=12345678901234567", 13, "wider than 64 bits"],
  ["a control.asid=100000000", 16, "does not fit asid"],
  ["a control.insn_bytes=0", 3, "15 bytes wide"],
  ["a c.5g=0", 5, "offset in hexadecimal"],
  ["a c.58.9=0", 8, '"9" is no size'],
  ["a c.58.=0", 8, '"" is no size'],
  ["a c.58", 7, "has no value"],
  ["a c.58=", 8, '"" is not a number'],
  ["a c.58^=1", 7, "takes no ^="],
  ["a entry=foo", 9, "entry=setstate, entry=mid, entry=migrate"],
  ["a nocpu.7.e=1", 11, "a, b, c or d"],
  ["a nocpu.7=1", 3, "names no register"],
  ["a cpu.la58=0", 7, "did you mean cpu.la57?"],
  ["a cpu.la57=1", 7, "cannot be given"],
  ["a pa=80", 6, "128 physical address bits"],
  ["a entry=rsm entry=setstate", 13, "said twice"],
  ["a keepvm=1", 9, "takes no value"],
  ["a gif", 6, "has no value"],
  ["a gif=x", 7, "not a number"],
  ["a late.save.efer^=1", 17, "is not known"],
  ["a keepmem efer^=SVME", 11, "With keepmem"],
  ["a l1.cr9=0", 6, "did you mean l1.cr0?"],
  ["a m.ffffffffffffffff=1", 3, "wraps around"],
  ["a save=1", 3, "no token"],
  ["a save.efer^1", 12, "has no operator"],
];

for (const [text, column, part] of PROBLEMS) {
  Deno.test(`"${text}" is refused at column ${column}`, () => {
    const error = problem(text);
    assertStringIncludes(error.message, part);
    assertEquals([error.file, error.line, error.column], ["f.txt", 7, column]);
    assert(error.message.startsWith(`f.txt:7:${column}: `), error.message);
    assert(error.expected.length > 0);
  });
}

Deno.test("a line longer than the lab's buffer is refused", () => {
  assertStringIncludes(problem("a " + "c.58=0 ".repeat(10_000)).message, "too long");
});

Deno.test("more late changes than the lab holds are refused", () => {
  assertStringIncludes(problem("a entry=rsm" + " xs.d0=1".repeat(65)).message, "64");
});

Deno.test("a file's errors say the line", () => {
  const text = "# a comment\n\nfirst c.58.4=0\n  # another\nsecond nope=1\n";
  const error = assertThrows(() => parseScenarios(text, { file: "x" }), ScenarioError);
  assertEquals([error.line, error.column], [5, 8]);
  const [first] = parseScenarios(text.split("\n").slice(0, 4).join("\n"));
  assertEquals([first?.name, first?.line], ["first", 3]);
});

const hex = (value: bigint | number) => value.toString(16);
const u64 = fc.bigInt({ min: 0n, max: (1n << 64n) - 1n });
const size = fc.constantFrom("", ".0", ".1", ".2", ".3", ".4", ".8");
const token = fc.oneof(
  fc.tuple(fc.constantFrom("c", "s"), fc.nat(0xc00), size, u64)
    .map(([area, at, n, value]) => `${area}.${hex(at)}${n}=${hex(value)}`),
  fc.tuple(fc.nat(0x1100000), size, u64).map(([at, n, v]) => `m.${hex(at)}${n}=${hex(v)}`),
  fc.tuple(fc.constantFrom("xc", "xs", "xm", "xh", "xr", "xn"), fc.nat(0x1ff), size, u64)
    .map(([area, at, n, value]) => `${area}.${hex(at)}${n}=${hex(value)}`),
  fc.tuple(fc.constantFrom("rax", "rip", "rflags", "cr0", "cr3", "cr4", "efer", "hsave"), u64)
    .map(([name, value]) => `${name}=${hex(value)}`),
  fc.constantFrom("l1pae", "gif=0", "gif=1", "nmi=1", "irq=20", "keepvm", "efer^=SVME", "cr0|=NW"),
  fc.constantFrom("pending=1", "midnmi=1", "midirq=30", "nocpu.7.c=10000", "cpu.npt=0", "pa=24"),
);
const line = fc.tuple(
  fc.array(token, { maxLength: 12 }),
  fc.constantFrom("", ...ENTRIES.map((entry) => `entry=${entry}`)),
).map(([tokens, entry]) => ["name", ...tokens, entry].join(" "));

function meaning({ spec: _spec, line: _line, ...rest }: Scenario): unknown {
  return rest;
}

Deno.test("a scenario rendered for the lab reads back as itself", () => {
  fc.assert(fc.property(line, (text) => {
    const scenario = parseScenario(text);
    const rendered = toLabCase(scenario);
    assertEquals(meaning(parseScenario(rendered)), meaning(scenario));
    assertEquals(toLabCase(parseScenario(rendered)), rendered);
  }));
});

Deno.test("a change's bytes are its value, little-endian", () => {
  fc.assert(fc.property(u64, fc.nat(8), (value, n) => {
    const bytes = bytesOf({ size: n, value });
    assertEquals(bytes.length, n);
    let back = 0n;
    bytes.forEach((byte, i) => back |= BigInt(byte) << BigInt(8 * i));
    assertEquals(back, BigInt.asUintN(8 * n, value));
  }));
});

Deno.test("no text makes the reader fail in another way", () => {
  fc.assert(fc.property(fc.string({ maxLength: 60 }), (text) => {
    try {
      parseScenario(`a ${text}`);
    } catch (error) {
      assert(error instanceof ScenarioError, String(error));
    }
  }));
});
