import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { globMatches } from "../cli/glob.ts";

const letters = fc.string({ unit: fc.constantFrom("a", "b", ".", "*"), maxLength: 8 });

Deno.test("a pattern fits the names that a regular expression says", () => {
  fc.assert(
    fc.property(letters, letters, (pattern, name) => {
      const source = pattern.replaceAll(".", "\\.").replaceAll("*", ".*");
      assertEquals(globMatches(pattern, name), new RegExp(`^${source}$`).test(name));
    }),
    { numRuns: 2000 },
  );
});

Deno.test("a pattern of many stars ends on a long name", () => {
  const name = "a".repeat(5000);
  assert(!globMatches("*a".repeat(500) + "b", name));
  assert(globMatches("*a".repeat(500), name));
  assert(!globMatches("x".repeat(70_000), name));
});
