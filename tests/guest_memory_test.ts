import { assertEquals } from "@std/assert";
import fc from "fast-check";
import { GuestMemory, PAGE_SIZE } from "../engine/svm/memory.ts";

const PAGES = 6;
const SIZE = PAGES * PAGE_SIZE;

/** One thing that is done to a memory, and to the pages that it should hold: the first byte of each. */
type Step = readonly [
  "replace" | "share" | "write" | "fork" | "overlay" | "reset" | "clear",
  number,
  number,
];

const step: fc.Arbitrary<Step> = fc.tuple(
  fc.constantFrom(
    ...["replace", "share", "write", "write", "fork", "overlay", "reset", "clear"] as const,
  ),
  fc.nat(PAGES - 1),
  fc.integer({ min: 1, max: 255 }),
);

Deno.test("memory holds what was put there, whoever shares its pages", () => {
  const common = Array.from({ length: 256 }, (_, i) => new Uint8Array(PAGE_SIZE).fill(i));
  fc.assert(
    fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
      let memory = new GuestMemory(SIZE);
      let holds = new Map<number, number>();
      /** Memories that a copy was made of, and what they are to hold for good. */
      const before: { memory: GuestMemory; holds: Map<number, number> }[] = [];
      for (const [what, page, value] of steps) {
        const gpa = page * PAGE_SIZE;
        switch (what) {
          case "replace":
          case "share":
            memory[what](gpa, common[value]!);
            holds.set(page, value);
            break;
          case "write":
            memory.writable(gpa).fill(value);
            holds.set(page, value);
            break;
          case "fork":
          case "overlay":
            before.push({ memory, holds: new Map(holds) });
            memory = memory[what]();
            break;
          case "reset":
            memory.reset();
            holds = new Map();
            break;
          case "clear":
            memory.clear(gpa, gpa + PAGE_SIZE);
            holds.delete(page);
        }
        for (const { memory: m, holds: h } of [...before, { memory, holds }]) same(m, h);
      }
      for (const [value, page] of common.entries()) {
        assertEquals([page[0], page[PAGE_SIZE - 1]], [value, value], "a shared page was written");
      }
    }),
    { numRuns: 200 },
  );
});

function same(memory: GuestMemory, holds: ReadonlyMap<number, number>): void {
  const numbers = [...holds.keys()].sort((a, b) => a - b);
  assertEquals([...memory.pages()], numbers);
  for (let page = 0; page < PAGES; page++) {
    const bytes = memory.page(page * PAGE_SIZE), value = holds.get(page) ?? 0;
    assertEquals([bytes[0], bytes[PAGE_SIZE - 1]], [value, value], `page ${page}`);
    assertEquals(memory.allocated(page * PAGE_SIZE), holds.has(page));
  }
}

Deno.test("a page that has the version that it had holds what it held, in memory that is used again for copies", () => {
  const names = [0, 1, 2] as const;
  const memoryAt = fc.constantFrom(...names);
  const act = fc.oneof(
    { weight: 3, arbitrary: fc.tuple(fc.constant("write" as const), memoryAt, fc.nat(2)) },
    { weight: 3, arbitrary: fc.tuple(fc.constant("fork" as const), memoryAt, memoryAt) },
    { weight: 2, arbitrary: fc.tuple(fc.constant("overlay" as const), memoryAt, memoryAt) },
  );
  fc.assert(
    fc.property(fc.array(act, { minLength: 20, maxLength: 80 }), (acts) => {
      const memories = names.map(() => new GuestMemory(SIZE));
      /** Whose pages a memory may look at, which it must not once these were written. */
      const lenders: (number | undefined)[] = names.map(() => undefined);
      const stale = names.map(() => false);
      const held = names.map(() => new Map<string, number>());
      let value = 0;
      const writes = (lender: number) => {
        for (const [borrower, of] of lenders.entries()) {
          if (of === lender && !stale[borrower]) {
            stale[borrower] = true;
            writes(borrower);
          }
        }
      };
      const looksAt = (borrower: number | undefined, lender: number): boolean =>
        borrower !== undefined && (borrower === lender || looksAt(lenders[borrower], lender));
      for (const [what, from, to] of acts) {
        if (stale[from]) continue;
        if (what === "write") {
          writes(from);
          memories[from]!.writable(to * PAGE_SIZE).fill(value = value % 255 + 1);
        } else if (!looksAt(from, to)) {
          // Nothing may look at pages of what becomes a copy.
          writes(to);
          memories[from]![what](memories[to]!);
          lenders[to] = what === "overlay" ? from : lenders[from];
          stale[to] = false;
        }
        for (const name of names) {
          if (stale[name]) continue;
          const memory = memories[name]!;
          for (let page = 0; page < 3; page++) {
            const key = `${page} ${memory.versions[page]}`, now = memory.page(page * PAGE_SIZE)[0]!;
            assertEquals(now, held[name]!.get(key) ?? now, `${key} of ${name}`);
            held[name]!.set(key, now);
          }
        }
      }
    }),
    { numRuns: 500 },
  );
});
