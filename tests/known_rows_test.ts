import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { UPSTREAM, Vcpu } from "../engine/mod.ts";
import { differingRows, keyOf } from "../engine/diff/compare.ts";
import { alikeOf, ExplainedRuns, type Reasons } from "../engine/diff/explained_runs.ts";
import { KnownRows, type Rows, sameField } from "../engine/diff/known_rows.ts";
import type { RunRef } from "../engine/diff/run_difference.ts";
import { StateParts } from "../engine/diff/state_parts.ts";
import { VMCB12_AT } from "../engine/svm/machine.ts";

const VMCB12 = 0x10000;

function looked(v: Vcpu, parts = new StateParts()): StateParts {
  parts.look(v, undefined);
  return parts;
}

/** Words that are set: few, so that the same come together again. */
const word = fc.record({
  where: fc.constantFrom("state", "memory"),
  at: fc.constantFrom(0, 4, 8, 0x58, 0x60, 0x70, 0xa8, 0x3f8, 0x4a0, 0x570, 0x5d8, 0x700, 0xffc)
    .chain((at) => fc.constantFrom(at, 0x1000 + at, 0x2000 + at)),
  side: fc.constantFrom(0, 1, 2),
  value: fc.constantFrom(0, 1, 0x1000000, 0xffffffff),
});

Deno.test("fields that are found again are those that differ", () => {
  for (const npt of [true, false]) {
    const caps = { physicalBits: 40, npt, memory: 1 << 20 };
    const known = new KnownRows();
    const seen = new Set<Rows>();
    let again = 0;
    fc.assert(
      fc.property(fc.array(word, { maxLength: 6 }), (words) => {
        const vs = [0, 1].map(() => new Vcpu(caps, UPSTREAM)) as [Vcpu, Vcpu];
        for (const { where, at, side, value } of words) {
          vs.forEach((v, i) => {
            if (side === 1 - i) return;
            if (where === "state") v.words[at >> 2] = value;
            else v.memory.write(VMCB12 + at % 0x1000, 4, value);
          });
        }
        const [a, b] = [new StateParts(), new StateParts()];
        const rows = known.between(vs[0], looked(vs[0], a), vs[1], looked(vs[1], b), VMCB12);
        if (seen.has(rows)) again++;
        seen.add(rows);
        const plain = differingRows(a.of(vs[0], VMCB12), b.of(vs[1], VMCB12));
        assertEquals(rows.list, plain);
        assertEquals(rows.names, plain.map(keyOf));
        assert(rows.list.every((row) => !sameField(row, vs[0], a, vs[1], b, VMCB12)));
      }),
      { numRuns: 2000, seed: 7 },
    );
    assert(again > 200, `only ${again} were found again`);
  }
});

Deno.test("a field is the same just when no row tells of it", () => {
  const caps = { physicalBits: 40, npt: true, memory: 1 << 20 };
  fc.assert(
    fc.property(fc.array(word, { maxLength: 6 }), fc.nat(VMCB12_AT / 4 - 1), (words, other) => {
      const [x, y, z] = [0, 1, 2].map(() => new Vcpu(caps, UPSTREAM)) as [Vcpu, Vcpu, Vcpu];
      for (const { at, value, side } of words) {
        x.words[at >> 2] = value;
        if (side > 0) z.words[at >> 2] = value;
      }
      z.words[other]! ^= 1;
      const [a, b, c] = [new StateParts(), new StateParts(), new StateParts()];
      const rows = new KnownRows().between(x, looked(x, a), y, looked(y, b), VMCB12);
      const names = new Set(differingRows(a.of(x, VMCB12), c.of(z, VMCB12)).map(keyOf));
      rows.list.forEach((row, i) =>
        assertEquals(sameField(row, x, a, z, c, VMCB12), !names.has(rows.names[i]!), rows.names[i])
      );
    }),
    { numRuns: 1000, seed: 7 },
  );
});

Deno.test("an explanation that serves again says what one made anew says", () => {
  const caps = { physicalBits: 40, npt: true, memory: 1 << 20 };
  const [x, y] = [new Vcpu(caps, UPSTREAM), new Vcpu(caps, UPSTREAM)];
  for (const at of [0x1060, 0x1070, 0x2570]) x.words[at >> 2] = 7;
  const { list } = new KnownRows().between(x, looked(x), y, looked(y), VMCB12);
  assert(list.length > 2);
  const steps = fc.constantFrom(undefined, "set GIF", "clear GIF");
  const of = <T>(what: fc.Arbitrary<T>) =>
    fc.array(what, { minLength: list.length, maxLength: list.length });
  const refs: readonly RunRef[] = [1, 2, 3].map((event) => (
    { event, run: event, scenario: undefined, spec: undefined }
  ));
  const reasons: fc.Arbitrary<Reasons> = fc.record({
    stepsA: of(steps),
    stepsB: of(fc.constant("set GIF")),
    whens: of(fc.constantFrom("entry", "#VMEXIT")),
    origins: of(fc.constantFrom(undefined, ...refs)),
    carried: of(fc.boolean()),
  });
  const incident = { kind: "check", id: "asid-zero", text: "ASID", way: "vmrun" } as const;
  const said = fc.record({
    policies: fc.constantFrom(["a", "b"] as const, ["a", "c"] as const),
    ends: fc.constantFrom(
      ["goes on in L1", "goes on in L1"] as const,
      ["goes on in L1", "goes on in L2"] as const,
    ),
    reports: fc.constantFrom(
      undefined,
      [[incident], []] as const,
      [[{ ...incident, step: "set GIF" }], []] as const,
    ),
    parting: fc.constantFrom("set GIF", "clear GIF").map((a) => (
      { after: "", a, b: "", way: "vmrun" as const, check: undefined }
    )),
  });
  const kept = new ExplainedRuns();
  const alike = new Map<object, string>();
  let again = 0;
  const once = fc.tuple(reasons, said);
  fc.assert(
    fc.property(fc.array(once, { minLength: 1, maxLength: 3 }), fc.nat(2), (some, which) => {
      for (const [why, rest] of [...some, some[which % some.length]!]) {
        const anew = new ExplainedRuns().of(list, why, rest);
        const explained = kept.of(list, why, structuredClone(rest));
        assertEquals(explained, anew);
        const { fields, ...others } = explained;
        const text = JSON.stringify(
          [fields.map((field) => ({ ...field, origin: field.origin !== undefined })), others],
          (_, value) => typeof value === "bigint" ? `${value}` : value,
        );
        const common = alikeOf(fields);
        if (alike.has(common)) {
          again++;
          assertEquals(alike.get(common), text);
        }
        alike.set(common, text);
      }
    }),
    { numRuns: 500, seed: 7 },
  );
  assert(again > 200, `only ${again} served again`);
});
