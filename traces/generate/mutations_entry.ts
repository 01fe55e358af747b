/**
 * Changes that only one way in knows: the registers that come with nested state
 * from userspace, and what the SMI handler finds in memory.
 *
 * @module
 */
import { L2_TABLES } from "../scenarios/base.ts";
import { flip, hex, type Mutation, WORD3, word3 } from "./mutation.ts";

/** Ways in that hand nested state to the kernel. */
const RESTORED = ["setstate", "migrate"] as const;
/** Ways in on which something can happen while L2 is stopped. */
const STOPPED = ["mid", "migrate"] as const;

/** Changes for one way in. */
export const ENTRY_MUTATIONS: readonly Mutation[] = [
  {
    name: "hefer",
    weight: 3,
    entries: RESTORED,
    tokens: (r) => [`xh.d0=${hex(flip(r, 0x1500n))}`],
  },
  {
    name: "hcr0",
    weight: 3,
    entries: RESTORED,
    tokens: (r) => [`xh.158=${hex(flip(r, 0x80000011n))}`],
  },
  { name: "hcr4", weight: 3, entries: RESTORED, tokens: (r) => [`xh.148=${hex(flip(r, 0x20n))}`] },
  {
    name: "hcr3",
    weight: 2,
    entries: RESTORED,
    tokens: (r) => [`xh.150=${hex(flip(r, 0x1000n))}`],
  },
  {
    name: "hrflags",
    weight: 2,
    entries: RESTORED,
    tokens: (r) => [`xh.170=${r.pick(["0", "202", "102", "20002"])}`],
  },
  {
    name: "hdr",
    weight: 1,
    entries: RESTORED,
    tokens: (r) =>
      r.chance(50) ? [`xh.168=${hex(flip(r, 0xffff0ff0n))}`] : [`xh.160=${hex(flip(r, 0x400n))}`],
  },
  {
    name: "hsavecr",
    weight: 3,
    entries: ["rsm"],
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
    entries: ["rsm"],
    tokens: (r) => [`xh.d0=${r.pick(["500", "1501", "0", "1000"])}`],
  },
  {
    name: "hsaverip",
    weight: 1,
    entries: ["rsm"],
    tokens: (
      r,
    ) => [`xh.178=${r.pick(["8003", "8000", "9000"])}`, `xh.1f8=${r.pick(["10000", "11000"])}`],
  },
  {
    name: "smramefer",
    weight: 2,
    entries: ["rsm"],
    tokens: (r) => [`xr.d0=${hex(r.pick([0x500n, flip(r, 0x1500n, [13])]))}`],
  },
  {
    name: "smramcr",
    weight: 2,
    entries: ["rsm"],
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
    entries: ["rsm"],
    tokens: (r) => [r.pick(["xr.d8=0", "xr.e0=11000", "xr.e0=1000000", "xr.e0=10001"])],
  },
  {
    name: "smramrip",
    weight: 1,
    entries: ["rsm"],
    tokens: (r) => [`xr.178=${r.pick(["9000", "8003", "800000000000"])}`],
  },
  { name: "pending", weight: 6, entries: RESTORED, tokens: () => ["pending=1"] },
  {
    name: "midnmi",
    weight: 6,
    entries: STOPPED,
    tokens: (r) => ["midnmi=1", ...r.chance(60) ? [word3(r.pick([0, 1, 2, 3]))] : []],
  },
  {
    name: "midirq",
    weight: 8,
    entries: STOPPED,
    tokens: (r) => [
      `midirq=${hex(r.pick([0x20, 0x30, 0x80, 0xff]))}`,
      ...r.chance(60) ? [word3(r.pick([0, 1, 2, 3, 0x11]))] : [],
      ...r.chance(60) ? ["s.170=202"] : [],
    ],
  },
  {
    name: "midmask",
    weight: 5,
    entries: STOPPED,
    tokens: (r) => [
      // V_INTR_MASKING, also with a virtual GIF, or a virtual interrupt that waits.
      `c.60.4=${r.pick(["1000000", "3000200", "3000000", "1000100", "2000200"])}`,
      ...r.chance(40) ? [`c.64.4=${hex(r.pick([0x20, 0x40]))}`] : [],
      ...r.chance(40) ? ["rflags=202"] : [],
    ],
  },
  {
    name: "nstate",
    weight: 8,
    entries: ["migrate"],
    tokens: (r) => [
      r.pick([
        "xn.58.4=0",
        "xn.10.4=2",
        `xn.90.8=${r.pick(["1", "0"])}`,
        `xn.60.4=${r.pick(["0", "1000000", "1000100", "3000200", "3000000"])}`,
        `xn.48=${r.pick(["8000000", "fff000", "30008"])}`,
        `xn.40=${r.pick(["8000000", "fff000", "34008"])}`,
        `xn.5c.1=${r.pick(["1", "2", "3"])}`,
        `xn.68=${r.pick(["1", "2"])}`,
        `xn.c.4=${hex((WORD3 ^ r.pick([1 << 24, 1 << 28, 1, 2])) >>> 0)}`,
        `xn.a8=${r.pick(["80000020", "80000b0d", "80000306"])}`,
      ]),
    ],
  },
  {
    name: "midcode",
    weight: 4,
    entries: STOPPED,
    tokens: (r) => [
      `xm.9002=${r.pick(["f4", "f4fb", "f4fa", "d9010f", "0b0f", "cc", "f490909090", "f490fb"])}`,
    ],
  },
];
