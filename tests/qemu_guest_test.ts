import { assert, assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import {
  buildGuest,
  type CodeRow,
  type CommonLabel,
  DEMO_CODE,
  guestListing,
  MACHINE_CODE,
  PRELUDE,
  PRELUDE_TABLES,
  ROM_BASE,
  ROM_SIZE,
  ROM_TABLES,
} from "../traces/qemu/mod.ts";

Deno.test("both images begin at the reset vector and hold a few hundred bytes of code", () => {
  for (const table of [MACHINE_CODE, DEMO_CODE] as readonly (readonly CodeRow[])[]) {
    const guest = buildGuest<string>(table);
    assertEquals(guest.bytes.length, ROM_SIZE);
    // jmp far f000:0000
    assertEquals([...guest.bytes.subarray(0xfff0, 0xfff5)], [0xea, 0, 0, 0, 0xf0]);
    assertEquals(guest.labels.start, ROM_BASE);
    assert(guest.codeSize < 600, `${guest.codeSize} bytes`);
    assert(ROM_BASE + guest.codeSize <= ROM_TABLES);
  }
});

Deno.test("every label that an instruction refers to is defined once", () => {
  for (const table of [MACHINE_CODE, DEMO_CODE] as readonly (readonly CodeRow[])[]) {
    const defined = table.flatMap((row) => row.label ?? []);
    assertEquals(new Set(defined).size, defined.length);
    for (const item of table.flatMap((row) => row.bytes)) {
      if (typeof item === "number") {
        assert(item >= 0 && item <= 0xff);
        continue;
      }
      const label = "rel8" in item ? item.rel8 : "abs16" in item ? item.abs16 : item.abs32;
      assert(defined.includes(label), label);
    }
  }
});

Deno.test("references are filled in", () => {
  const { bytes, labels } = buildGuest(MACHINE_CODE);
  const view = new DataView(bytes.buffer);
  const at = (address: number) => address - ROM_BASE;
  // jne ready, before rep movsq
  const jne = bytes.indexOf(0x75, at(labels.fresh));
  assertEquals(jne + 2 + view.getInt8(jne + 1), at(labels.ready));
  // lgdt [table0], before the flags are cleared and L1 is done
  assertEquals(view.getUint32(at(labels.done) - 11, true), labels.table0);
  // The gate of vector 2 leads to the handler.
  const gate = at(labels.idt) + 32;
  assertEquals(view.getUint16(gate, true) | view.getUint16(gate + 6, true) << 16, labels.nmi);
});

Deno.test("a short jump that does not reach is refused", () => {
  const far: CodeRow<CommonLabel>[] = [
    ...PRELUDE,
    { bytes: [0xeb, { rel8: "gdtr64" }], text: "jmp gdtr64" },
    { bytes: new Array(200).fill(0x90), text: "nop (200)" },
    ...PRELUDE_TABLES,
  ];
  assertThrows(() => buildGuest(far), RangeError, "The short jump to gdtr64 is");
});

Deno.test("the page tables map the first and the fourth GiB onto themselves, with the bits a ROM cannot take", () => {
  const { bytes } = buildGuest(MACHINE_CODE);
  const view = new DataView(bytes.buffer);
  const entry = (table: number, i: number) => view.getBigUint64(table - ROM_BASE + 8 * i, true);
  const walk = (address: number) => {
    const pdpt = Number(entry(ROM_TABLES, 0)) & ~0xfff;
    const pd = Number(entry(pdpt, Math.floor(address / 2 ** 30))) & ~0xfff;
    return entry(pd, Math.floor(address / 2 ** 21) % 512);
  };
  for (const address of [0, 0xe00000, 0x3fe00000, 0xfee00000]) {
    const leaf = walk(address);
    assertEquals(leaf & ~0x1fffffn, BigInt(address - address % 0x200000));
    assertEquals(leaf & 0xe3n, 0xe3n, "present, writable, accessed, dirty, large");
  }
});

Deno.test("the listing shows each row once, at its address", () => {
  const listing = guestListing(DEMO_CODE);
  const { labels } = buildGuest(DEMO_CODE);
  assertStringIncludes(listing, `first:\n  ${labels.first.toString(16)}  0f 01 d8 `);
  assertEquals(listing.match(/^ {2}/gm)?.length, DEMO_CODE.length);
});
