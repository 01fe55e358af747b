import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { Differ, Findings, type RunDifference, RunGatherer } from "../engine/diff/mod.ts";
import { EARLY_EXIT, LINUX_6_12, UNIFIED } from "../engine/policies/mod.ts";
import { BUILTINS, builtinScenarios } from "../traces/scenarios/builtin.ts";
import { generate } from "../traces/generate/generate.ts";
import { recordScenarios } from "../traces/scenarios/record.ts";
import { parseScenario } from "../traces/scenarios/scenario_reader.ts";

/** What differs in many kinds of runs, follow-ons among them, each of its own objects. */
function differences(): RunDifference[] {
  // Two of three go on in the machine that the one before left.
  const generated = [...generate({ seed: 5, count: 150, entries: ["vmrun"], sequences: 0 })]
    .map((line, i) => parseScenario(i % 3 === 0 ? line : `${line} keepvm`));
  const scenarios = [...BUILTINS.flatMap(({ name }) => builtinScenarios(name)), ...generated];
  const found: RunDifference[] = [];
  const differ = new Differ([EARLY_EXIT, UNIFIED, LINUX_6_12], (difference) => {
    found.push(difference);
  });
  for (const event of recordScenarios(scenarios, EARLY_EXIT)) differ.feed(event);
  differ.finish();
  return found;
}

/** What is found in parts of a sequence, each of which is gathered apart. */
function gathered(
  parts: readonly (readonly RunDifference[])[],
): { findings: Findings; rows: number } {
  const findings = new Findings();
  let rows = 0;
  for (const part of parts) {
    const gatherer = new RunGatherer();
    for (const difference of part) gatherer.add(difference);
    for (const runs of gatherer.runs) findings.gather(runs);
    findings.settle(gatherer.owners);
    rows += gatherer.runs.length;
  }
  return { findings, rows };
}

Deno.test("runs that are gathered in parts make the findings that all make, one after the other", () => {
  const all = differences();
  const follows = all.filter(({ fields }) => fields.some(({ origin }) => origin !== undefined));
  assert(all.length > 100 && follows.length > 20, `${follows.length} of ${all.length}`);
  // Few kinds, so that they come again, and follow-ons more often than traces have them.
  const kinds = fc.tuple(
    fc.subarray(all, { minLength: 2, maxLength: 6 }),
    fc.subarray(follows, { minLength: 1, maxLength: 3 }),
  );
  const sequences = kinds.chain(([some, more]) => {
    const one = fc.constantFrom(...some, ...more);
    return fc.array(fc.array(one, { maxLength: 30 }), { minLength: 1, maxLength: 4 });
  });
  fc.assert(
    fc.property(sequences, (sequence) => {
      let run = 0;
      const parts = sequence.map((part) => part.map((one) => ({ ...one, run, event: 10 * run++ })));
      const findings = new Findings();
      for (const difference of parts.flat()) findings.add(difference);
      assertEquals(gathered(parts).findings.list(), findings.list());
    }),
    { numRuns: 400 },
  );
});

Deno.test("what gathered runs take up depends on how many kinds there are, not on how many runs", () => {
  const all = differences().slice(0, 40);
  const many = Array.from({ length: 50 }, () => all).flat();
  const { findings, rows } = gathered([many]);
  const counted = findings.list().reduce((sum, { runs }) => sum + runs, 0);
  assert(counted >= many.length && rows <= 2 * all.length, `${rows} for ${all.length}`);
});
