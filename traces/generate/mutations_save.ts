/**
 * Changes of the save area: what its checks read, and what is loaded into L2
 * without one.
 *
 * @module
 */
import { L2_TABLES, PAE_TABLES } from "../scenarios/base.ts";
import { EDGES, flip, hex, type Mutation, PAE_L2 } from "./mutation.ts";
import type { Random } from "./random.ts";

/** One bit of 64. */
function anyBit(random: Random): bigint {
  return 1n << BigInt(random.below(64));
}

/** Changes of the save area. */
export const SAVE_MUTATIONS: readonly Mutation[] = [
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
  { name: "l2pae", weight: 5, tokens: () => [...PAE_L2] },
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
];
