/**
 * Changes of what L2 does: its first instructions, what of them is intercepted,
 * and the tables that they go through.
 *
 * @module
 */
import { IOPM_GPA, L2_TABLES, MSRPM_GPA, NPT_TABLES } from "../scenarios/base.ts";
import { flip, hex, type Mutation, NPT_ON, word3, word4 } from "./mutation.ts";

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

/** Changes of what L2 does. */
export const L2_MUTATIONS: readonly Mutation[] = [
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
];
