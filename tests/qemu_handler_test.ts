import { assertEquals } from "@std/assert";
import fc from "fast-check";
import { C, S } from "../engine/svm/machine.ts";
import { HandlerFinder, injectsInterrupt, VcpuView } from "../traces/qemu/mod.ts";

/** 64 KiB of physical memory, and how often it was read. */
class Ram {
  readonly bytes = new Uint8Array(0x10000);
  readonly view = new DataView(this.bytes.buffer);
  reads = 0;

  readonly read = (at: bigint, length: number): Promise<Uint8Array | undefined> => {
    this.reads++;
    const start = Number(at);
    return Promise.resolve(
      start + length <= this.bytes.length ? this.bytes.slice(start, start + length) : undefined,
    );
  };
}

const PG = 0x80000001n, LONG_EFER = 0x1500n, PAE = 0x20n;
const L1 = new VcpuView().set("cr4", PAE).set("efer", LONG_EFER);

/** A vmcb12 that injects an interrupt. */
function vmcb(vector: number, words: readonly (readonly [number, bigint])[]): Uint8Array {
  const bytes = new Uint8Array(4096);
  const view = new DataView(bytes.buffer);
  view.setUint32(C.event_inj, 0x80000000 | vector, true);
  for (const [at, value] of words) view.setBigUint64(at, value, true);
  return bytes;
}

Deno.test("L2's handler is found in each of its modes, with and without nested paging", async () => {
  await fc.assert(fc.asyncProperty(
    fc.nat(255),
    fc.bigInt(0n, 0xffff_ffff_ffff_ffffn),
    fc.boolean(),
    async (vector, offset, nested) => {
      const ram = new Ram();
      // Gates at 0x8000 of L2's memory, which is 0x8000 of L1's, or with nested paging 0x9000.
      const gates = nested ? 0x9000 : 0x8000;
      ram.view.setBigUint64(0x1000, 0x2007n, true);
      ram.view.setBigUint64(0x2000, 0x3007n, true);
      ram.view.setBigUint64(0x3000, 0x4007n, true);
      for (let page = 0n; page < 16n; page++) {
        const to = page === 8n ? 9n : page;
        ram.view.setBigUint64(Number(0x4000n + 8n * page), to << 12n | 7n, true);
      }
      // L2's own tables: identity, one page of 1 GiB.
      ram.view.setBigUint64(0x5000, 0x6007n, true);
      ram.view.setBigUint64(0x6000, 0x87n, true);
      const nesting: [number, bigint][] = nested
        ? [[C.nested_ctl, 1n], [C.nested_cr3, 0x1000n]]
        : [];
      const long = vmcb(vector, [
        ...nesting,
        ...[[S.cr0, PG], [S.cr3, 0x5000n], [S.cr4, PAE], [S.efer, LONG_EFER]] as const,
        [S.idtr_base, 0x8000n],
      ]);
      const gate = gates + 16 * vector;
      ram.view.setUint16(gate, Number(offset & 0xffffn), true);
      ram.view.setUint8(gate + 5, 0x8e);
      ram.view.setUint16(gate + 6, Number(offset >> 16n & 0xffffn), true);
      ram.view.setUint32(gate + 8, Number(offset >> 32n), true);
      const finder = new HandlerFinder(ram.read);
      assertEquals(await finder.find(long, L1), offset);
      // Once found it is not looked for again.
      const { reads } = ram;
      assertEquals(await finder.find(long, L1), offset);
      assertEquals(ram.reads, reads);

      const flat = vmcb(vector, [...nesting, [S.cr0, 1n], [S.idtr_base, 0x8000n]]);
      ram.view.setBigUint64(gates + 8 * vector, 0n, true);
      ram.view.setUint16(gates + 8 * vector, 0x1234, true);
      ram.view.setUint16(gates + 8 * vector + 6, 0x5678, true);
      ram.view.setUint8(gates + 8 * vector + 5, 0x8e);
      assertEquals(await finder.find(flat, L1), 0x56781234n);
      ram.view.setUint8(gates + 8 * vector + 5, 0x86);
      assertEquals(await new HandlerFinder(ram.read).find(flat, L1), 0x1234n);

      const real = vmcb(vector, [...nesting, [S.idtr_base, 0x8000n]]);
      ram.view.setUint32(gates + 4 * vector, 0x2000_0034, true);
      assertEquals(await finder.find(real, L1), 0x20034n);
    },
  ));
});

Deno.test("a handler that cannot be read is none, and is looked for again", async () => {
  const ram = new Ram();
  const finder = new HandlerFinder(ram.read);
  const beyond = vmcb(32, [[S.idtr_base, 0x20000n]]);
  assertEquals(await finder.find(beyond, L1), undefined);
  const { reads } = ram;
  assertEquals(await finder.find(beyond, L1), undefined);
  assertEquals(ram.reads > reads, true);
  const unmapped = vmcb(32, [[C.nested_ctl, 1n], [C.nested_cr3, 0x1000n], [S.idtr_base, 0n]]);
  assertEquals(await finder.find(unmapped, L1), undefined);
});

Deno.test("only an interrupt counts as one: not an NMI, an exception, a software interrupt, or none", () => {
  for (let type = 0; type < 8; type++) {
    const bytes = vmcb(type << 8 | 0x20, []);
    assertEquals(injectsInterrupt(bytes), type === 0);
    new DataView(bytes.buffer).setUint32(C.event_inj, type << 8 | 0x20, true);
    assertEquals(injectsInterrupt(bytes), false);
  }
});
