import { assertEquals, assertStringIncludes } from "@std/assert";
import {
  EARLY_EXIT,
  FIXES,
  identify,
  kernelPolicy,
  LINUX_6_12,
  POLICIES,
  type Policy,
  withFixes,
} from "../engine/mod.ts";
import { BUILTINS, builtinScenarios, parseScenarios, recordScenarios } from "../traces/mod.ts";

/** Failed checks with an event to inject, a full #VMEXIT with one, a tracked NMI, and a bad RSM. */
const TELLING = parseScenarios(`
plain control.asid=0
inject control.asid=0 c.a8=80000420
full c.a8=80000420 s.148=0
nmi c.a8=80000200 c.48=8000000
rsm entry=rsm xs.d0=500
`);

const all = BUILTINS.flatMap(({ name }) => builtinScenarios(name));
const trace = (policy: Policy) => () => recordScenarios(TELLING, policy);

Deno.test("none of the fixes is early-exit, all of them are linux-6.12", () => {
  const fixed = withFixes(FIXES.map(({ id }) => id));
  assertEquals(withFixes([]).ways, EARLY_EXIT.ways);
  assertEquals(fixed.ways, LINUX_6_12.ways);
});

Deno.test("every known policy is identified by what it does with the built-in scenarios", async () => {
  for (const policy of Object.values(POLICIES)) {
    const { verdict } = await identify(() => recordScenarios(all, policy));
    assertEquals(verdict.kind, "known", policy.name);
    if (verdict.kind === "known") assertEquals(verdict.policy, policy.name);
  }
});

Deno.test("a kernel with one of the fixes is between, and its fixes are named", async () => {
  const found = await identify(trace(kernelPolicy(withFixes(["early-gif"]))));
  assertStringIncludes(found.sentence, "This kernel clears GIF in its early exit, but ");
  assertStringIncludes(found.sentence, "does not clear EVENTINJ in its early exit");
  assertStringIncludes(found.sentence, "between early-exit and linux-6.12");
  assertEquals(found.verdict.kind, "between");
});

Deno.test("a trace in which nothing fails tells nothing apart that only failures show", async () => {
  const { verdict, sentence } = await identify(() =>
    recordScenarios(builtinScenarios("gif-left-set"), { ...EARLY_EXIT })
  );
  assertEquals([verdict.kind, sentence], [
    "known",
    "This kernel is of the kind early-exit, with the checks of linux-6.12",
  ]);
  const quiet = await identify(async function* () {
    for await (const event of recordScenarios(parseScenarios("ok"), LINUX_6_12)) {
      // What only the kernel's inside shows is left out, as a recording from outside has it.
      if (event.kind === "session") yield { ...event, meta: { ...event.meta, sees: ["check"] } };
      else if (event.kind !== "inner") yield event;
    }
  });
  assertEquals(quiet.verdict.kind, "undecided");
  assertEquals(quiet.telling, 0);
});
