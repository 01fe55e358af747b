import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { RULES_6_1, RULES_6_12, RULES_7_3 } from "../engine/checks/cpu_rules.ts";
import {
  Cpuid,
  CPUID_LEAVES,
  CPUID_REGISTERS,
  cpuidLeaf,
  cpuidOfMeta,
  type CpuidValue,
  FEATURE_NAMES,
  FEATURES,
  LAB_CPUID,
} from "../engine/svm/cpuid.ts";
import { canUse, type Capabilities, sameCapabilities, withCpuid } from "../engine/svm/machine.ts";
import { CHECKS_6_12 } from "../engine/checks/linux_6_12.ts";
import { setVerdict } from "../engine/checks/verdict.ts";
import type { Image } from "../engine/event.ts";
import { C, S } from "../engine/svm/machine.ts";
import { VMCB_SIZE } from "../engine/svm/vmcb_fields.ts";
import { capabilitiesOf } from "../engine/replay/session_machine.ts";

const CAPS: Capabilities = { physicalBits: 40, npt: true, memory: 1 << 24 };
const word = fc.integer({ min: 0, max: 0xffffffff });
const value: fc.Arbitrary<CpuidValue> = fc.oneof(
  word,
  fc.constant(null),
  fc.tuple(word, word),
);
const leaves = fc.dictionary(
  fc.constantFrom(...CPUID_LEAVES),
  fc.array(value, { minLength: 4, maxLength: 4 }),
);

Deno.test("cpuid: what is written into a session is what is read from it", () => {
  fc.assert(fc.property(leaves, (table) => {
    const cpuid = Cpuid.of(table);
    const again = cpuidOfMeta(JSON.parse(JSON.stringify(cpuid.toMeta())));
    assert(again?.equals(cpuid));
  }));
});

Deno.test("cpuid: a bit that is taken away is known to be gone, and no other changes", () => {
  fc.assert(fc.property(
    leaves,
    fc.constantFrom(...CPUID_LEAVES),
    fc.constantFrom(...CPUID_REGISTERS),
    word,
    (table, leaf, register, mask) => {
      const before = Cpuid.of(table), after = before.without(leaf, register, mask);
      for (const name of FEATURE_NAMES) {
        const row = FEATURES[name];
        const gone = row.leaf === leaf && row.register === register && (mask >>> row.bit & 1) === 1;
        assertEquals(after.has(name), !gone && before.has(name), name);
        assertEquals(after.knows(name), gone || before.knows(name), name);
      }
    },
  ));
});

Deno.test("cpuid: unknown features are neither there nor not, until they are decided", () => {
  for (const name of FEATURE_NAMES) {
    assert(!Cpuid.UNKNOWN.has(name) && !Cpuid.UNKNOWN.knows(name));
    for (const there of [false, true]) {
      const decided = Cpuid.UNKNOWN.decided(there, 36);
      assert(decided.whole && decided.physicalBits === 36);
      assertEquals(decided.has(name), there !== (name === "lmsle_mbz"), name);
    }
    assert(Cpuid.UNKNOWN.set(name, true).decided(false, 36).has(name));
    assert(!Cpuid.UNKNOWN.set(name, false).decided(true, 36).has(name));
  }
});

Deno.test("cpuid: leaves go by their numbers", () => {
  assertEquals(cpuidLeaf(0x8000000a), "8000000a");
  assertEquals(cpuidLeaf(7, 1), "7.1");
  assertEquals(cpuidLeaf(0x40000000), undefined);
});

Deno.test("cpuid: on the lab's machine every kernel reserves the same bits", () => {
  for (const rules of [RULES_6_1, RULES_6_12, RULES_7_3]) {
    assertEquals(rules.cr4Bits(CAPS), 0x0075_1fff, rules.name);
    assertEquals(rules.cr4Bits({ ...CAPS, npt: false }), 0x0035_1fff, rules.name);
    assertEquals(rules.eferBits(CAPS), 0x3d01, rules.name);
  }
});

