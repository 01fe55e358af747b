/** 20,000 mutants in all; `deno task fuzz` tries as many as it is told. */
import { assert, assertEquals } from "@std/assert";
import { fuzz, fuzzKind } from "./fuzz.ts";

Deno.test("12,000 mutated traces end in their own events or a typed error", async () => {
  const report = await fuzz(12_000);
  assertEquals(report.inputs, 12_000);
  // A run in which every mutant is refused at the door proves little.
  assert(report.accepted > 100 && (report.errors.damaged ?? 0) > 1000);
});

const COUNTS = [
  ["events", 500, "wrong events behind right checksums"],
  ["records", 2000, "records that the lab would not print"],
  ["logs", 1500, "logs that a mail or an editor went through"],
  ["shards", 1500, "parts of runs that somebody changed"],
  ["policies", 1500, "policies with something else in some place"],
  ["lines", 500, "command lines with any values"],
  ["scenarios", 250, "files of scenarios"],
  ["pairs", 250, "recordings to compare, of which one was changed"],
] as const;

for (const [kind, count, what] of COUNTS) {
  const name = `${count} mutants: ${what} end with a status of the table, soon and in words`;
  // A process that a command refuses its second input in ends with the first one open.
  Deno.test({ name, sanitizeResources: false }, async () => {
    const report = await fuzzKind(kind, count);
    assertEquals(report.inputs, count);
    const refused = Object.values(report.errors).reduce((sum, n) => sum + n, 0);
    assert(report.accepted > count / 50, JSON.stringify(report));
    assert(refused > (kind === "events" ? 3 : count / 50), JSON.stringify(report));
  });
}
