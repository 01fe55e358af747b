/**
 * Changes that only one way in knows: the registers that come with nested state
 * from userspace, and what the SMI handler finds in memory.
 *
 * @module
 */
import { L2_TABLES } from "../scenarios/base.ts";
import { flip, hex, type Mutation } from "./mutation.ts";

/** Changes for one way in. */
export const ENTRY_MUTATIONS: readonly Mutation[] = [
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
