import { assertEquals } from "@std/assert";
import fc from "fast-check";
import {
  CHECK_SETS,
  checkVerdict,
  Cpuid,
  setVerdict,
  VMCB_LAYOUT,
  VMCB_SIZE,
} from "../engine/mod.ts";
import { wholeVerdicts } from "../engine/checks/check_verdict.ts";
import { fieldNamed, writeField } from "../engine/image/fields.ts";

const CAPS = [
  { physicalBits: 40, npt: true, memory: 1 << 24 },
  { physicalBits: 48, npt: false, memory: 1 << 24, cpuid: Cpuid.OF_HYPERVISOR },
];

/** Values of a field and of its mask that meet and miss what checks look for. */
const VALUES = [0n, 1n, 0x10n, 0x1000n, 0x500n, 0x80000001n, 0xffffffffn, 0xfffffffffffff000n];

Deno.test("what is remembered of a check is what it says, whatever was asked before", () => {
  const said = new Set<string>();
  for (const { checks } of CHECK_SETS) {
    for (const check of checks) {
      const rows = check.reads.map((name) => fieldNamed(VMCB_LAYOUT, name));
      const value = fc.constantFrom(...VALUES);
      const fields = fc.array(fc.tuple(value, value), {
        minLength: rows.length,
        maxLength: rows.length,
      });
      fc.assert(
        fc.property(fields, fc.constantFrom(...CAPS), (pairs, caps) => {
          const image = { bytes: new Uint8Array(VMCB_SIZE), known: new Uint8Array(VMCB_SIZE) };
          rows.forEach((row, i) => {
            const [content, known] = pairs[i]!;
            const fits = (bits: bigint) => BigInt.asUintN(8 * row.size, bits);
            writeField(image.bytes, row, fits(content & known));
            writeField(image.known, row, fits(known));
          });
          const { verdict } = setVerdict([check], caps, image);
          said.add(verdict);
          assertEquals(verdict, checkVerdict(check, caps, image), check.id);
        }),
        { numRuns: 20 },
      );
    }
  }
  assertEquals(said.size, 3);
});

Deno.test("of a vmcb12 that is known whole, a check says at once what looking for values finds", () => {
  const said = new Set<string>();
  for (const { checks } of CHECK_SETS) {
    for (const check of checks) {
      const rows = check.reads.map((name) => fieldNamed(VMCB_LAYOUT, name));
      const values = fc.array(fc.oneof(fc.constantFrom(...VALUES), fc.bigInt(0n, 2n ** 64n - 1n)), {
        minLength: rows.length,
        maxLength: rows.length,
      });
      fc.assert(
        fc.property(values, fc.constantFrom(...CAPS), (contents, caps) => {
          const bytes = new Uint8Array(VMCB_SIZE);
          rows.forEach((row, i) =>
            writeField(bytes, row, BigInt.asUintN(8 * row.size, contents[i]!))
          );
          const verdict = wholeVerdicts(caps, bytes)(check);
          said.add(verdict);
          assertEquals(verdict, checkVerdict(check, caps, { bytes }), check.id);
        }),
        { numRuns: 20 },
      );
    }
  }
  assertEquals(said.size, 3);
});
