/**
 * What a random case may change in the valid base. One row a field or a
 * behaviour; between them they reach every field that a check reads, every
 * class of bits, all three ways in and what L2 does.
 *
 * @module
 */
import { IOPM_GPA, L2_TABLES, MSRPM_GPA, NPT_TABLES, PAE_TABLES } from "./base.ts";
import type { Random } from "./random.ts";

/** One way to change the base. */
export interface Mutation {
  /** Short name, part of the names of the cases that have it. */
  readonly name: string;
  /** How often it is taken, relative to the others. */
  readonly weight: number;
  /** The way in it makes sense for; all when left out. */
  readonly entry?: "vmrun" | "rsm" | "setstate";
  /** With `entry=rsm`: takes effect before VMRUN in any case, never between the SMI and RSM. */
  readonly early?: boolean;
  /** Tokens of the case syntax. */
  readonly tokens: (random: Random) => string[];
}

const hex = (value: bigint | number) => value.toString(16);

/** Flips one bit; the low half, where most bits mean something, more often. */
function flip(random: Random, value: bigint, avoid: readonly number[] = []): bigint {
  for (;;) {
    const bit = random.chance(70) ? random.below(32) : random.below(64);
    if (!avoid.includes(bit)) return value ^ 1n << BigInt(bit);
  }
}

/** One bit of 64. */
function anyBit(random: Random): bigint {
  return 1n << BigInt(random.below(64));
}

/** A 32-bit value with one bit flipped. */
function flip32(random: Random, value: number): number {
  return (value ^ 1 << random.below(32)) >>> 0;
}

/** Physical addresses where something ends: RAM, 4 GiB, the 40 address bits. */
const EDGES = [0xffd000n, 0xffe000n, 0xfff000n, 0x1000000n, 0x8000000n, 0xfffff000n, 0xffffffc000n]
  .concat([0xffffffd000n, 0xffffffe000n, 0xfffffff000n, 0x10000000000n, 0xfff0000000030000n]);

function mapAddress(random: Random, base: number): bigint {
  const way = random.below(4);
  if (way === 0) return flip(random, BigInt(base));
  if (way === 1) return BigInt(base | 1 + random.below(0xfff));
  if (way === 2) return random.pick(EDGES);
  return random.pick(EDGES) + BigInt(random.below(4) * 0x400);
}

/** EVENTINJ: type, vector, and the error code that goes with it. */
function eventInj(type: number, vector: number, error?: number): string {
  const low = (0x80000000 | (error === undefined ? 0 : 0x800) | type << 8 | vector) >>> 0;
  return `c.a8=${hex(BigInt(error ?? 0) << 32n | BigInt(low))}`;
}

const NPT_ON = ["c.90=1", `c.b0=${hex(NPT_TABLES)}`];
const PAE_L2 = ["s.d0=1000", `s.150=${hex(PAE_TABLES)}`, "s.12.2=c9b"];

/** L2's first instructions: bytes in order, as words to write at RIP. */
function code(...bytes: number[]): string[] {
  const words = [];
  for (let i = 0; i < bytes.length; i += 8) {
    let word = 0n;
    bytes.slice(i, i + 8).forEach((byte, j) => word |= BigInt(byte) << BigInt(8 * j));
    words.push(`m.${hex(0x9000 + i)}=${hex(word)}`);
  }
  return words;
}

const WORD3 = 0x91000000;
const WORD4 = 3;
const word3 = (bits: number) => `c.c.4=${hex((WORD3 | bits) >>> 0)}`;
const word4 = (bits: number) => `c.10.4=${hex((WORD4 | bits) >>> 0)}`;

