import { assertEquals } from "@std/assert";
import { LINUX_6_1, LINUX_6_12, LINUX_7_3, type Policy } from "../engine/mod.ts";
import { Emulator } from "../traces/scenarios/emulator.ts";
import { parseScenario } from "../traces/scenarios/scenario_reader.ts";

/** What real kernels did, asked in the lab: L2 runs the code, then VMMCALL. */
interface Case {
  readonly code: string;
  /** Changes beside the code. */
  readonly with?: string;
  /** RAX at the VMMCALL; `#GP` or `#UD` where that ended L2; else the exit of KVM_RUN. */
  readonly gives: string;
  /** The kernels that it is said of; all when left out. */
  readonly of?: readonly Policy[];
}

const RDMSR = "0f32 48c1e220 4809d0";

function mov(msr: number): string {
  return `b9${bytes(msr)}`;
}

function bytes(value: number): string {
  return [0, 8, 16, 24].map((at) => (value >>> at & 0xff).toString(16).padStart(2, "0")).join("");
}

const read = (msr: number) => `${mov(msr)} ${RDMSR}`;
const write = (msr: number, value: number) => `${mov(msr)} b8${bytes(value)} 31d2 0f30 ${RDMSR}`;
const cpuid = (leaf: number, index = 0) => `b8${bytes(leaf)} b9${bytes(index)} 0fa2`;

const OSXSAVE = "s.148=40020";
const xgetbv = "31c9 0f01d0 48c1e220 4809d0";
const xsetbv = (value: number) => `31c9 31d2 b8${bytes(value)} 0f01d1`;

const OLD = [LINUX_6_1, LINUX_6_12];
const NEW = [LINUX_6_12, LINUX_7_3];

const CASES: readonly Case[] = [
  { code: read(0x1b), gives: "fee00900" },
  { code: read(0x277), gives: "7040600070406" },
  { code: read(0xfe), gives: "508" },
  { code: read(0x8b), gives: "1000065" },
  { code: read(0x48), gives: "#GP" },
  { code: read(0x802), gives: "#GP" },
  { code: write(0x10, 0x1000), gives: "1000" },
  { code: write(0x10, 0x1000), with: "c.50=100", gives: "1100" },
  { code: write(0x1b, 0xfee00100), gives: "fee00100" },
  { code: write(0x1b, 0xfee00400), gives: "#GP" },
  { code: write(0x200, 0x6), gives: "6" },
  { code: write(0x200, 0x2), gives: "#GP" },
  { code: write(0x2ff, 0xc00), gives: "c00" },
  { code: write(0x277, 0x06060606), gives: "6060606" },
  { code: write(0x277, 0x2), gives: "#GP" },
  { code: write(0x1d9, 1), gives: "0" },
  { code: write(0x6e0, 1), gives: "0" },
  { code: write(0xc0000103, 7), gives: "7" },
  { code: write(0x401, 1), gives: "#GP" },
  { code: `${write(0xc0010015, 1 << 18)} ${write(0x401, 1)}`, gives: "1" },
  {
    code: `${write(0xc0010015, 1 << 18)} ${write(0xc0010015, 0)}`,
    gives: "40000",
    of: [LINUX_6_1],
  },
  { code: `${write(0xc0010015, 1 << 18)} ${write(0xc0010015, 0)}`, gives: "0", of: NEW },
  { code: write(0xc0010015, 1 << 24), gives: "#GP", of: [LINUX_6_1] },
  { code: write(0xc0011029, 0), gives: "#GP", of: [LINUX_6_1] },
  { code: write(0xc0011029, 0), gives: "0", of: NEW },
  { code: write(0xc0010114, 0x10), gives: "#GP" },
  { code: `${mov(0x79)} 0f30 31c0`, gives: "0" },
  { code: read(0x79), gives: "#GP" },
  { code: cpuid(0x80000000), gives: "8000000a" },
  { code: `${cpuid(1)} 89c8`, gives: "76f83203", of: OLD },
  { code: `${cpuid(1)} 89c8`, gives: "f7f83203", of: [LINUX_7_3] },
  { code: `${cpuid(1)} 89c8`, with: "s.148=40020", gives: "7ef83203", of: OLD },
  { code: `${cpuid(0x8000000a)} 89d0`, gives: "10010021", of: [LINUX_6_1] },
  { code: `${cpuid(0x40000000)} 89d8`, gives: "4b4d564b" },
  { code: cpuid(0xd, 2), gives: "100" },
  { code: `${cpuid(0x12345678)} 09d8`, gives: "0" },
  { code: xgetbv, with: OSXSAVE, gives: "1" },
  { code: xgetbv, gives: "#UD" },
  { code: `${xsetbv(0x203)} ${xgetbv}`, with: OSXSAVE, gives: "203" },
  { code: `${xsetbv(5)} ${xgetbv}`, with: OSXSAVE, gives: "#GP" },
  { code: `${xsetbv(0xf)} ${xgetbv}`, with: OSXSAVE, gives: "#GP" },
  { code: "f3480faed0 31c0 f3480faec0", with: "s.148=10020", gives: "1234" },
  { code: "f3480faec0", gives: "#UD" },
  { code: "f30fc7f8", gives: "#UD" },
  { code: "0f33", gives: "0", of: [LINUX_6_1] },
  { code: "0f33", gives: "#GP", of: NEW },
  { code: read(0xc0010130), gives: "0", of: OLD },
  { code: read(0xc0010130), gives: "#GP", of: [LINUX_7_3] },
  { code: "0f01c1", gives: "1234" },
  { code: "0f01c1", with: "c.10.4=1", gives: "#UD", of: NEW },
  { code: "0f01c1", with: "c.10.4=1", gives: "exit 10", of: [LINUX_6_1] },
  { code: `${mov(0xc0000080)} b800050000 31d2 0f30 e682`, gives: "exit 10", of: OLD },
  { code: `${mov(0xc0000080)} b800050000 31d2 0f30 e682`, gives: "exit 8", of: [LINUX_7_3] },
];

function specOf({ code, with: more = "" }: Case): string {
  const digits = `${code} 0f01d9`.replaceAll(" ", "").match(/../g) ?? [];
  return digits.map((byte, i) => `m.${(0x9000 + i).toString(16)}.1=${byte}`).join(" ") + ` ${more}`;
}

function outcome(policy: Policy, test: Case): string {
  const { post, events } = new Emulator(policy, { npt: true })
    .run(parseScenario(`case ${specOf(test)}`));
  const missed = events.find((event) => "unmodelled" in event);
  if (missed !== undefined) return JSON.stringify(missed);
  const word = (at: string) => parseInt(post?.vmcb12?.[at] ?? "0", 16);
  if (word("070") === 0x81) return BigInt(`0x${post?.vmcb12?.["5f8"] ?? "0"}`).toString(16);
  if (word("070") === 0x7f) return (word("088") & 0xff) === 6 ? "#UD" : "#GP";
  return `exit ${post?.exit}`;
}

for (const policy of [LINUX_6_1, LINUX_6_12, LINUX_7_3]) {
  Deno.test(`L2 sees of its processor what ${policy.name} shows it`, () => {
    for (const test of CASES) {
      if (test.of !== undefined && !test.of.includes(policy)) continue;
      assertEquals(outcome(policy, test), test.gives, `${test.code} ${test.with ?? ""}`);
    }
  });
}
