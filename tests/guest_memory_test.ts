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

Deno.test("copies in memory that is used again hold what they should, and where the version is the same, the same", () => {
  const names = [0, 1, 2] as const;
  const name = fc.constantFrom(...names);
  const act = fc.oneof(
    { weight: 6, arbitrary: fc.tuple(fc.constant("write" as const), name, fc.nat(2)) },
    { weight: 6, arbitrary: fc.tuple(fc.constant("fork" as const), name, name) },
    { weight: 2, arbitrary: fc.tuple(fc.constant("overlay" as const), name, name) },
    { weight: 1, arbitrary: fc.tuple(fc.constant("new copy" as const), name, fc.constant(0)) },
    { weight: 4, arbitrary: fc.tuple(fc.constant("adopt" as const), name, name) },
  );
  fc.assert(
    fc.property(fc.array(act, { minLength: 40, maxLength: 120 }), (acts) => {
      const memories = names.map(() => new GuestMemory(SIZE));
      const expected = names.map(() => [0, 0, 0]);
      /** Whose pages a memory may look at, which it must not once these were written. */
      const lenders: (number | undefined)[] = names.map(() => undefined);
      const stale = names.map(() => false);
      const held = names.map(() => new Map<string, number>());
      const copies: { readonly memory: GuestMemory; readonly holds: readonly number[] }[] = [];
      let value = 0;
      const written = (lender: number) => {
        for (const [borrower, of] of lenders.entries()) {
          if (of === lender && !stale[borrower]) {
            stale[borrower] = true;
            written(borrower);
          }
        }
      };
      const looksAt = (borrower: number | undefined, lender: number): boolean =>
        borrower !== undefined && (borrower === lender || looksAt(lenders[borrower], lender));
      for (const [what, from, to] of acts) {
        const memory = memories[from]!;
        if (stale[from]) continue;
        if (what === "write") {
          written(from);
          memory.writable(to * PAGE_SIZE).fill(value = value % 255 + 1);
          expected[from]![to] = value;
        } else if (what === "new copy") {
          // What looks at another's pages is no copy for good.
          if (lenders[from] === undefined) {
            copies.push({ memory: memory.fork(), holds: [...expected[from]!] });
          }
        } else if (what === "adopt") {
          if (stale[to] || from === to || lenders[from] !== undefined) continue;
          written(to);
          memories[to]!.adopt(memory, PAGE_SIZE, 2 * PAGE_SIZE);
          expected[to]![1] = expected[from]![1]!;
        } else if (!looksAt(from, to)) {
          // Nothing may look at pages of what becomes a copy.
          written(to);
          memory[what](memories[to]!);
          lenders[to] = what === "overlay" ? from : lenders[from];
          expected[to] = [...expected[from]!];
          stale[to] = false;
        }
        for (const at of names) {
          if (stale[at]) continue;
          const now = holding(memories[at]!);
          assertEquals(now, expected[at], `memory ${at}`);
          for (const [page, content] of now.entries()) {
            const key = `${page} ${memories[at]!.versions[page]}`;
            assertEquals(content, held[at]!.get(key) ?? content, `${key} of ${at}`);
            held[at]!.set(key, content);
          }
        }
        for (const copy of copies) {
          assertEquals(holding(copy.memory), copy.holds, "a copy for good");
        }
      }
    }),
    { numRuns: 500 },
  );
});

/** The last byte of each of the first pages. */
function holding(memory: GuestMemory): number[] {
  return [0, 1, 2].map((page) => memory.page(page * PAGE_SIZE)[PAGE_SIZE - 1]!);
}
