import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { stateOf } from "../codecs/lab/views.ts";
import {
  executableRuns,
  isBackInL1,
  monitorSection,
  type PagingMode,
  parseMemoryMap,
  TimeShare,
  translateLinear,
  VcpuView,
} from "../traces/qemu/mod.ts";

/** Physical memory of 64-bit words. */
class Memory {
  readonly #words = new Map<bigint, bigint>();

  set(address: bigint, value: bigint): void {
    this.#words.set(address, value);
  }

  readonly read = (address: bigint, length: number): Promise<Uint8Array> => {
    const first = address & ~7n;
    const words = new BigUint64Array(Math.ceil(length / 8) + 1);
    for (const i of words.keys()) words[i] = this.#words.get(first + 8n * BigInt(i)) ?? 0n;
    const skip = Number(address - first);
    const bytes = new Uint8Array(words.buffer).slice(skip, skip + length);
    return Promise.resolve(bytes);
  };
}

/** The linear addresses at which a page is executable. */
async function mapped(mode: PagingMode, page: bigint, memory: Memory): Promise<bigint[]> {
  const out: bigint[] = [];
  for await (const run of executableRuns(mode, memory.read, { user: true })) {
    const inside = page - run.physical;
    if (inside >= 0n && inside < run.size) out.push(run.linear + inside);
  }
  return out;
}

const LONG = { cr0: 0x80000011n, cr3: 0x1000n, cr4: 0x20n, efer: 0xd00n };
const NX = 1n << 63n;

Deno.test("a page mapped anywhere by four levels is found at its linear address", async () => {
  await fc.assert(fc.asyncProperty(
    fc.tuple(fc.nat(511), fc.nat(511), fc.nat(511), fc.nat(511)),
    fc.integer({ min: 0x100, max: 0xfffff }),
    async ([a, b, c, d], frame) => {
      const memory = new Memory();
      const physical = BigInt(frame) << 12n;
      memory.set(0x1000n + 8n * BigInt(a), 0x2007n);
      memory.set(0x2000n + 8n * BigInt(b), 0x3007n);
      memory.set(0x3000n + 8n * BigInt(c), 0x4007n);
      memory.set(0x4000n + 8n * BigInt(d), physical | 7n);
      const low = BigInt(a) << 39n | BigInt(b) << 30n | BigInt(c) << 21n | BigInt(d) << 12n;
      const linear = a > 255 ? low | 0xffffn << 48n : low;
      assertEquals(await mapped(LONG, physical, memory), [linear]);
      assertEquals(await mapped(LONG, physical + 0x1000n, memory), []);
      assertEquals(await translateLinear(LONG, linear + 5n, memory.read), physical + 5n);
      assertEquals(await translateLinear(LONG, linear ^ 0x1000n, memory.read), undefined);
    },
  ));
});

Deno.test("large pages count, absent and non-executable ones do not", async () => {
  const memory = new Memory();
  memory.set(0x1000n, 0x2007n);
  memory.set(0x2000n, 0x3007n);
  memory.set(0x2008n, 0x40000000n | 0x87n); // 1 GiB at 1 GiB
  memory.set(0x2010n, 0x40000000n | 0x87n | NX);
  memory.set(0x3008n, 0x40200000n | 0x87n); // 2 MiB
  memory.set(0x3010n, 0x40200000n | 0x86n); // not present
  // From the top of the address space to its bottom.
  assertEquals(await mapped(LONG, 0x40201000n, memory), [0x40201000n, 0x201000n]);
  const noNx = await mapped({ ...LONG, efer: 0x500n }, 0x40201000n, memory);
  assertEquals(noNx, [0x80201000n, 0x40201000n, 0x201000n]);
  assertEquals(await translateLinear(LONG, 0x40201234n, memory.read), 0x40201234n);
  assertEquals(await translateLinear(LONG, 0x201234n, memory.read), 0x40201234n);
});

Deno.test("PAE and two-level tables are walked in their own way", async () => {
  const pae = new Memory();
  pae.set(0x1008n, 0x2001n);
  pae.set(0x2000n, 0x5000_0083n);
  const mode = { cr0: 0x80000011n, cr3: 0x1000n, cr4: 0x20n, efer: 0n };
  assertEquals(await mapped(mode, 0x50001000n, pae), [0x40001000n]);
  assertEquals(await translateLinear(mode, 0x40001000n, pae.read), 0x50001000n);
  const two = new Memory();
  two.set(0x1000n, 0x00400083n << 32n); // entry 1: 4 MiB
  assertEquals(await mapped({ ...mode, cr4: 0x10n }, 0x401000n, two), [0x401000n]);
  assertEquals(await translateLinear({ ...mode, cr4: 0x10n }, 0x401000n, two.read), 0x401000n);
  const off = { ...mode, cr0: 1n };
  assertEquals(await mapped(off, 0x5000n, two), [0x5000n]);
});

Deno.test("tables that point at themselves end", async () => {
  const memory = new Memory();
  for (let i = 0n; i < 512n; i++) memory.set(0x1000n + 8n * i, 0x1007n);
  let tables = 0;
  const read = (at: bigint, length: number) => {
    tables++;
    return memory.read(at, length);
  };
  for await (const _ of executableRuns(LONG, read, { user: true })) { /* until it ends */ }
  assert(tables < 30_000, `${tables} tables`);
});

