import { CHECKS_APM } from "../engine/checks/apm.ts";
import { CHECKS_6_12 } from "../engine/checks/linux_6_12.ts";
import { CHECKS_7_3 } from "../engine/checks/linux_7_3.ts";
import { assert, assertEquals } from "@std/assert";
import { type Check, CHECK_SETS, checkByText } from "../engine/checks/sets.ts";
import { C, Machine, S, VMCB12_AT } from "../engine/svm/machine.ts";
import { CONTROL_FIELDS, SAVE_FIELDS } from "../engine/svm/vmcb_fields.ts";

/** A vmcb12 that passes every check: a 64-bit L2. */
function valid(npt = true): Machine {
  const m = new Machine({ physicalBits: 40, npt, memory: 1 << 24 });
  const at = VMCB12_AT;
  m.set64(at + S.efer, 0x1500n);
  m.set64(at + S.cr0, 0x80000031n);
  m.set64(at + S.cr3, 0x40000n);
  m.set64(at + S.cr4, 0x20n);
  m.set64(at + S.dr6, 0xffff0ff0n);
  m.set64(at + S.dr7, 0x400n);
  m.set64(at + S.g_pat, 0x0007040600070406n);
  m.set16(at + S.cs_attrib, 0xa9b);
  m.set32(at + C.intercept_word4, 1);
  m.set32(at + C.asid, 1);
  return m;
}

function failing(m: Machine, rows: readonly Check[]): string[] {
  return rows.filter((row) => row.fails(m, VMCB12_AT)).map((row) => row.id);
}

type Change = readonly [field: string, value: bigint];
/** What trips each check, and what at its boundary does not. */
const CASES: Readonly<Record<string, { trips: readonly Change[]; passes: readonly Change[] }>> = {
  "efer-svme": { trips: [["efer", 0x500n]], passes: [["efer", 0x1500n]] },
  "cr0-nw-without-cd": { trips: [["cr0", 0xa0000031n]], passes: [["cr0", 0xe0000031n]] },
  "cr0-high": { trips: [["cr0", 0x1_80000031n]], passes: [["cr0", 0x80000031n]] },
  "dr6-high": { trips: [["dr6", 1n << 32n]], passes: [["dr6", 0xffffffffn]] },
  "dr7-high": { trips: [["dr7", 1n << 63n]], passes: [["dr7", 0xffffffffn]] },
  "lme-pg-without-pae": { trips: [["cr4", 0n]], passes: [["cr4", 0n], ["efer", 0x1000n]] },
  "lme-pg-without-pe": { trips: [["cr0", 0x80000030n]], passes: [["cr0", 0x30n]] },
  "lme-pg-cr3": { trips: [["cr3", 1n << 40n]], passes: [["cr3", (1n << 40n) - 1n]] },
  "cr3-mbz": {
    trips: [["cr3", 1n << 40n], ["efer", 0x1000n]],
    passes: [["cr3", (1n << 40n) - 1n]],
  },
  "cs-l-and-d": { trips: [["cs_attrib", 0xe9bn]], passes: [["cs_attrib", 0xc9bn]] },
  "cr4-reserved": { trips: [["cr4", 1n << 23n | 0x20n]], passes: [["cr4", 1n << 20n | 0x20n]] },
  "efer-reserved": { trips: [["efer", 0x1502n]], passes: [["efer", 0x1d01n]] },
  "g-pat": {
    trips: [["nested_ctl", 1n], ["g_pat", 0x0007040600070402n]],
    passes: [["g_pat", 0x0007040600070402n]],
  },
  "vmrun-intercept": { trips: [["intercept_word4", 2n]], passes: [["intercept_word4", 3n]] },
  "asid-zero": { trips: [["asid", 0n]], passes: [["asid", 0xffffffffn]] },
  "ncr3-legal": {
    trips: [["nested_ctl", 1n], ["nested_cr3", 1n << 40n]],
    passes: [["nested_cr3", 1n << 40n]],
  },
  "msrpm-address": {
    trips: [["msrpm_base_pa", (1n << 40n) - 0x1000n]],
    passes: [["msrpm_base_pa", (1n << 40n) - 0x2000n]],
  },
  "iopm-address": {
    trips: [["iopm_base_pa", (1n << 40n) - 0x2000n]],
    passes: [["iopm_base_pa", (1n << 40n) - 0x3000n]],
  },
  "event-injection": { trips: [["event_inj", 0x80000302n]], passes: [["event_inj", 0x8000031en]] },
  "event-inj": { trips: [["event_inj", 0x8000031dn]], passes: [["event_inj", 0x8000031en]] },
  "vnmi-without-nmi-intercept": {
    trips: [["int_ctl", 1n << 26n]],
    passes: [["int_ctl", 1n << 26n], ["intercept_word3", 2n]],
  },
};

