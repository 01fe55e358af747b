/**
 * Registers of a recording are those that its replay begins with.
 */
import { assertEquals } from "@std/assert";
import { fieldNamed, readBigint, writeField } from "../engine/image/fields.ts";
import { UPSTREAM } from "../engine/policies/mod.ts";
import { Driver } from "../engine/replay/drive.ts";
import { regsBytes } from "../engine/replay/views.ts";
import { REGS_LAYOUT } from "../engine/svm/regs_layout.ts";
import type { Vcpu } from "../engine/kvm/vcpu.ts";
import { copyEvent } from "../codecs/mod.ts";
import { builtinScenarios } from "../traces/scenarios/builtin.ts";
import { recordScenarios } from "../traces/scenarios/record.ts";

for (
  const [field, value] of [
    ["tr_attrib", 0x8b],
    ["tr_selector", 0x18],
    ["tr_limit", 0x67],
    ["ldtr_selector", 0x20],
    ["gs_selector", 0x28],
  ] as const
) {
  Deno.test(`a replay begins with the ${field} that was recorded`, () => {
    const driver = new Driver(UPSTREAM);
    const seen: bigint[] = [];
    const row = fieldNamed(REGS_LAYOUT, field);
    driver.ready = (v: Vcpu) => void seen.push(readBigint(regsBytes(v), row));
    let index = 0;
    for (const shared of recordScenarios(builtinScenarios("enter"), UPSTREAM)) {
      const event = copyEvent(shared);
      if (event.kind === "vmrun" && event.regs !== undefined) {
        writeField(event.regs.bytes, row, value);
      }
      driver.feed(event, index++);
    }
    assertEquals(seen, [BigInt(value)]);
  });
}
