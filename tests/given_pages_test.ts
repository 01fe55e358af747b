import { assertEquals } from "@std/assert";
import fc from "fast-check";
import {
  Driver,
  memoryDigest,
  RunningDigest,
  stateDigest,
  UPSTREAM,
  type Vcpu,
} from "../engine/mod.ts";
import { PageHistory } from "../engine/svm/page_history.ts";

/** Offsets of the words of a page that the test has to do with. */
const PLACES = [4, 4 * 600];
/** A word that differs from others in its first and its last byte. */
const word = (value: number) => value * 0x01000001;
/** Lists of constants for these words: for the first, the second and both. */
const LISTS = [[1, 0], [2, 0], [1, 2]].map((values, i) => {
  const stretches = values.flatMap((value, k) =>
    value === 0 ? [] : [PLACES[k]! / 4, 1, word(value)]
  );
  // None begins at the same place as another.
  return {
    at: i,
    numbers: [PageHistory.anotherList(), stretches.length / 3, ...stretches],
    values,
  };
});

// Most often the first, so that something happens to it again.
const page = fc.constantFrom(0, 0, 0, 1), place = fc.integer({ min: 0, max: 1 });
const value = fc.integer({ min: 0, max: 3 });
const ACTS = fc.oneof(
  { weight: 8, arbitrary: fc.record({ what: fc.constant("set" as const), page, image: page }) },
  {
    weight: 1,
    arbitrary: fc.record({ what: fc.constant("guest writes" as const), page, place, value }),
  },
  {
    weight: 10,
    arbitrary: fc.record({
      what: fc.constant("path writes" as const),
      page,
      list: fc.constantFrom(...LISTS),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      what: fc.constant("image changes" as const),
      image: page,
      place,
      value,
    }),
  },
  { weight: 6, arbitrary: fc.record({ what: fc.constant("digest" as const) }) },
  { weight: 1, arbitrary: fc.record({ what: fc.constant("other memory" as const) }) },
);

Deno.test("a page that is set holds what it was set to, whatever was written in between, as does its digest", () => {
  const acts = fc.array(ACTS, { minLength: 80, maxLength: 160 });
  fc.assert(
    fc.property(acts, fc.boolean(), (acts, revised) => {
      const driver = new Driver(UPSTREAM);
      // One of them says nothing of the second word.
      const images = [4096, 2048].map((size) => ({ bytes: new Uint8Array(size), revision: 0 }));
      const expected = [[0, 0], [0, 0]];
      const digest = new RunningDigest();
      let whole = 0;
      driver.feed({ kind: "session", vcpu: 0, meta: {} }, 0);
      for (const act of acts) {
        const v = driver.vcpu as Vcpu;
        switch (act.what) {
          case "set": {
            const { bytes } = images[act.image]!;
            // Of an image without a revision nobody knows whether it is another now.
            const data = revised ? images[act.image]! : { bytes };
            driver.feed({ kind: "memory", vcpu: 0, gpa: BigInt(4096 * act.page), data }, 1);
            const view = new DataView(bytes.buffer);
            for (const [k, at] of PLACES.entries()) {
              if (at < bytes.length) expected[act.page]![k] = view.getUint32(at, true);
            }
            break;
          }
          case "guest writes":
            v.memory.write(4096 * act.page + PLACES[act.place]!, 4, word(act.value));
            expected[act.page]![act.place] = word(act.value);
            break;
          case "path writes": {
            const { at, numbers, values } = act.list;
            const list = Int32Array.of(...new Array(at).fill(0), ...numbers);
            v.memory.writeConstants(4096 * act.page, list, at);
            for (const [k, value] of values.entries()) {
              if (value !== 0) expected[act.page]![k] = word(value);
            }
            break;
          }
          case "image changes": {
            const image = images[act.image]!, at = PLACES[act.place]!;
            if (at >= image.bytes.length) break;
            new DataView(image.bytes.buffer).setUint32(at, word(act.value), true);
            image.revision++;
            break;
          }
          case "digest":
            digest.add(v);
            whole = memoryDigest(v, stateDigest(v, whole));
            assertEquals(digest.value, whole);
            break;
          default:
            driver.vcpu = v.fork(UPSTREAM);
        }
        const { memory } = driver.vcpu as Vcpu;
        const held = [0, 1].map((page) => PLACES.map((at) => memory.read(4096 * page + at, 4)));
        assertEquals(held, expected);
      }
    }),
    { numRuns: 300 },
  );
});

Deno.test("a page far behind the end of memory is none of those that were set", () => {
  const driver = new Driver(UPSTREAM);
  const data = { bytes: new Uint8Array(4096), revision: 0 };
  const set = (gpa: bigint) => driver.feed({ kind: "memory", vcpu: 0, gpa, data }, 0);
  driver.feed({ kind: "session", vcpu: 0, meta: {} }, 0);
  set(0x1000n);
  const { memory } = driver.vcpu as Vcpu;
  memory.writeConstants(0x1000, Int32Array.of(PageHistory.anotherList(), 1, 0, 1, word(1)), 0);
  // Page number 2^32 + 1.
  set((1n << 44n) + 0x1000n);
  assertEquals(memory.read(0x1000, 4), word(1));
});