const SIZES = new Map([...CONTROL_FIELDS, ...SAVE_FIELDS].map((field) => [field.name, field.size]));
const AT: Readonly<Record<string, number>> = { ...C, ...S };

function changed(changes: readonly Change[]): Machine {
  const m = valid();
  for (const [field, value] of changes) {
    const at = VMCB12_AT + AT[field]!;
    const size = SIZES.get(field as never)!;
    if (size === 8) m.set64(at, value);
    else if (size === 4) m.set32(at, Number(value));
    else m.set16(at, Number(value));
  }
  return m;
}

for (const { name, checks: rows } of CHECK_SETS) {
  Deno.test(`a valid vmcb12 passes the checks of ${name}`, () => {
    const nested = rows.filter((row) => row.group !== "cr3");
    assertEquals(failing(valid(), nested), []);
  });

  for (const row of rows) {
    if (row.group === "cr3" || row.id === "np-without-npt") continue;
    Deno.test(`${name}: ${row.id} trips on its own field and passes at the boundary`, () => {
      const { trips, passes } = CASES[row.id]!;
      assert(row.fails(changed(trips), VMCB12_AT), "it does not trip");
      assert(!row.fails(changed(passes), VMCB12_AT), "it trips where it must not");
    });
  }

  Deno.test(`${name}: ids and texts are unique`, () => {
    assertEquals(new Set(rows.map((row) => row.id)).size, rows.length);
    const texts = rows.flatMap((row) => row.texts);
    assertEquals(new Set(texts).size, texts.length);
  });

  Deno.test(`${name}: what a check reads are fields of the VMCB`, () => {
    const known = new Set([
      ...CONTROL_FIELDS.map((field) => `control.${field.name}`),
      ...SAVE_FIELDS.map((field) => `save.${field.name}`),
    ]);
    for (const row of rows) for (const field of row.reads) assert(known.has(field), field);
  });
}

Deno.test("nested paging needs a hypervisor that has it", () => {
  for (const rows of [CHECKS_6_12.checks, CHECKS_APM.checks]) {
    const row = rows.find(({ id }) => id === "np-without-npt")!;
    for (const npt of [true, false]) {
      const m = valid(npt);
      assert(!row.fails(m, VMCB12_AT));
      m.set32(VMCB12_AT + C.nested_ctl, 1);
      assertEquals(row.fails(m, VMCB12_AT), !npt);
    }
  }
});

Deno.test("every reserved event is illegal to inject, every other one is not", () => {
  const row = CHECKS_APM.checks.find(({ id }) => id === "event-injection")!;
  const none = new Set([2, 9, 15, 20, 21, 22, 23, 24, 25, 26, 27, 29, 31]);
  for (let type = 0; type < 8; type++) {
    for (let vector = 0; vector < 256; vector++) {
      const legal = type === 0 || type === 2 || type === 4 ||
        type === 3 && vector < 32 && !none.has(vector);
      const event = BigInt(type << 8 | vector);
      const wide = !legal || type === 3 && (vector === 4 || vector === 5);
      const inMode = (efer: bigint) =>
        row.fails(changed([["event_inj", event | 0x80000000n], ["efer", efer]]), VMCB12_AT);
      assertEquals(inMode(0x1000n), !legal);
      assertEquals(inMode(0x1500n), wide);
      assert(!row.fails(changed([["event_inj", event]]), VMCB12_AT));
    }
  }
});

Deno.test("Linux 7.3 lets L1 inject what exists, and nothing else", () => {
  const row = CHECKS_7_3.checks.find(({ id }) => id === "event-inj")!;
  const none = new Set([2, 9, 15, 20, 21, 22, 23, 24, 25, 26, 27, 29, 31]);
  for (let type = 0; type < 8; type++) {
    for (let vector = 0; vector < 256; vector++) {
      const legal = type === 0 || type === 2 || type === 4 ||
        type === 3 && vector < 32 && !none.has(vector);
      const event = BigInt(type << 8 | vector);
      assertEquals(row.fails(changed([["event_inj", event | 0x80000000n]]), VMCB12_AT), !legal);
      assert(!row.fails(changed([["event_inj", event]]), VMCB12_AT));
    }
  }
});

Deno.test("a kernel's text, old or new, leads to its check", () => {
  for (const { checks } of CHECK_SETS) {
    for (const { id, texts } of checks) {
      for (const text of texts) assertEquals(checkByText(text)?.id, id);
    }
  }
  assertEquals(checkByText("no such check"), undefined);
});
