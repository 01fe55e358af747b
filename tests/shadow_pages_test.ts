import { assert, assertEquals } from "@std/assert";
import { createVcpu } from "../engine/kvm/ioctls.ts";
import { REQ } from "../engine/kvm/constants.ts";
import { ROLE } from "../engine/paging/roles.ts";
import {
  ENTRY,
  entryAt,
  findPage,
  getPage,
  isTracked,
  mayWrite,
  syncPages,
  trackWrite,
  unprotect,
  zapPage,
} from "../engine/paging/shadow_pages.ts";
import type { Vcpu } from "../engine/kvm/vcpu.ts";
import { LINUX_6_12 } from "../engine/policies/mod.ts";
import { NESTED_AT, SHADOW_PAGES, V } from "../engine/svm/machine.ts";
import { Emulator } from "../traces/scenarios/emulator.ts";
import { parseScenario } from "../traces/scenarios/scenario_reader.ts";

const TABLE = ROLE.ACCESS | 2, LAST = ROLE.ACCESS | 1, DIRECT = LAST | ROLE.DIRECT;

function vcpu(npt = false): Vcpu {
  return createVcpu({ physicalBits: 40, npt, memory: 1 << 24 }, LINUX_6_12);
}

function link(v: Vcpu, parent: number, index: number, child: number): void {
  v.words[entryAt(parent, index)] = ENTRY.PRESENT | child << 12;
}

Deno.test("a shadow page is found by the page it shadows and its role", () => {
  const v = vcpu();
  const page = getPage(v, 7, TABLE);
  assertEquals(getPage(v, 7, TABLE), page);
  assertEquals(findPage(v, 7, TABLE), page);
  assertEquals(findPage(v, 8, TABLE), -1);
  assertEquals(findPage(v, 7, TABLE | ROLE.GUEST_MODE), -1);
});

Deno.test("writes to tables above the last level are caught, of the last level not", () => {
  const v = vcpu();
  getPage(v, 7, TABLE);
  getPage(v, 8, LAST);
  getPage(v, 9, DIRECT);
  assertEquals([7, 8, 9].map((gfn) => isTracked(v, gfn)), [true, false, false]);
  assertEquals([7, 8, 9].map((gfn) => mayWrite(v, gfn, true)), [false, false, true]);
  assertEquals([7, 8, 9].map((gfn) => mayWrite(v, gfn, false)), [false, true, true]);
});

Deno.test("a table that is shadowed becomes read-only wherever it was mapped", () => {
  const v = vcpu();
  const direct = getPage(v, 0, DIRECT);
  v.words[entryAt(direct, 7)] = ENTRY.PRESENT | ENTRY.WRITE | 7 << 12;
  v.set8(NESTED_AT + 7, 0x33);
  getPage(v, 7, TABLE);
  assertEquals(v.words[entryAt(direct, 7)]! & ENTRY.WRITE, 0);
  assertEquals(v.u8(NESTED_AT + 7), 0x03);
});

Deno.test("an emulated write drops the entry it changes, the third one the whole page", () => {
  const v = vcpu();
  const page = getPage(v, 7, TABLE);
  link(v, page, 3, getPage(v, 8, LAST));
  link(v, page, 4, getPage(v, 8, LAST));
  trackWrite(v, 0x7018, 8);
  assertEquals(v.words[entryAt(page, 3)], 0);
  assert(v.words[entryAt(page, 4)] !== 0);
  trackWrite(v, 0x7018, 8);
  assertEquals(findPage(v, 7, TABLE), page);
  trackWrite(v, 0x7018, 8);
  assertEquals(findPage(v, 7, TABLE), -1);
});

Deno.test("an odd write drops the whole page at once", () => {
  for (const [at, size] of [[0x7018, 2], [0x701c, 8]] as const) {
    const v = vcpu();
    getPage(v, 7, TABLE);
    trackWrite(v, at, size);
    assertEquals(findPage(v, 7, TABLE), -1);
  }
  const v = vcpu();
  getPage(v, 7, TABLE);
  trackWrite(v, 0x7018, 1);
  assert(findPage(v, 7, TABLE) >= 0);
});

Deno.test("dropping a page unlinks it, and frees the roots that were made for it", () => {
  const v = vcpu();
  const parent = getPage(v, 6, TABLE), child = getPage(v, 7, LAST);
  link(v, parent, 1, child);
  zapPage(v, child);
  assertEquals(v.words[entryAt(parent, 1)], 0);
  assert(!v.requested(REQ.MMU_FREE_OBSOLETE_ROOTS));
  v.set32(V.pgd_role, TABLE);
  v.set64(V.pgd_root, 0x6000n);
  zapPage(v, parent);
  assert(v.requested(REQ.MMU_FREE_OBSOLETE_ROOTS));
  assert(!unprotect(v, 6));
});

Deno.test("a last-level table that ran out of step is read again", () => {
  const v = vcpu();
  const page = getPage(v, 7, LAST);
  v.words[entryAt(page, 0)] = ENTRY.PRESENT;
  assert(mayWrite(v, 7, false));
  syncPages(v);
  assertEquals(v.words[entryAt(page, 0)], 0);
  assert(!mayWrite(v, 7, true));
});

Deno.test("when there is no room all pages go", () => {
  const v = vcpu();
  for (let gfn = 0; gfn <= SHADOW_PAGES; gfn++) getPage(v, gfn, DIRECT);
  assertEquals(findPage(v, 0, DIRECT), -1);
  assert(findPage(v, SHADOW_PAGES, DIRECT) >= 0);
});

/** EXITINTINFO of vmcb02 at each #VMEXIT. */
function interrupted(emulator: Emulator, spec: string): (string | undefined)[] {
  const record = emulator.run(parseScenario(`case ${spec}`));
  return record.events.filter((event) => "at" in event && event.at === "vmexit")
    .map((event) => (event as { ctl02?: Record<string, string> }).ctl02?.["088"]);
}

Deno.test("an exit that L0 keeps to itself shows in EXITINTINFO, on pages touched for the first time", () => {
  for (const npt of [true, false]) {
    const emulator = new Emulator(LINUX_6_12, { npt, full: true });
    // EVENTINJ without its valid bit comes back in EXITINTINFO of the first run only.
    assertEquals(interrupted(emulator, "c.a8=320"), [undefined]);
    assertEquals(interrupted(emulator, "c.a8=320 keepvm"), ["0000000000000320"]);
  }
});

Deno.test("under shadow paging, tables changed behind KVM's back keep their old meaning", () => {
  const last = (npt: boolean) => {
    const emulator = new Emulator(LINUX_6_12, { npt });
    emulator.run(parseScenario("first"));
    // L2's only large page is gone from its tables.
    const { post } = emulator.run(parseScenario("second m.42000=0 keepvm"));
    return (post as { vmcb12: Record<string, string> }).vmcb12["070"];
  };
  assertEquals(last(false), "0000000000000081");
  assertEquals(last(true), "000000000000007f");
});
