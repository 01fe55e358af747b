import { assert, assertEquals, assertStrictEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import {
  checkImage,
  compareImages,
  diffImages,
  dumpImage,
  type Field,
  FieldDiff,
  fieldMask,
  fieldNamed,
  formatValue,
  type Image,
  ImageSizeError,
  type Layout,
  readBigint,
  readField,
  readNumber,
  slotsOf,
  UnknownFieldError,
  VMCB_LAYOUT,
  writeField,
} from "@vmtape/vmtape/engine";

const layouts: fc.Arbitrary<Layout> = fc.array(
  fc.record({
    gap: fc.oneof(fc.constant(0), fc.nat(20)),
    size: fc.constantFrom(1, 2, 3, 4, 8, 15, 32),
    area: fc.constantFrom("", "x.", "y."),
    bits: fc.boolean(),
  }),
  { maxLength: 8 },
).chain((rows) =>
  fc.nat(20).map((tail) => {
    let end = 0;
    const fields: Field[] = rows.map(({ gap, size, area, bits }, i) => {
      const offset = end + gap;
      end = offset + size;
      const named = bits
        ? { bits: [{ name: "low", bit: 1, width: 3 }, { name: "B7", bit: 7 }] }
        : {};
      return { name: `${area}f${i}`, offset, size, ...named, doc: "" };
    });
    return { name: "random", size: end + tail, fields };
  })
);

const masked = (bytes: Uint8Array, known: Uint8Array): Image => {
  return { bytes: bytes.map((byte, i) => byte & known[i]!), known };
};

const images = (size: number): fc.Arbitrary<Image> => {
  // Few values, so that bytes are often equal in two images.
  const byte = fc.constantFrom(0, 0, 1, 0x5a, 0xff);
  const bytes = fc.array(byte, { minLength: size, maxLength: size }).map((b) => Uint8Array.from(b));
  const mask = fc.array(fc.constantFrom(0, 0x0f, 0xff, 0xff), { minLength: size, maxLength: size });
  return fc.oneof(
    bytes.map((b) => ({ bytes: b })),
    fc.tuple(bytes, mask).map(([b, m]) => masked(b, Uint8Array.from(m))),
  );
};

const pairs = layouts.chain((layout) =>
  fc.tuple(fc.constant(layout), images(layout.size), images(layout.size))
);

/** Scatters the bits of rows over an image. */
function gather(
  layout: Layout,
  rows: Iterable<{ offset: number; size: number }>,
  bits: (row: number) => bigint,
): Uint8Array {
  const out = new Uint8Array(layout.size);
  let i = 0;
  for (const { offset, size } of rows) {
    writeField(out, { name: "", offset, size, doc: "" }, bits(i++));
  }
  return out;
}

Deno.test("a diff finds every bit that differs and every bit it cannot tell", () => {
  fc.assert(fc.property(pairs, ([layout, a, b]) => {
    const rows = diffImages(layout, a, b);
    const both = a.bytes.map((_, i) => (a.known?.[i] ?? 0xff) & (b.known?.[i] ?? 0xff));
    const differing = a.bytes.map((byte, i) => (byte ^ b.bytes[i]!) & both[i]!);
    assertEquals(gather(layout, rows, (i) => rows[i]!.differing), differing);
    const unknown = gather(layout, rows, (i) => rows[i]!.unknown);
    assertEquals(unknown, both.map((byte) => ~byte));
    for (const row of rows) assertEquals(row.verdict === "differs", row.differing !== 0n);
  }));
});

Deno.test("a diff is symmetric", () => {
  fc.assert(fc.property(pairs, ([layout, a, b]) => {
    const there = diffImages(layout, a, b);
    const back = diffImages(layout, b, a);
    const plain = (row: FieldDiff) => [row.field, row.verdict, row.a, row.b, row.bits];
    const swapped = (row: FieldDiff) => [
      row.field,
      row.verdict,
      row.b,
      row.a,
      row.bits.map((bit) => ({ ...bit, a: bit.b, b: bit.a })),
    ];
    assertEquals(there.map(plain), back.map(swapped));
  }));
});

Deno.test("a diff never reports equal images that are fully known", () => {
  fc.assert(
    fc.property(layouts.chain((l) => fc.tuple(fc.constant(l), images(l.size))), ([l, a]) => {
      const ones = new Uint8Array(l.size).fill(0xff);
      assertEquals(diffImages(l, { bytes: a.bytes }, { bytes: a.bytes.slice() }), []);
      assertEquals(diffImages(l, { bytes: a.bytes, known: ones }, { bytes: a.bytes.slice() }), []);
      assertEquals(diffImages(l, a, a, { onlyKnown: true }), []);
    }),
  );
});

Deno.test("a diff without what cannot be told keeps every difference", () => {
  fc.assert(fc.property(pairs, ([layout, a, b]) => {
    const known = diffImages(layout, a, b, { onlyKnown: true }).map((row) => row.text);
    const all = diffImages(layout, a, b).filter((row) => row.verdict === "differs");
    assertEquals(known, all.map((row) => row.text));
  }));
});

Deno.test("comparing agrees with diffing", () => {
  fc.assert(fc.property(pairs, ([layout, a, b]) => {
    const verdicts = diffImages(layout, a, b).map((row) => row.verdict);
    const expected = verdicts.includes("differs")
      ? "differs"
      : verdicts.length > 0
      ? "unknown"
      : "same";
    assertEquals(compareImages(a, b), expected);
  }));
});

Deno.test("every single bit of a VMCB that changes is reported, by name where it has one", () => {
  const a = { bytes: new Uint8Array(VMCB_LAYOUT.size).fill(0x5a) };
  const b = { bytes: a.bytes.slice() };
  for (let bit = 0; bit < 8 * VMCB_LAYOUT.size; bit++) {
    const byte = bit >> 3;
    b.bytes[byte]! ^= 1 << (bit & 7);
    const rows = diffImages(VMCB_LAYOUT, a, b);
    assertEquals(rows.length, 1, `bit ${bit}`);
    const [row] = rows as [FieldDiff];
    assert(row.offset <= byte && byte < row.offset + row.size, `bit ${bit}`);
    assertEquals(row.differing, 1n << BigInt(bit - 8 * row.offset));
    assertEquals(row.verdict, "differs");
    const field = VMCB_LAYOUT.fields.find((f) => f.name === row.field);
    if (field === undefined) assert(/^(control|save)\+0x[0-9a-f]+$/.test(row.field), row.field);
    assertEquals(row.bits.length, field?.bits === undefined ? 0 : 1, row.field);
    b.bytes[byte] = a.bytes[byte]!;
  }
});

Deno.test("bytes that no field covers are named by their word", () => {
  const a = { bytes: new Uint8Array(4096) };
  const b = { bytes: new Uint8Array(4096) };
  b.bytes[0x1c3] = 1;
  b.bytes[0x400 + 0xcf] = 2;
  const texts = diffImages(VMCB_LAYOUT, a, b).map((row) => row.text);
  assertEquals(texts, ["control+0x1c0 0x0 -> 0x1000000", "save+0xcc 0x0 -> 0x2000000"]);
  const dump = dumpImage(VMCB_LAYOUT, b).filter((row) => row.field.includes("+"));
  assertEquals(dump.map((row) => row.field), ["control+0x1c0", "save+0xcc"]);
});

Deno.test("an area that was not seen is told apart from zeros", () => {
  const bytes = new Uint8Array(4096);
  const known = new Uint8Array(4096).fill(0xff, 0, 0x400);
  const rows = diffImages(VMCB_LAYOUT, { bytes, known }, { bytes });
  assertEquals(new Set(rows.map((row) => row.verdict)), new Set(["unknown"]));
  const efer = rows.find((row) => row.field === "save.efer");
  assertEquals(efer?.text, "save.efer ? -> 0x0 (cannot tell)");
  const stretch = rows.find((row) => row.field === "save+0x7c8");
  assertEquals(stretch?.size, 0x1000 - 0x400 - 0x7c8);
  const dump = dumpImage(VMCB_LAYOUT, { bytes, known }, { onlyNonZero: true });
  const word = { bytes: Uint8Array.from(bytes), known: Uint8Array.from(known) };
  word.bytes[0xcd0] = word.known[0xcd0] = 0xff;
  const partly = dumpImage(VMCB_LAYOUT, word).find((row) => row.field === "save+0x8d0");
  assertEquals(partly?.text, "0x??????????????ff");
  assert(dump.length > 0 && dump.every((row) => row.known === 0n && row.text === "?"));
  assertEquals(
    dumpImage(VMCB_LAYOUT, { bytes, known }, { onlyNonZero: true, onlyKnown: true }),
    [],
  );
});

Deno.test("a diff names the bits that differ and the bits that cannot be told", () => {
  const efer = fieldNamed(VMCB_LAYOUT, "save.efer");
  const all = fieldMask(efer);
  const cases: [bigint, bigint, bigint, bigint, string][] = [
    [0x1500n, all, 0x500n, all, "save.efer 0x1500 [SVME LMA LME] -> 0x500 [LMA LME] (SVME)"],
    [0n, all, 1n << 40n, all, "save.efer 0x0 -> 0x10000000000 [reserved=0x10000000000] (reserved)"],
    [
      0x500n,
      all & ~0x1000n,
      0x1500n,
      all,
      "save.efer 0x000000000000?500 [SVME? LMA LME] -> 0x1500 [SVME LMA LME] (cannot tell: SVME)",
    ],
  ];
  for (const [a, ka, b, kb, text] of cases) {
    const row = new FieldDiff(efer, { value: a, known: ka }, { value: b, known: kb });
    assertEquals(row.text, text);
  }
  const json = JSON.parse(JSON.stringify(
    new FieldDiff(efer, { value: 0x1000n, known: all }, { value: 0n, known: all }),
  ));
  assertEquals(json, {
    field: "save.efer",
    offset: 0x4d0,
    size: 8,
    verdict: "differs",
    a: { value: "0x1000", text: "0x1000 [SVME]" },
    b: { value: "0x0", text: "0x0" },
    bits: [{ name: "SVME", verdict: "differs", a: "1", b: "0" }],
  });
});

Deno.test("a dump holds the whole image", () => {
  fc.assert(
    fc.property(layouts.chain((l) => fc.tuple(fc.constant(l), images(l.size))), ([l, image]) => {
      const rows = dumpImage(l, image, { onlyNonZero: true });
      assertEquals(gather(l, rows, (i) => rows[i]!.value), image.bytes);
      const offsets = rows.map((row) => row.offset);
      assertEquals(offsets, offsets.toSorted((a, b) => a - b));
      const all = dumpImage(l, image).filter((row) => !row.field.includes("+"));
      assertEquals(all.length, l.fields.length);
      if (image.known === undefined) assert(rows.every((row) => row.value !== 0n));
    }),
  );
});

Deno.test("the slots of a layout cover every byte once", () => {
  fc.assert(fc.property(fc.oneof(layouts, fc.constant(VMCB_LAYOUT)), (layout) => {
    let end = 0;
    for (const { field } of slotsOf(layout)) {
      assertEquals(field.offset, end);
      end += field.size;
    }
    assertEquals(end, layout.size);
    assertStrictEquals(slotsOf(layout), slotsOf(layout));
  }));
});

Deno.test("a field that is written reads back, and nothing beside it changes", () => {
  const sizes = fc.constantFrom(1, 2, 3, 4, 8, 15, 32, 256);
  fc.assert(fc.property(sizes, fc.nat(9), fc.nat(9), fc.bigInt(0n, 1n << 2048n), (...args) => {
    const [size, offset, base, random] = args;
    const field: Field = { name: "f", offset, size, doc: "" };
    const value = random & fieldMask(field);
    const bytes = new Uint8Array(offset + base + size + 5).fill(0xa5);
    writeField(bytes, field, value, base);
    assertEquals(readBigint(bytes, field, base), value);
    if (size <= 4) assertEquals(readNumber(bytes, field, base), Number(value));
    const rest = [...bytes.subarray(0, base + offset), ...bytes.subarray(base + offset + size)];
    assert(rest.every((byte) => byte === 0xa5));
  }));
});

Deno.test("bits that are not known never show their value", () => {
  const rip = fieldNamed(VMCB_LAYOUT, "save.rip");
  const bytes = new Uint8Array(4096).fill(0xff);
  const known = new Uint8Array(4096);
  known[rip.offset] = 0xf0;
  assertEquals(readField({ bytes, known }, rip), { value: 0xf0n, known: 0xf0n });
});

Deno.test("values are printed with their bits by name", () => {
  const text = (name: string, value: bigint, known?: bigint) => {
    const field = fieldNamed(VMCB_LAYOUT, name);
    return formatValue(field, { value, known: known ?? fieldMask(field) });
  };
  assertEquals(text("save.efer", 0x1500n), "0x1500 [SVME LMA LME]");
  assertEquals(text("save.cr0", 0x8000_0011n), "0x80000011 [PG ET PE]");
  assertEquals(text("save.rflags", 0x3002n), "0x3002 [IOPL=0x3 FIXED]");
  assertEquals(text("save.cs_attrib", 0xa9bn), "0xa9b [G L P S TYPE=0xb]");
  assertEquals(text("save.dr7", 0x90_0401n), "0x900401 [LEN1=8 RW1=WRITE ONE L0]");
  assertEquals(
    text("save.g_pat", 0x0007_0406_0007_0406n),
    "0x7040600070406 [PA7=UC PA6=UC- PA5=WT PA4=WB PA3=UC PA2=UC- PA1=WT PA0=WB]",
  );
  assertEquals(text("control.event_inj", 0x8000_0220n), "0x80000220 [V type=NMI vec=0x20]");
  assertEquals(text("control.event_inj", 0x8000_0b0en), "0x80000b0e [V EV type=EXEPT vec=0xe]");
  assertEquals(text("control.event_inj", 0x8000_0120n), "0x80000120 [V type=0x1 vec=0x20]");
  assertEquals(text("control.event_inj", 0n), "0x0");
  assertEquals(text("control.tlb_ctl", 1n), "0x1 [FLUSH_ALL_ASID]");
  assertEquals(text("control.tlb_ctl", 2n), "0x2");
  assertEquals(text("control.exit_code", 0x400n), "0x400 [SVM_EXIT_NPF]");
  assertEquals(text("control.exit_code", 0x2ffn), "0x2ff");
  assertEquals(text("control.intercept_word4", 3n), "0x3 [VMMCALL VMRUN]");
  assertEquals(text("control.intercept_exceptions", 0x4001n), "0x4001 [PF DE]");
  assertEquals(
    text("control.int_ctl", 0x30f_010fn),
    "0x30f010f [V_GIF_ENABLE V_INTR_MASKING" +
      " V_INTR_PRIO=0xf V_IRQ V_TPR=0xf]",
  );
  assertEquals(text("control.clean", 0x8000_0020n), "0x80000020 [SW CR]");
  assertEquals(text("control.insn_bytes", 0xd9_010fn), "0f 01 d9 (12 zero bytes)");
  assertEquals(text("control.insn_bytes", 0n), "(15 zero bytes)");
  assertEquals(text("control.exit_code", 0n, 0n), "?");
  assertEquals(
    text("control.int_state", 1n, 1n),
    "0x???????? [GUEST_INTERRUPT_MASK? INTERRUPT_SHADOW]",
  );
  assertEquals(text("control.event_inj", 0x8000_0000n, 0xffff_f8ffn), "0x80000?00 [V type=?]");
});

Deno.test("of an image of another version's size what both have is compared, and the rest is unknown", () => {
  const whole = { bytes: new Uint8Array(4096).fill(1) };
  for (const size of [1, 100, 4095]) {
    const short = { bytes: new Uint8Array(size).fill(1) };
    assertEquals(diffImages(VMCB_LAYOUT, whole, short, { onlyKnown: true }), []);
    assert(diffImages(VMCB_LAYOUT, whole, short).length > 0);
    assert(dumpImage(VMCB_LAYOUT, short, { onlyKnown: true }).length > 0 || size === 1);
  }
  const long = { bytes: new Uint8Array(5000).fill(1), known: new Uint8Array(5000).fill(0xff) };
  assertEquals(diffImages(VMCB_LAYOUT, whole, long), []);
});

Deno.test("bad images and names are refused", () => {
  const short = { bytes: new Uint8Array(4095) };
  const whole = { bytes: new Uint8Array(4096) };
  const error = assertThrows(() => checkImage(VMCB_LAYOUT, short), ImageSizeError);
  assertEquals([error.layout, error.expected, error.actual], ["vmcb", 4096, 4095]);
  const mask = { bytes: new Uint8Array(4096), known: new Uint8Array(1) };
  assertThrows(() => dumpImage(VMCB_LAYOUT, mask), ImageSizeError, "mask");
  assertThrows(
    () => fieldNamed(VMCB_LAYOUT, "save.xyzzy"),
    UnknownFieldError,
    'no field "save.xyzzy"',
  );
  assertThrows(
    () => fieldNamed(VMCB_LAYOUT, "save.efre"),
    UnknownFieldError,
    "did you mean save.efer?",
  );
  const cpl = fieldNamed(VMCB_LAYOUT, "save.cpl");
  assertThrows(() => writeField(whole.bytes, cpl, 0x100), RangeError, "does not fit");
  assertThrows(() => writeField(whole.bytes, cpl, -1n), RangeError, "does not fit");
  assertThrows(() => readNumber(whole.bytes, fieldNamed(VMCB_LAYOUT, "save.rip")), RangeError);
});
