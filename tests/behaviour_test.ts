/**
 * What replay and diff give for a fixed set of cases under every policy, held to
 * what it was: `deno test -A -u tests/behaviour_test.ts` accepts new behaviour.
 * Numbers of events do not count: where a recorder puts an event is its business.
 */
import { crc32 } from "node:zlib";
import type { TraceEvent } from "../engine/event.ts";
import {
  Differ,
  fieldText,
  type Finding,
  Findings,
  type RunDifference,
  valueTexts,
} from "../engine/diff/mod.ts";
import { ARCHITECTURAL, EARLY_EXIT, LINUX_6_12, UNIFIED } from "../engine/policies/mod.ts";
import type { Policy } from "../engine/policy.ts";
import { identify } from "../engine/replay/identify.ts";
import { Replayer } from "../engine/replay/replayer.ts";
import { copyEvent } from "../codecs/mod.ts";
import { BUILTINS, builtinScenarios } from "../traces/scenarios/builtin.ts";
import { recordScenarios } from "../traces/scenarios/record.ts";
import type { Scenario } from "../traces/scenarios/scenario.ts";
import { parseScenarios } from "../traces/scenarios/scenario_reader.ts";

const POLICIES = [EARLY_EXIT, UNIFIED, LINUX_6_12, ARCHITECTURAL] as const;
const SETS = {
  "built-in": BUILTINS.flatMap(({ name }) => builtinScenarios(name)),
  // Kept in a file: what the generator makes is its own business.
  "generated": parseScenarios(
    await Deno.readTextFile(new URL("behaviour_cases.txt", import.meta.url)),
  ),
} as const;

async function record(cases: readonly Scenario[], policy: Policy, npt: boolean) {
  // The recorder uses the memory of an event's images again.
  return await Array.fromAsync(recordScenarios(cases, policy, { npt }), copyEvent);
}

function replayLines(events: readonly TraceEvent[], policy: Policy): string[] {
  const found: string[] = [];
  const replayer = new Replayer(policy, ({ scenario, field, recorded, replayed }) => {
    found.push([scenario, field, recorded, replayed].join(" "));
  });
  for (const event of events) replayer.feed(event);
  const { runs, agreed, skipped, outcomes, digest, digested, unmodelled } = replayer.finish();
  const counts = [...outcomes].map(([kind, { compared, agreed }]) =>
    `${kind} ${agreed}/${compared}`
  );
  const missed = [...unmodelled].map(([what, times]) => `${what}: ${times}`);
  return [
    `${policy.name}: ${agreed} of ${runs} agree, ${skipped} skipped; ${counts.join(", ")}`,
    `  digest ${digest} over ${digested}; ${found.length} mismatches, ${sum(found)}`,
    ...missed.map((line) => `  not modelled: ${line}`),
  ];
}

function sum(value: unknown): string {
  return crc32(JSON.stringify(value)).toString(16).padStart(8, "0");
}

/** A finding without numbers of events. */
function findingLines(
  { id, title, kind, runs, parted, steps, fields, ...rest }: Finding,
): string[] {
  const { checks, needs, first, cause } = rest;
  return [
    `${runs} ${kind} ${id}`,
    `  ${title}`,
    `  ${parted}; ${steps.map((step) => step ?? "-").join(" / ")}; ${JSON.stringify(checks)}`,
    ...(needs.length === 0 ? [] : [`  needs ${needs.join(", ")}`]),
    `  first ${first.scenario}, run ${first.run}`,
    ...(cause === undefined ? [] : [`  from ${cause.run.scenario}: ${cause.title}`]),
    ...fields.map((field) => {
      const { a, b, bits } = valueTexts(field);
      return `  ${field.runs} ${fieldText(field)}: ${a} / ${b} (${bits.join(" ")})`;
    }),
  ];
}

function diffLines(
  events: readonly TraceEvent[],
  policies: readonly Policy[],
  whole: boolean,
): string[] {
  const findings = new Findings();
  const differences: RunDifference[] = [];
  const differ = new Differ(policies, (difference) => {
    findings.add(difference);
    differences.push(difference);
  });
  for (const event of events) differ.feed(event);
  const { runs, different } = differ.finish();
  const told = differences.map(({ event: _, reportsOrigin, fields, ...rest }) => [
    rest.run,
    rest.policies,
    rest.ends,
    rest.parting,
    rest.reports,
    reportsOrigin?.run ?? null,
    fields.map(({ area, field, stepA, stepB, when, carried, origin, needs, ...values }) => {
      const { a, b, bits } = valueTexts({ area, field, ...values });
      return [[area, field.name, a, b, bits, stepA, stepB, when, carried, origin?.run, needs]];
    }),
  ]);
  const list = findings.list();
  return [
    `${policies.map(({ name }) => name).join(", ")}: ${different.join(", ")} of ${runs}, ${
      sum(told)
    }`,
    ...list.flatMap((finding) => {
      const lines = findingLines(finding);
      return whole ? lines : [...lines.slice(0, 2), `  ${sum(lines)}`];
    }),
  ];
}

for (const [name, cases] of Object.entries(SETS)) {
  for (const npt of [true, false]) {
    const set = `${name} cases, npt ${npt ? "on" : "off"}`;
    Deno.test(`replay of ${set}`, async (t) => {
      const lines: string[] = [];
      for (const policy of POLICIES) {
        const events = await record(cases, policy, npt);
        lines.push(`recorded under ${policy.name}`);
        for (const other of POLICIES) {
          for (const line of replayLines(events, other)) lines.push(`  ${line}`);
        }
      }
      await t.assertSnapshot(lines.join("\n"));
    });

    Deno.test(`diff of ${set}`, async (t) => {
      const events = await record(cases, EARLY_EXIT, npt);
      const lines = diffLines(events, POLICIES, name === "built-in" && npt);
      const unified = await record(cases, UNIFIED, npt);
      lines.push("", ...diffLines(unified, [LINUX_6_12, UNIFIED], false));
      await t.assertSnapshot(lines.join("\n"));
    });
  }
}

Deno.test("identification of generated cases", async (t) => {
  const lines: string[] = [];
  for (const policy of POLICIES) {
    const events = await record(SETS.generated, policy, true);
    const found = await identify(async function* () {
      yield* await Promise.resolve(events);
    });
    lines.push(`${policy.name}: ${found.sentence}`);
    lines.push(`  ${found.runs} runs, ${found.telling} telling, ${found.unexplained} unexplained`);
    for (const { policy, checks, for: fits, against, first } of found.candidates) {
      const example = first &&
        [first.scenario, first.field, first.recorded, first.replayed].join(" ");
      lines.push(`  ${policy} ${checks}: ${fits} for, ${against} against; ${example ?? "none"}`);
    }
  }
  await t.assertSnapshot(lines.join("\n"));
});
