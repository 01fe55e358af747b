import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import {
  findMappings,
  isBackInL1,
  labState,
  monitorSection,
  parseMemoryMap,
  VcpuView,
} from "../traces/qemu/mod.ts";

/** Physical memory of 64-bit words. */
class Memory {
  readonly #words = new Map<bigint, bigint>();

  set(address: bigint, value: bigint): void {
    this.#words.set(address, value);
  }

  readonly read = (address: bigint, length: number): Promise<Uint8Array> => {
    const bytes = new Uint8Array(length);
    const view = new DataView(bytes.buffer);
    for (let at = 0; at < length; at += 8) {
      view.setBigUint64(at, this.#words.get(address + BigInt(at)) ?? 0n, true);
    }
    return Promise.resolve(bytes);
  };
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
      assertEquals(await findMappings(LONG, new Set([physical]), memory.read), [
        { linear, physical },
      ]);
      assertEquals(await findMappings(LONG, new Set([physical + 0x1000n]), memory.read), []);
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
  const found = await findMappings(LONG, new Set([0x40201000n]), memory.read);
  assertEquals(found.map((m) => m.linear), [0x201000n, 0x40201000n]);
  const noNx = await findMappings({ ...LONG, efer: 0x500n }, new Set([0x40201000n]), memory.read);
  assertEquals(noNx.map((m) => m.linear), [0x201000n, 0x40201000n, 0x80201000n]);
});

Deno.test("PAE and two-level tables are walked in their own way", async () => {
  const pae = new Memory();
  pae.set(0x1008n, 0x2001n);
  pae.set(0x2000n, 0x5000_0083n);
  const mode = { cr0: 0x80000011n, cr3: 0x1000n, cr4: 0x20n, efer: 0n };
  assertEquals(await findMappings(mode, new Set([0x50001000n]), pae.read), [
    { linear: 0x40001000n, physical: 0x50001000n },
  ]);
  const two = new Memory();
  two.set(0x1000n, 0x00400083n << 32n); // entry 1: 4 MiB
  assertEquals(
    await findMappings({ ...mode, cr4: 0x10n }, new Set([0x401000n]), two.read),
    [{ linear: 0x401000n, physical: 0x401000n }],
  );
});

Deno.test("tables that point at themselves end", async () => {
  const memory = new Memory();
  for (let i = 0n; i < 512n; i++) memory.set(0x1000n + 8n * i, 0x1007n);
  const started = performance.now();
  await findMappings(LONG, new Set([0x9000n]), memory.read);
  assert(performance.now() - started < 20_000);
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
  assertEquals(labState(view, undefined).cs, "8/1/0");
  assertEquals(labState(view, undefined).gif, undefined);
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