/** Instructions with a bit of their own in an intercept word: bytes, word, bit. */
const INTERCEPTED: readonly (readonly [readonly number[], 3 | 4, number])[] = [
  [[0xf4], 3, 24],
  [[0x0f, 0xa2], 3, 18],
  [[0x0f, 0x31], 3, 14],
  [[0x0f, 0x33], 3, 15],
  [[0xf3, 0x90], 3, 23],
  [[0x0f, 0x01, 0x38], 3, 25],
  [[0x0f, 0x01, 0xdf], 3, 26],
  [[0x0f, 0x08], 3, 22],
  [[0x9c], 3, 16],
  [[0x9d], 3, 17],
  [[0x0f, 0x01, 0x08], 3, 6],
  [[0x0f, 0x01, 0x00], 3, 7],
  [[0x0f, 0x09], 4, 9],
  [[0x0f, 0x01, 0xd8], 4, 0],
  [[0x0f, 0x01, 0xd9], 4, 1],
  [[0x0f, 0x01, 0xda], 4, 2],
  [[0x0f, 0x01, 0xdb], 4, 3],
  [[0x0f, 0x01, 0xdc], 4, 4],
  [[0x0f, 0x01, 0xdd], 4, 5],
  [[0x0f, 0x01, 0xde], 4, 6],
];

/** Second opcode bytes of RDTSC and RDPMC: not intercepted, no two runs agree on what they read. */
const CLOCKS = [0x31, 0x33];

/** Faulting instructions and the vector each raises: bytes, vector. */
const FAULTS: readonly (readonly [readonly number[], number])[] = [
  [[0x0f, 0x0b], 6],
  [[0xcc], 3],
  [[0xf7, 0xf0], 0],
  [[0xf1], 1],
  [[0x48, 0x8b, 0x04, 0x25, 0, 0, 0, 0x40], 14],
  [[0x48, 0x89, 0x04, 0x25, 0, 0, 0, 0x60], 14],
];