Deno.test("cpuid: each feature that is taken away reserves its bits", () => {
  for (const rules of [RULES_6_1, RULES_6_12, RULES_7_3]) {
    const all = withCpuid(CAPS, Cpuid.UNKNOWN.decided(true, 40));
    for (const name of FEATURE_NAMES) {
      const cut = withCpuid(all, all.cpuid!.set(name, false));
      for (const [list, bits] of [["cr4", "cr4Bits"], ["efer", "eferBits"]] as const) {
        const gone = rules[list].filter(({ needs }) => needs?.length === 1 && needs[0] === name)
          .reduce((mask, { bit }) => mask | 1 << bit, 0);
        const more = rules[list].filter(({ unless }) => unless === name)
          .reduce((mask, { bit }) => mask | 1 << bit, 0);
        assertEquals(
          rules[bits](cut),
          (rules[bits](all) & ~gone | more) >>> 0,
          `${rules.name} ${list} ${name}`,
        );
      }
    }
  }
});

Deno.test("cpuid: a session says it, and machines with another one are others", () => {
  const cpuid = LAB_CPUID.set("la57", false).withPhysicalBits(36);
  const caps = capabilitiesOf({
    capabilities: { physical_bits: 40, cpuid: cpuid.toMeta(), host_physical_bits: 48 },
  });
  assertEquals(caps.physicalBits, 36);
  assertEquals(caps.hostPhysicalBits, 48);
  assert(!canUse(caps, "la57") && canUse(caps, "npt") && !canUse({ ...caps, npt: false }, "npt"));
  assert(!sameCapabilities(caps, { ...caps, cpuid: LAB_CPUID }));
  assert(sameCapabilities(caps, { ...caps, cpuid: Cpuid.of(cpuid.toMeta()) }));
  assert(sameCapabilities(CAPS, { ...CAPS, cpuid: LAB_CPUID }));
});

/** A vmcb12 that passes every check of 6.12, all of it known, with another CR4, EFER or CR3. */
function vmcb12(change: Readonly<Record<number, bigint>>): Image {
  const bytes = new Uint8Array(VMCB_SIZE), view = new DataView(bytes.buffer);
  view.setBigUint64(S.efer, 0x1500n, true);
  view.setBigUint64(S.cr0, 0x80000031n, true);
  view.setBigUint64(S.cr3, 0x40000n, true);
  view.setBigUint64(S.cr4, 0x20n, true);
  view.setBigUint64(S.dr7, 0x400n, true);
  view.setUint32(C.intercept_word4, 1, true);
  view.setUint32(C.asid, 1, true);
  for (const [at, value] of Object.entries(change)) view.setBigUint64(Number(at), value, true);
  return { bytes };
}

Deno.test("cpuid: a check that depends on what is unknown cannot be told, and names it", () => {
  const { checks } = CHECKS_6_12;
  const on = (cpuid: Cpuid, change: Readonly<Record<number, bigint>>) => {
    const { verdict, check, needs } = setVerdict(checks, withCpuid(CAPS, cpuid), vmcb12(change));
    return [verdict, check ?? needs.filter((name) => name.startsWith("cpu.")).join()];
  };
  const la57 = { [S.cr4]: 0x1020n };
  assertEquals(on(Cpuid.OF_HYPERVISOR, la57).join(" "), "unknown cpu.la57");
  assertEquals(on(Cpuid.OF_HYPERVISOR.set("la57", false), la57), ["fails", "cr4-reserved"]);
  assertEquals(on(Cpuid.OF_HYPERVISOR.set("la57", true), { [S.cr4]: 0x81020n }), [
    "fails",
    "cr4-reserved",
  ]);
  assertEquals(on(Cpuid.OF_HYPERVISOR, { [S.efer]: 0x5d00n })[1], "cpu.fxsr_opt");
  assertEquals(on(Cpuid.OF_HYPERVISOR, { [S.cr3]: 1n << 44n })[1], "cpu.pa");
  assertEquals(
    on(Cpuid.OF_HYPERVISOR.withPhysicalBits(40), { [S.cr3]: 1n << 44n })[1],
    "lme-pg-cr3",
  );
  // What no processor has needs no CPUID to be refused.
  assertEquals(on(Cpuid.OF_HYPERVISOR, { [S.cr4]: 0x80000020n }), ["fails", "cr4-reserved"]);
});
