/**
 * Changes of L1, on whose state VMRUN and the exit from L2 depend as well.
 *
 * @module
 */
import { hex, type Mutation, PAE_L2, word3 } from "./mutation.ts";

/** Changes of L1. */
export const L1_MUTATIONS: readonly Mutation[] = [
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
];