Deno.test("what user mode may execute is left for later, and no table is walked twice", async () => {
  const memory = new Memory();
  memory.set(0x1000n, 0x2007n); // open to user mode
  memory.set(0x2000n, 0x87n);
  memory.set(0x1ff8n, 0x3003n); // the kernel's
  memory.set(0x3000n, 0x40000087n);
  const visited = new Set<string>();
  const walk = (user: boolean, seen = new Set<string>()) =>
    Array.fromAsync(
      executableRuns(LONG, memory.read, { user, visited: seen }),
      (run) => run.linear,
    );
  assertEquals(await walk(false, visited), [0xffffff80_00000000n]);
  assertEquals(await walk(false, visited), []);
  assertEquals(await walk(true), [0xffffff80_00000000n, 0n]);
});

Deno.test("a search takes a tenth of the time that passes, and little more", () => {
  fc.assert(fc.property(fc.array(fc.nat(200), { maxLength: 60 }), (overshoots) => {
    let now = 0;
    let longest = 0;
    const share = new TimeShare(() => now);
    for (const overshoot of overshoots) {
      const taken = share.allowance() + overshoot;
      longest = Math.max(longest, taken);
      now += taken;
      share.spend(taken);
      now += share.pause();
      assert(share.spent <= 0.1 * now + 50, `${share.spent} of ${now}`);
    }
    assert(longest <= 700);
  }));
});

const REGISTERS = `
CPU#0
RAX=0000000000010000 RBX=0000000000000000 RCX=0000000000000000 RDX=0000000000000000
RIP=0000000000008003 RFL=00000046 [---Z-P-] CPL=0 II=0 A20=1 SMM=0 HLT=0
ES =0010 0000000000000000 ffffffff 00cf9300 DPL=0 DS   [-WA]
CS =0008 0000000000000000 ffffffff 00af9b00 DPL=0 CS64 [-RA]
LDT=0000 0000000000000000 0000ffff 00008200 DPL=0 LDT
GDT=     0000000000001000 0000ffff
DR0=0000000000000000 DR1=0000000000000000 DR2=0000000000000000 DR3=0000000000000000
DR6=00000000ffff0ff0 DR7=0000000000000400

CPU#1
EAX=00000001 EBX=00000000 ECX=00000000 EDX=00000000
EIP=0000fff0 EFL=00000002 [-------] CPL=0 II=0 A20=1 SMM=1 HLT=1
CS =f000 ffff0000 0000ffff 00009b00
`;

Deno.test("the monitor's registers become fields, of the right vCPU; what is not shown stays unknown", () => {
  const view = new VcpuView().addMonitor(monitorSection(REGISTERS, 0));
  assertEquals(view.get("cs_attrib"), 0xa9bn);
  assertEquals(view.get("ldtr_attrib"), 0x82n);
  assertEquals(view.get("gdtr_base"), 0x1000n);
  assertEquals(view.get("rflags"), 0x46n);
  assertEquals(view.get("dr7"), 0x400n);
  assertEquals(view.get("gif"), undefined);
  const other = new VcpuView().addMonitor(monitorSection(REGISTERS, 1));
  assertEquals([other.get("cs_base"), other.get("smm")], [0xffff0000n, 1n]);
  assertEquals(monitorSection(REGISTERS, 2), "");
  const { bytes, known } = new VcpuView().set("gif", 1n).image();
  assertEquals(known!.reduce((sum, mask) => sum + mask, 0), 0xff);
  assertEquals(bytes.reduce((sum, byte) => sum + byte, 0), 1);
  assertEquals(stateOf(view.image()).cs, "8/1/0");
  assertEquals(stateOf(view.image()).gif, undefined);
});

Deno.test("memory is where the guest's processors see it, not its devices", () => {
  const text = `FlatView #0
 AS "I/O", root: io
  0000000000000000-0000000000000007 (prio 0, ram): never
FlatView #1
 AS "memory", root: system
 AS "cpu-memory-0", root: system
  0000000000000000-000000000009ffff (prio 0, ram): pc.ram
  00000000000a0000-00000000000bffff (prio 1, i/o): vga
  00000000000f0000-00000000000fffff (prio 0, rom): pc.bios
  0000000000100000-0000000000ffffff (prio 0, ram): pc.ram
`;
  assertEquals(parseMemoryMap(text).map(({ start, end }) => [start, end]), [
    [0n, 0xa0000n],
    [0xf0000n, 0x1000000n],
  ]);
  assertEquals(parseMemoryMap("unknown command: 'info mtree -f'"), []);
});

Deno.test("the instruction after VMRUN is L1's only with L1's registers, or after vmcb12 was written", () => {
  const at = (rip: bigint, cr3: bigint) => new VcpuView().set("rip", rip).set("cr3", cr3);
  const vmcb12 = new Uint8Array(4096);
  const pending = { site: 0x8000n, l1: at(0x8000n, 0x1000n), vmcb12Gpa: 0x10000n, vmcb12 };
  assert(isBackInL1(pending, at(0x8003n, 0x1000n), vmcb12));
  assert(!isBackInL1(pending, at(0x8003n, 0x40000n), vmcb12), "another CR3");
  assert(!isBackInL1(pending, at(0x8000n, 0x1000n), vmcb12), "still before it");
  // An L2 that was started with L1's registers, at that very address.
  const same = vmcb12.slice();
  new DataView(same.buffer).setBigUint64(0x578, 0x8003n, true);
  const twin = { ...pending, vmcb12: same };
  assert(!isBackInL1(twin, at(0x8003n, 0x1000n), same), "nothing was written");
  const written = same.slice();
  written[0x70] = 0x81;
  assert(isBackInL1(twin, at(0x8003n, 0x1000n), written));
});