/** The mutations. */
export const MUTATIONS: readonly Mutation[] = [
  // What the checks of the control area read.
  { name: "vmrun0", weight: 3, tokens: () => ["c.10.4=2"] },
  { name: "asid0", weight: 6, tokens: () => ["c.58.4=0"] },
  {
    name: "asid",
    weight: 1,
    tokens: (r) => [`c.58.4=${hex(r.pick([2, 0xffff, 0x10000, 0xffffffff]))}`],
  },
  { name: "npt", weight: 8, tokens: () => NPT_ON },
  {
    name: "nestedctl",
    weight: 3,
    tokens: (r) => [`c.90=${hex(flip(r, r.pick([0n, 1n])))}`, NPT_ON[1]!],
  },
  {
    name: "ncr3",
    weight: 4,
    tokens: (r) => ["c.90=1", `c.b0=${hex(flip(r, BigInt(NPT_TABLES)))}`],
  },
  { name: "ncr3edge", weight: 2, tokens: (r) => ["c.90=1", `c.b0=${hex(r.pick(EDGES))}`] },
  { name: "ncr3off", weight: 1, tokens: (r) => [`c.b0=${hex(r.u64())}`] },
  { name: "msrpm", weight: 5, tokens: (r) => [`c.48=${hex(mapAddress(r, MSRPM_GPA))}`] },
  { name: "iopm", weight: 5, tokens: (r) => [`c.40=${hex(mapAddress(r, IOPM_GPA))}`] },
  {
    name: "tlbctl",
    weight: 3,
    tokens: (r) => [`c.5c.1=${hex(r.pick([1, 2, 3, 4, 5, 7, 8, 0xff]))}`],
  },
  {
    name: "intctl",
    weight: 4,
    tokens: (r) => [`c.60.4=${hex(flip32(r, r.pick([0, 0x1000000])))}`],
  },
  {
    name: "virq",
    weight: 3,
    tokens: (r) => [
      `c.60.4=${hex(0x100 | r.below(16) << 16 | r.pick([0, 0x100000, 0x1000000, 0x1100000]))}`,
      `c.64.4=${hex(r.pick([0x20, 0x30, 0xff]))}`,
      `s.170=${r.pick(["2", "202"])}`,
      ...r.pick([[word3(0x10)], []]),
    ],
  },
  { name: "intstate", weight: 2, tokens: (r) => [`c.68.4=${hex(r.pick([1, 2, 3, 0xffffffff]))}`] },
  { name: "virtext", weight: 2, tokens: (r) => [`c.b8=${hex(r.pick([1, 2, 3, 4, 8]))}`] },
  {
    name: "clean",
    weight: 2,
    tokens: (r) => [`c.c0.4=${hex(r.pick([0x1, 0xff, 0xffffffff, r.u32()]))}`],
  },
  { name: "tscoffset", weight: 1, tokens: (r) => [`c.50=${hex(r.u64())}`] },
  { name: "exitinfo", weight: 1, tokens: (r) => [`c.70=${hex(r.u64())}`, `c.78=${hex(r.u64())}`] },
  {
    name: "exitint",
    weight: 1,
    tokens: (r) => [`c.88=${hex(BigInt(r.u32()) << 32n | 0x80000b0en)}`],
  },
  { name: "nextrip", weight: 1, tokens: (r) => [`c.c8=${hex(r.pick([0x9003n, r.u64()]))}`] },
  { name: "pausefilter", weight: 1, tokens: (r) => [`c.3c.4=${hex(r.u32())}`] },
  { name: "software", weight: 1, tokens: (r) => [`c.3e0=${hex(r.u64())}`, `c.a0=${hex(r.u64())}`] },
  { name: "interceptscr", weight: 2, tokens: (r) => [`c.0.4=${hex(1 << r.below(32) >>> 0)}`] },
  { name: "interceptsdr", weight: 1, tokens: (r) => [`c.4.4=${hex(1 << r.below(32) >>> 0)}`] },
  { name: "interceptsex", weight: 2, tokens: (r) => [`c.8.4=${hex(1 << r.below(32) >>> 0)}`] },
  { name: "intercepts3", weight: 3, tokens: (r) => [`c.c.4=${hex(flip32(r, WORD3))}`] },
  { name: "intercepts4", weight: 3, tokens: (r) => [`c.10.4=${hex(flip32(r, WORD4))}`] },
  { name: "intercepts5", weight: 1, tokens: (r) => [`c.14.4=${hex(1 << r.below(32) >>> 0)}`] },

  // EVENTINJ of every type. The emulated processor itself refuses reserved types and vectors, and
  // then leaks its host's RIP: those come with a failing check, so that they do not reach it.
  {
    name: "injintr",
    weight: 2,
    tokens: (r) => [eventInj(0, r.pick([0x20, 0x80, 0xff, r.below(256)]))],
  },
  { name: "injnmi", weight: 3, tokens: (r) => [eventInj(2, r.pick([2, 2, 0, 0x20]))] },
  {
    name: "injexc",
    weight: 4,
    tokens: (r) => {
      const vector = r.pick([0, 1, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 14, 16, 17, 18, 19]);
      const error = r.chance(50) ? r.pick([0, 2, 0x11, 0xffff]) : undefined;
      return [eventInj(3, vector, error)];
    },
  },
  { name: "injsoft", weight: 2, tokens: (r) => [eventInj(4, r.pick([3, 4, 0x20, 0x80, 0xff]))] },
  {
    name: "injreserved",
    weight: 2,
    early: true,
    tokens: (
      r,
    ) => [
      eventInj(r.pick([1, 5, 6, 7]), r.below(256), r.chance(50) ? r.below(256) : undefined),
      "c.58.4=0",
    ],
  },
  {
    name: "injbadvector",
    weight: 1,
    early: true,
    tokens: (r) => [eventInj(3, r.pick([2, 0x20, 0xff])), "c.10.4=2"],
  },
  { name: "injinvalid", weight: 1, tokens: (r) => [`c.a8=${hex(r.u64() & ~0x80000000n)}`] },

  // What the checks of the save area read.
  { name: "efer", weight: 6, tokens: (r) => [`s.d0=${hex(flip(r, 0x1500n, [13]))}`] },
  {
    name: "efermode",
    weight: 4,
    tokens: (r) => [`s.d0=${r.pick(["0", "500", "1000", "1100", "1400", "1501", "1d00", "5500"])}`],
  },
  { name: "cr0", weight: 6, tokens: (r) => [`s.158=${hex(flip(r, 0x80000031n))}`] },
  {
    name: "cr0cache",
    weight: 3,
    tokens: (r) => [`s.158=${r.pick(["a0000031", "e0000031", "c0000031", "80010031"])}`],
  },
  {
    name: "cr0mode",
    weight: 3,
    tokens: (r) => [`s.158=${r.pick(["10", "11", "30", "31", "80000010", "80000011"])}`],
  },
  { name: "cr4", weight: 6, tokens: (r) => [`s.148=${hex(flip(r, 0x20n))}`] },
  {
    name: "cr4bits",
    weight: 2,
    tokens: (
      r,
    ) => [`s.148=${r.pick(["0", "6a0", "6b0", "10020", "40620", "100020", "200020", "20020"])}`],
  },
  { name: "cr3", weight: 5, tokens: (r) => [`s.150=${hex(flip(r, BigInt(L2_TABLES)))}`] },
  { name: "cr3edge", weight: 2, tokens: (r) => [`s.150=${hex(r.pick(EDGES))}`] },
  { name: "dr6", weight: 4, tokens: (r) => [`s.168=${hex(0xffff0ff0n ^ anyBit(r))}`] },
  { name: "dr7", weight: 4, tokens: (r) => [`s.160=${hex(0x400n ^ anyBit(r))}`] },
  {
    name: "cs",
    weight: 4,
    tokens: (r) => [`s.12.2=${r.pick(["89b", "a9b", "c9b", "e9b", "29b", "a1b"])}`],
  },
  {
    name: "mode",
    weight: 4,
    tokens: (r) => [
      `s.d0=${r.pick(["1000", "1100", "1400", "1500"])}`,
      `s.158=${r.pick(["80000031", "31", "30", "80000030"])}`,
      `s.148=${r.pick(["20", "0"])}`,
      `s.12.2=${r.pick(["89b", "a9b", "c9b", "e9b"])}`,
    ],
  },
  { name: "l2pae", weight: 5, tokens: () => PAE_L2 },
  {
    name: "pdpte",
    weight: 6,
    tokens: (r) => {
      const entry = r.below(4);
      const at = PAE_TABLES + 8 * entry;
      const value = r.chance(80)
        ? flip(r, BigInt(PAE_TABLES + 0x1001 + 0x1000 * entry))
        : r.pick([0n, 7n, r.u64()]);
      return [...(r.chance(85) ? PAE_L2 : []), `m.${hex(at)}=${hex(value)}`];
    },
  },
  {
    name: "paecr3",
    weight: 2,
    tokens: (r) => ["s.d0=1000", "s.12.2=c9b", `s.150=${hex(flip(r, BigInt(PAE_TABLES)))}`],
  },

  // Loaded into L2 without a check of KVM's.
  {
    name: "rflags",
    weight: 3,
    tokens: (r) => [`s.170=${r.pick(["0", "202", "102", "10002", "20002", "3002", "200002"])}`],
  },
  {
    name: "rip",
    weight: 3,
    tokens: (
      r,
    ) => [
      `s.178=${
        r.pick([
          "9003",
          "8003",
          "3ffffffe",
          "40000000",
          "1000000",
          "800000000000",
          "ffffffffffffffff",
        ])
      }`,
    ],
  },
  {
    name: "rsp",
    weight: 1,
    tokens: (r) => [`s.1d8=${hex(r.pick([0n, 7n, 0x40000000n, 0x800000000000n]))}`],
  },
  { name: "rax", weight: 1, tokens: (r) => [`s.1f8=${hex(r.u64())}`] },
  { name: "cpl", weight: 2, tokens: (r) => [`s.cb.1=${r.pick(["1", "3"])}`] },
  {
    name: "selector",
    weight: 1,
    tokens: (r) => [`s.${hex(0x10 * r.below(6))}.2=${hex(r.below(0x10000))}`],
  },
  {
    name: "dataseg",
    weight: 1,
    tokens: (r) => [`s.${r.pick(["2", "22", "32", "42", "52"])}.2=${hex(r.below(0x1000))}`],
  },
  {
    name: "limit",
    weight: 1,
    tokens: (
      r,
    ) => [`s.${r.pick(["4", "14", "24", "64", "84"])}.4=${hex(r.pick([0, 0xfff, 0xffff]))}`],
  },
  {
    name: "base",
    weight: 1,
    tokens: (
      r,
    ) => [
      `s.${r.pick(["8", "18", "28", "48", "58", "68", "88"])}=${
        hex(r.pick([0x1000n, 0x100000000n]))
      }`,
    ],
  },
  {
    name: "tr",
    weight: 1,
    tokens: (r) => [`s.${r.pick(["72", "92"])}.2=${hex(r.pick([0, 0x82, 0x83, 0x8b, 0x89]))}`],
  },
  {
    name: "gpat",
    weight: 2,
    tokens: (r) => [`s.268=${r.pick(["0", "7040600070402", "606060606060606", "ff"])}`],
  },
  {
    name: "dbgctl",
    weight: 1,
    tokens: (r) => [`s.270=${r.pick(["1", "2", "3f", "ffffffffffffffff"])}`],
  },
  { name: "cr2", weight: 1, tokens: (r) => [`s.240=${hex(r.u64())}`] },
  {
    name: "msrs",
    weight: 1,
    tokens: (
      r,
    ) => [`s.${r.pick(["200", "208", "210", "218", "220", "228", "230", "238"])}=${hex(r.u64())}`],
  },

  // L1.
  { name: "gif0", weight: 7, tokens: () => ["gif=0"] },
  {
    name: "l1rflags",
    weight: 3,
    tokens: (r) => [`rflags=${r.pick(["202", "102", "3002", "10002"])}`],
  },
  {
    name: "l1cr0",
    weight: 2,
    tokens: (r) => [`cr0=${r.pick(["80010011", "80000031", "80050033", "c0000011"])}`],
  },
  {
    name: "l1cr4",
    weight: 2,
    tokens: (r) => [`cr4=${r.pick(["6a0", "a0", "10020", "100020", "200020", "60"])}`],
  },
  {
    name: "l1efer",
    weight: 2,
    tokens: (r) => [`efer=${r.pick(["1501", "1d00", "5500", "500", "1d01"])}`],
  },
  {
    name: "hsave",
    weight: 1,
    tokens: (r) => [`hsave=${r.pick(["0", "21000", "fff000", "1000000"])}`],
  },
  {
    name: "l1rax",
    weight: 2,
    tokens: (
      r,
    ) => [
      `rax=${
        r.pick(["10001", "10800", "fff000", "1000000", "8000000", "fffffff000", "10000000000"])
      }`,
    ],
  },
  { name: "l1pae", weight: 4, tokens: (r) => r.chance(50) ? ["l1pae", ...PAE_L2] : ["l1pae"] },
  { name: "nmi", weight: 1, tokens: () => ["nmi=1", word3(2)] },
  { name: "nmigif0", weight: 1, tokens: () => ["nmi=1", "gif=0", word3(2)] },
  {
    name: "irq",
    weight: 1,
    tokens: (r) => [`irq=${hex(r.pick([0x20, 0x80]))}`, word3(1), `rflags=${r.pick(["2", "202"])}`],
  },

  // What L2 does.
  {
    name: "insn",
    weight: 8,
    tokens: (r) => {
      const [bytes, word, bit] = r.pick(INTERCEPTED);
      const clock = CLOCKS.includes(bytes[1] ?? 0);
      if (!clock && r.chance(25)) return code(...bytes, 0x0f, 0x01, 0xd9);
      return [...code(...bytes), word === 3 ? word3(1 << bit) : word4(1 << bit)];
    },
  },
  {
    name: "movcr",
    weight: 4,
    tokens: (r) => {
      const cr = r.pick([0, 2, 3, 4]);
      const write = r.chance(50);
      const gpr = r.pick([0, 1, 3, 6]);
      const bits = 1 << (write ? 16 + cr : cr) >>> 0;
      const bytes = [0x0f, write ? 0x22 : 0x20, 0xc0 | cr << 3 | gpr, 0x0f, 0x01, 0xd9];
      return [...code(...bytes), ...(write || r.chance(80) ? [`c.0.4=${hex(bits)}`] : [])];
    },
  },
  {
    name: "movdr",
    weight: 2,
    tokens: (r) => {
      const dr = r.pick([0, 1, 3, 6, 7]);
      const write = r.chance(50);
      const bits = 1 << (write ? 16 + dr : dr) >>> 0;
      return [
        ...code(0x0f, write ? 0x23 : 0x21, 0xc0 | dr << 3 | r.pick([0, 3])),
        `c.4.4=${hex(bits)}`,
      ];
    },
  },
  {
    name: "port",
    weight: 4,
    tokens: (r) => {
      const port = r.pick([0x10, 0x70, 0x81, 0xff]);
      const opcode = r.pick([0xe6, 0xe7, 0xe4, 0xe5]);
      const size = opcode & 1 ? 4 : 1;
      const on = port + r.below(size);
      const mapped = r.chance(75);
      const bit = mapped ? [`m.${hex(IOPM_GPA + (on >> 3))}.1=${hex(1 << (on & 7))}`] : [];
      return [...code(opcode, port, 0x0f, 0x01, 0xd9), word3(1 << 27), ...bit];
    },
  },
  {
    name: "msr",
    weight: 3,
    tokens: (r) => {
      const write = r.chance(50);
      const bits = r.pick([0, 1, 2, 3]);
      return [
        ...code(0x0f, write ? 0x30 : 0x32),
        ...(bits ? [`m.${hex(MSRPM_GPA)}.1=${hex(bits)}`] : []),
      ];
    },
  },
  {
    name: "msrmap",
    weight: 2,
    tokens: (r) => {
      const [first, at] = r.pick([[0, 0], [0xc0000000, 0x800], [0xc0010000, 0x1000]] as const);
      const index = r.pick([0x10, 0x1b, 0x80, 0x82, 0x103, 0x114, 0x117, 0x174, 0x277]);
      const msr = (first + index) >>> 0;
      const bit = 2 * index + (r.chance(50) ? 1 : 0);
      const bytes = [0xb9, msr & 0xff, msr >>> 8 & 0xff, msr >>> 16 & 0xff, msr >>> 24];
      const map = `m.${hex(MSRPM_GPA + at + (bit >> 3))}.1=${hex(1 << (bit & 7))}`;
      return [...code(...bytes, 0x0f, bit & 1 ? 0x30 : 0x32), map];
    },
  },
  {
    name: "fault",
    weight: 4,
    tokens: (r) => {
      const [bytes, vector] = r.pick(FAULTS);
      const caught = r.pick([vector, vector, 8, undefined]);
      return [...code(...bytes), ...(caught === undefined ? [] : [`c.8.4=${hex(1 << caught)}`])];
    },
  },
  {
    name: "userio",
    weight: 1,
    tokens: (r) => [...code(0xef), "c.8.4=2000", `s.cb.1=${r.pick(["0", "3"])}`],
  },

  // Page tables: L2's, and the nested ones.
  {
    name: "l2pt",
    weight: 3,
    tokens: (r) => {
      const at = r.pick([L2_TABLES, L2_TABLES + 0x1000, L2_TABLES + 0x2000]);
      const good = at === L2_TABLES + 0x2000 ? 0x87n : BigInt(at + 0x1007);
      return [`m.${hex(at)}=${hex(flip(r, good))}`, ...r.pick([["c.8.4=4000"], []])];
    },
  },
  {
    name: "nptpt",
    weight: 3,
    tokens: (r) => {
      const at = r.pick([NPT_TABLES, NPT_TABLES + 0x1000, NPT_TABLES + 0x2000]);
      const good = at === NPT_TABLES + 0x2000 ? 0x87n : BigInt(at + 0x1007);
      return [...NPT_ON, `m.${hex(at)}=${hex(flip(r, good))}`];
    },
  },

  // Only one way in.
  {
    name: "hefer",
    weight: 3,
    entry: "setstate",
    tokens: (r) => [`xh.d0=${hex(flip(r, 0x1500n))}`],
  },
  {
    name: "hcr0",
    weight: 3,
    entry: "setstate",
    tokens: (r) => [`xh.158=${hex(flip(r, 0x80000011n))}`],
  },
  { name: "hcr4", weight: 3, entry: "setstate", tokens: (r) => [`xh.148=${hex(flip(r, 0x20n))}`] },
  {
    name: "hcr3",
    weight: 2,
    entry: "setstate",
    tokens: (r) => [`xh.150=${hex(flip(r, 0x1000n))}`],
  },
  {
    name: "hrflags",
    weight: 2,
    entry: "setstate",
    tokens: (r) => [`xh.170=${r.pick(["0", "202", "102", "20002"])}`],
  },
  {
    name: "hdr",
    weight: 1,
    entry: "setstate",
    tokens: (r) =>
      r.chance(50) ? [`xh.168=${hex(flip(r, 0xffff0ff0n))}`] : [`xh.160=${hex(flip(r, 0x400n))}`],
  },
  {
    name: "hsavecr",
    weight: 3,
    entry: "rsm",
    tokens: (
      r,
    ) => [
      r.pick([
        `xh.158=${r.pick(["11", "80000031", "a0000011"])}`,
        `xh.148=${r.pick(["620", "6a0"])}`,
        `xh.150=${r.pick(["40000", "1000000"])}`,
      ]),
    ],
  },
  {
    name: "hsaveefer",
    weight: 2,
    entry: "rsm",
    tokens: (r) => [`xh.d0=${r.pick(["500", "1501", "0", "1000"])}`],
  },
  {
    name: "hsaverip",
    weight: 1,
    entry: "rsm",
    tokens: (
      r,
    ) => [`xh.178=${r.pick(["8003", "8000", "9000"])}`, `xh.1f8=${r.pick(["10000", "11000"])}`],
  },
  {
    name: "smramefer",
    weight: 2,
    entry: "rsm",
    tokens: (r) => [`xr.d0=${hex(r.pick([0x500n, flip(r, 0x1500n, [13])]))}`],
  },
  {
    name: "smramcr",
    weight: 2,
    entry: "rsm",
    tokens: (
      r,
    ) => [
      r.pick([
        `xr.158=${hex(flip(r, 0x80000031n))}`,
        `xr.148=${hex(flip(r, 0x20n))}`,
        `xr.150=${hex(flip(r, BigInt(L2_TABLES)))}`,
      ]),
    ],
  },
  {
    name: "smramguest",
    weight: 1,
    entry: "rsm",
    tokens: (r) => [r.pick(["xr.d8=0", "xr.e0=11000", "xr.e0=1000000", "xr.e0=10001"])],
  },
  {
    name: "smramrip",
    weight: 1,
    entry: "rsm",
    tokens: (r) => [`xr.178=${r.pick(["9000", "8003", "800000000000"])}`],
  },
];
