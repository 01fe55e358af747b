/** Filling in what a log does not show: in several ways, each of which holds what was seen. */
import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { CHECKS_6_12, fieldNamed, VMCB_LAYOUT, VMCB_SIZE, writeField } from "../engine/mod.ts";
import { setOutcome, setVerdict } from "../engine/checks/verdict.ts";
import { fieldMask, knownWordsOf } from "../engine/image/fields.ts";
import type { Image } from "../engine/event.ts";
import { assume, refill, VARIANTS } from "../engine/replay/fill_unknown.ts";

const caps = { physicalBits: 40, npt: true, memory: 1 << 16 };
const { checks } = CHECKS_6_12;

/** Fields that checks read, and some that they do not. */
const NAMES = [
  ...new Set(checks.flatMap((check) => check.reads)),
  ...["control.event_inj", "control.exit_info_1", "save.rip", "save.rsp", "save.lstar"],
];
const [, ...OTHERS] = NAMES;

/** Values that checks like and do not like, and what of them was seen. */
const SEEN = fc.uniqueArray(
  fc.record({
    name: fc.constantFrom(...NAMES),
    value: fc.oneof(
      fc.constantFrom(0n, 1n, 3n, 0x20n, 0x1500n, 0x80000011n),
      fc.bigInt(0n, (1n << 64n) - 1n),
    ),
    known: fc.constantFrom((1n << 64n) - 1n, (1n << 64n) - 1n, 0xff00n, 1n),
  }),
  { selector: ({ name }) => name, maxLength: 8 },
);

interface SeenField {
  readonly name: string;
  readonly value: bigint;
  readonly known: bigint;
}

function imageOf(fields: readonly SeenField[]): Image {
  const bytes = new Uint8Array(VMCB_SIZE), known = new Uint8Array(VMCB_SIZE);
  for (const field of fields) {
    const row = fieldNamed(VMCB_LAYOUT, field.name);
    const bits = field.known & fieldMask(row);
    writeField(known, row, bits);
    writeField(bytes, row, field.value & bits);
  }
  return { bytes, known };
}

Deno.test("filling in a state in another way is filling in what was seen in that way", () => {
  const count = { filled: 0, none: 0 };
  fc.assert(
    fc.property(
      SEEN,
      fc.option(fc.constantFrom(...checks), { nil: undefined }),
      fc.nat(checks.length),
      fc.boolean(),
      (fields, failed, passed, unreadable) => {
        const seen = imageOf(fields);
        const evidence = {
          passed: new Set(checks.slice(0, passed).map(({ id }) => id)),
          ...(failed && { failed: failed.id }),
          ...(unreadable && failed === undefined && { unreadable }),
        };
        const first = assume(checks, caps, seen, undefined, evidence, 0);
        for (let variant = 0; variant < VARIANTS; variant++) {
          const alone = assume(checks, caps, seen, undefined, evidence, variant);
          assertEquals(first && refill(first, seen, undefined, variant), alone);
          if (alone === undefined) continue;
          for (let at = 0; at < VMCB_SIZE; at++) {
            assertEquals(alone.vmcb12[at]! & seen.known![at]!, seen.bytes[at]);
          }
        }
        count[first === undefined ? "none" : "filled"]++;
      },
    ),
    { numRuns: 200 },
  );
  assert(count.filled > 50 && count.none > 10, JSON.stringify(count));
});

Deno.test("what checks say of images one after the other is what they say of each alone", () => {
  const image = fc.tuple(SEEN, fc.array(fc.tuple(fc.nat(7), fc.bigInt(0n, (1n << 64n) - 1n))));
  let asked = 0;
  fc.assert(
    fc.property(image, fc.constantFrom(...OTHERS), ([fields, changes], failed) => {
      const { known } = imageOf(fields);
      const shared = { known: known!, knownWords: knownWordsOf(known!) };
      let now: readonly SeenField[] = fields;
      for (const [index, value] of [[0, fields[0]?.value ?? 0n] as const, ...changes]) {
        now = now.map((field, i) => i === index ? { ...field, value } : field);
        const alone = imageOf(now);
        const evidence = { failed, passed: new Set(checks.slice(0, index).map(({ id }) => id)) };
        for (const said of [{}, evidence]) {
          const verdict = setVerdict(checks, caps, alone, said);
          assertEquals(setVerdict(checks, caps, { ...shared, bytes: alone.bytes }, said), verdict);
        }
        const { verdict, check } = setVerdict(checks, caps, alone);
        assertEquals(setOutcome(checks, caps, { ...shared, bytes: alone.bytes }), {
          verdict,
          check,
        });
        asked++;
      }
    }),
    { numRuns: 100 },
  );
  assert(asked > 300, `${asked} images`);
});
