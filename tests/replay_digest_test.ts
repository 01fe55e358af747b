import { crc32 } from "node:zlib";
import { assertEquals } from "@std/assert";
import fc from "fast-check";
import { crcShift, joinCrc, shiftCrc } from "../engine/svm/crc.ts";
import {
  Driver,
  LINUX_6_12,
  memoryDigest,
  RunningDigest,
  stateDigest,
  type Vcpu,
} from "../engine/mod.ts";
import { BUILTINS, builtinScenarios } from "../traces/scenarios/builtin.ts";
import { recordScenarios } from "../traces/scenarios/record.ts";

const bytes = fc.uint8Array({ maxLength: 300 });

Deno.test("joinCrc() is the CRC-32 of bytes one after the other", () => {
  fc.assert(fc.property(bytes, bytes, (a, b) => {
    const both = new Uint8Array([...a, ...b]);
    assertEquals(joinCrc(crc32(a), crc32(b), b.length), crc32(both));
    assertEquals((shiftCrc(crcShift(b.length), crc32(a)) ^ crc32(b)) >>> 0, crc32(both));
  }));
});

Deno.test("RunningDigest gives what digesting all pages gives, whatever was written meanwhile", async () => {
  const driver = new Driver(LINUX_6_12);
  const digest = new RunningDigest();
  let expected = 0;
  let index = 0;
  let states = 0;
  const scenarios = BUILTINS.flatMap((builtin) => builtinScenarios(builtin.name));
  for await (const event of recordScenarios(scenarios, LINUX_6_12, { repeat: 2 })) {
    driver.feed(event, index++);
    if (event.kind !== "regs" || event.phase !== "post") continue;
    const v = driver.vcpu as Vcpu;
    digest.add(v);
    expected = memoryDigest(v, stateDigest(v, expected));
    assertEquals(digest.value, expected);
    states++;
  }
  assertEquals(states >= 2 * scenarios.length, true);
});
