import { assertEquals } from "@std/assert";
import fc from "fast-check";
import { Driver, UPSTREAM, type Vcpu } from "../engine/mod.ts";

Deno.test("a page that is set holds what it was set to, whatever was written in between", () => {
  const page = fc.integer({ min: 0, max: 1 }), value = fc.integer({ min: 1, max: 255 });
  const act = fc.oneof(
    {
      weight: 8,
      arbitrary: fc.record({ what: fc.constant("set" as const), page, image: page }),
    },
    {
      weight: 4,
      arbitrary: fc.record({ what: fc.constant("guest writes" as const), page, value }),
    },
    {
      weight: 4,
      arbitrary: fc.record({ what: fc.constant("image changes" as const), image: page, value }),
    },
    { weight: 1, arbitrary: fc.record({ what: fc.constant("other memory" as const) }) },
  );
  const acts = fc.array(act, { minLength: 10, maxLength: 40 });
  fc.assert(fc.property(acts, fc.boolean(), (acts, revised) => {
    const driver = new Driver(UPSTREAM);
    const images = [0, 1].map(() => ({ bytes: new Uint8Array(4096), revision: 0 }));
    const expected = [0, 1].map(() => 0);
    driver.feed({ kind: "session", vcpu: 0, meta: {} }, 0);
    for (const act of acts) {
      const v = driver.vcpu as Vcpu;
      if (act.what === "set") {
        const { bytes, revision } = images[act.image]!;
        // Of an image without a revision nobody knows whether it is another now.
        const data = revised ? images[act.image]! : { bytes };
        driver.feed({ kind: "memory", vcpu: 0, gpa: BigInt(4096 * act.page), data }, 1 + revision);
        expected[act.page] = bytes[7]!;
      } else if (act.what === "guest writes") {
        v.memory.write8(4096 * act.page + 7, act.value);
        expected[act.page] = act.value;
      } else if (act.what === "image changes") {
        const image = images[act.image]!;
        image.bytes[7] = act.value;
        image.revision++;
      } else {
        driver.vcpu = v.fork(UPSTREAM);
      }
      const memory = driver.vcpu!.memory;
      assertEquals([0, 1].map((page) => memory.read8(4096 * page + 7)), expected);
    }
  }));
});
