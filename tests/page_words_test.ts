/**
 * The words of a page of guest memory are its bytes, whichever kind of memory it is.
 */
import { assertEquals } from "@std/assert";
import { FewPages } from "../engine/replay/few_pages.ts";
import { GuestMemory } from "../engine/svm/memory.ts";

/** A page that does not begin where words do. */
const askew = () => new Uint8Array(4097).subarray(1);

for (
  const [what, make] of [
    ["of a machine", () => {
      const memory = new GuestMemory(1 << 20);
      memory.share(0x2000, askew());
      return memory;
    }],
    ["of a log", () => new FewPages(40, [[2, askew()]])],
  ] as const
) {
  Deno.test(`words of pages are their bytes: memory ${what}`, () => {
    const memory = make();
    for (const gpa of [0x2000, 0x3000]) {
      memory.write(gpa + 4, 4, 0x12345678);
      assertEquals(memory.words(gpa)[1], 0x12345678);
      memory.writableWords(gpa)[2] = 7;
      assertEquals(memory.read(gpa + 8, 4), 7);
      assertEquals(memory.words(gpa)[2], 7);
    }
    assertEquals(memory.words(0x4000)[0], 0);
  });
}
