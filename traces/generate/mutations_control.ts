/**
 * Changes of the control area: what its checks read, and every type of EVENTINJ.
 *
 * @module
 */
import { IOPM_GPA, MSRPM_GPA, NPT_TABLES } from "../scenarios/base.ts";
import {
  EDGES,
  flip,
  flip32,
  hex,
  type Mutation,
  NPT_ON,
  WORD3,
  word3,
  WORD4,
} from "./mutation.ts";
import type { Random } from "./random.ts";

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

/** Changes of the control area. */
export const CONTROL_MUTATIONS: readonly Mutation[] = [
  { name: "vmrun0", weight: 3, tokens: () => ["c.10.4=2"] },
  { name: "asid0", weight: 6, tokens: () => ["c.58.4=0"] },
  {
    name: "asid",
    weight: 1,
    tokens: (r) => [`c.58.4=${hex(r.pick([2, 0xffff, 0x10000, 0xffffffff]))}`],
  },
  { name: "npt", weight: 8, tokens: () => [...NPT_ON] },
  {
    name: "nestedctl",
    weight: 3,
    tokens: (r) => [`c.90=${hex(flip(r, r.pick([0n, 1n])))}`, NPT_ON[1]],
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
];
