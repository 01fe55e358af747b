import { assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import fc from "fast-check";
import { checkPolicy, list, POLICIES, PolicyError, steps, UNIFIED } from "../engine/mod.ts";

const { kernel, ways } = UNIFIED;
const mine = { ...UNIFIED, name: "mine" };
const noRun = { name: "x", doc: "" };

const WRONG: readonly (readonly [string, unknown, string])[] = [
  ["nothing", undefined, "a policy is an object, not missing"],
  ["a function", () => mine, "a policy is an object, not a function"],
  [
    "a promise of a policy",
    Promise.resolve(mine),
    "a policy is an object, not a promise of one: await it",
  ],
  [
    "a field of no policy",
    { ...mine, steps: [] },
    'the policy has no "steps" (there is name, doc, kernel, ways, processor, checks)',
  ],
  ["a check set by name", { ...mine, checks: "no-such-set" }, "checks is no part of a policy"],
  [
    "a kernel whose checks are a name",
    { ...mine, kernel: { ...kernel, checks: "linux-6.12" } },
    'kernel.checks must be a check set, such as CHECKS_6_12, not "linux-6.12"',
  ],
  [
    "a way that is misspelt",
    { ...mine, ways: { ...ways, vmrum: [] } },
    'ways has no "vmrum", did you mean "vmrun"?',
  ],
  ["a way that is missing", { ...mine, ways: { ...ways, rsm: undefined } }, "ways.rsm must be"],
  [
    "a step where an entry has to be",
    { ...mine, ways: { ...ways, pages: [steps.dropGif] } },
    "ways.pages[0] is a step where an entry has to be",
  ],
  [
    "a step that does nothing",
    { ...mine, ways: { ...ways, vmrun: [...ways.vmrun, { step: noRun }] } },
    `ways.vmrun[${ways.vmrun.length}].step.run must be a function, not missing`,
  ],
  [
    "a handler that is no list",
    { ...mine, ways: { ...ways, vmrun: [{ step: steps.dropGif, onFail: steps.dropGif }] } },
    "ways.vmrun[0].onFail must be a list of steps",
  ],
  [
    "a check whose group is no text",
    {
      ...mine,
      kernel: {
        ...kernel,
        checks: { name: "x", maker: "kvm", checks: [{ group: Object.create(null) }] },
      },
    },
    "kernel.checks.checks[0].group must be save, control or cr3, not an object",
  ],
  [
    "a check that reads a field there is not",
    {
      ...mine,
      kernel: {
        ...kernel,
        checks: {
          name: "x",
          maker: "kvm",
          checks: [{
            id: "a",
            texts: ["a"],
            group: "save",
            reads: ["save.rflag"],
            fails: () => true,
          }],
        },
      },
    },
    "kernel.checks.checks[0].reads[0]: ",
  ],
  [
    "the name of a built-in one",
    { ...mine, name: "linux-7.3" },
    '"linux-7.3" is a built-in policy',
  ],
  ["the name of an alias", { ...mine, name: "upstream" }, '"upstream" is a built-in policy'],
];

for (const [name, value, message] of WRONG) {
  Deno.test(`${name} is no policy, and the error says where`, () => {
    const { problems, message: text } = assertThrows(() => checkPolicy(value), PolicyError);
    assertStringIncludes(text, message);
    assertEquals(problems.some((problem) => problem.includes(message)), true);
  });
}

Deno.test("several faults are told at once", () => {
  const { problems } = assertThrows(() => checkPolicy({ name: "", ways: {} }), PolicyError);
  assertEquals(problems.length > 5, true, problems.join("\n"));
});

Deno.test("the built-in policies are policies, and so is what is made of them", () => {
  for (const policy of Object.values(POLICIES)) assertEquals(checkPolicy(policy), policy);
  const own = { ...mine, ways: { ...ways, pages: list([steps.dropGif]) } };
  assertEquals(checkPolicy(own), own);
});

Deno.test("a list in itself ends, and any value is a policy or is refused", () => {
  const endless: unknown[] = [];
  endless.push({ step: steps.dropGif, onFail: endless });
  assertThrows(() => checkPolicy({ ...mine, ways: { ...ways, rsm: endless } }), PolicyError);
  fc.assert(fc.property(fc.anything({ withNullPrototype: true }), fc.anything(), (a, b) => {
    for (const value of [a, { ...mine, ways: a }, { ...mine, kernel: a }, { ...mine, name: b }]) {
      try {
        checkPolicy(value);
      } catch (error) {
        if (!(error instanceof PolicyError)) throw error;
      }
    }
  }));
});
