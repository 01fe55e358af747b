import { assert, assertEquals, assertThrows } from "@std/assert";
import {
  CLEAN,
  CLEAN_BITS,
  CONTROL_FIELDS,
  CR0,
  CR4,
  DBGCTL,
  DR6,
  DR7,
  EFER,
  EVENT_INJ,
  type Field,
  INT_CTL,
  masks,
  NESTED_CTL,
  RFLAGS,
  SAVE_AREA,
  SAVE_FIELDS,
  SEGMENT_ATTRIB,
  VIRT_EXT,
  VMCB_LAYOUT,
} from "@vmtape/vmtape/engine";
import { CONTROL_AREA, INTERCEPTS, MASKS, SAVE_AREA_FIELDS } from "./vmcb_kernel_numbers.ts";

const words = (text: string) => text.trim().split(/\s+/).map((word) => word.split(":"));

function kernelFields(text: string): Map<string, [number, number]> {
  return new Map(
    words(text).map(([name, offset, size]) => [name!, [parseInt(offset!, 16), Number(size)]]),
  );
}

function assertAgrees(fields: readonly Field[], kernel: Map<string, [number, number]>): void {
  const ours = new Map(fields.map((field) => [field.name, field]));
  for (const [name, [offset, size]] of kernel) {
    const field = ours.get(name);
    assert(field, `${name} is missing`);
    assertEquals([field.offset, field.size], [offset, size], name);
  }
}

Deno.test("the control area's fields are where the kernel has them", () => {
  const kernel = kernelFields(CONTROL_AREA);
  kernel.delete("intercepts");
  ["cr", "dr", "exceptions", "word3", "word4", "word5"].forEach((word, i) => {
    kernel.set(`intercept_${word}`, [4 * i, 4]);
  });
  kernel.set("sw_reserved", kernel.get("reserved_sw")!);
  kernel.delete("reserved_sw");
  assertEquals(kernel.size, 38);
  assertAgrees(CONTROL_FIELDS, kernel);
});

Deno.test("the save area's fields are where the kernel has them", () => {
  const kernel = kernelFields(SAVE_AREA_FIELDS);
  assertEquals(kernel.size, 71);
  assertAgrees(SAVE_FIELDS, kernel);
});

Deno.test("the layout names every field by its area, in order, without overlaps", () => {
  const { fields, size } = VMCB_LAYOUT;
  assertEquals(fields.length, CONTROL_FIELDS.length + SAVE_FIELDS.length);
  assertEquals(new Set(fields.map((field) => field.name)).size, fields.length);
  let end = 0;
  for (const field of fields) {
    assert(field.offset >= end, `${field.name} overlaps the field before it`);
    end = field.offset + field.size;
    assertEquals(field.name.startsWith("control."), field.offset < SAVE_AREA, field.name);
  }
  assert(end <= size);
});

Deno.test("the bits of every field fit into it, in order, without overlaps", () => {
  let tables = 0;
  for (const field of VMCB_LAYOUT.fields) {
    if (field.bits === undefined) continue;
    tables++;
    assertEquals(new Set(field.bits.map((bits) => bits.name)).size, field.bits.length);
    let end = 0;
    for (const { name, bit, width = 1, values = {} } of field.bits) {
      assert(bit >= end, `${field.name}: ${name} overlaps the bits before it`);
      end = bit + width;
      for (const value of Object.keys(values)) assert(Number(value) < 2 ** width, name);
    }
    assert(end <= 8 * field.size, `${field.name}: bits beyond its end`);
  }
  assertEquals(tables, 38);
});

Deno.test("every intercept has the kernel's name at the kernel's bit", () => {
  const ours = new Map<number, string>();
  for (const field of CONTROL_FIELDS.slice(0, 6) as readonly Field[]) {
    for (const { name, bit } of field.bits ?? []) ours.set(8 * field.offset + bit, name);
  }
  const kernel = words(INTERCEPTS).filter(([name]) => name !== "INTERCEPT_EXCEPTION_OFFSET");
  assertEquals(kernel.length, 86);
  for (const [name, bit] of kernel) {
    assertEquals(ours.get(Number(bit)), name!.replace(/^INTERCEPT_/, ""), name);
  }
  assertEquals(ours.get(64 + 14), "PF");
  assertEquals(ours.get(64 + 31), "VECTOR_31");
});

Deno.test("every mask is the kernel's", () => {
  const tables: Record<string, Record<string, number>> = {
    CLEAN,
    CR0,
    CR4,
    DBGCTL,
    DR6,
    DR7,
    EFER,
    EVENT_INJ,
    INT_CTL,
    NESTED_CTL,
    RFLAGS,
    SEGMENT_ATTRIB,
    VIRT_EXT,
  };
  const kernel = words(MASKS);
  const seen = new Set<string>();
  for (const [key, mask] of kernel) {
    const [table, name] = key!.split(".");
    assertEquals(tables[table!]![name!], parseInt(mask!, 16), key);
    seen.add(table!);
  }
  assertEquals([...seen].sort(), Object.keys(tables).sort());
});

Deno.test("every clean bit that a field names has a name", () => {
  const named = new Set<number>(CLEAN_BITS.map(({ bit }) => bit));
  const used = new Set(VMCB_LAYOUT.fields.flatMap(({ clean }) => clean === undefined ? [] : clean));
  for (const bit of used) assert(named.has(bit), `clean bit ${bit}`);
  assertEquals(used.size, named.size);
});

Deno.test("a mask that does not fit into the low half is refused", () => {
  assertEquals(masks([{ name: "all", bit: 0, width: 32 }]).all, 0xffff_ffff);
  assertThrows(() => masks([{ name: "FRED", bit: 32 }]), RangeError, "Bit FRED");
});
