import { assertEquals, assertThrows } from "@std/assert";
import { defineCommand } from "../cli/command.ts";
import { UsageError } from "../cli/errors.ts";
import { parse } from "../cli/parse.ts";

const command = defineCommand({
  name: "try",
  summary: "Try",
  operands: { usage: "FILE…", min: 1, max: 2 },
  options: [
    { name: "output", short: "o", kind: "file", required: true, doc: "" },
    { name: "policy", kind: "text", choices: ["unified", "linux-6.12"], doc: "" },
    { name: "other", kind: "text", choices: ["known"], open: true, doc: "" },
    { name: "policies", kind: "list", choices: ["unified", "linux-6.12"], doc: "" },
    { name: "from", kind: "number", doc: "" },
    { name: "force", short: "f", kind: "flag", doc: "" },
  ],
  examples: [],
  run: () => 0,
});

const NONE = {
  policy: undefined,
  other: undefined,
  policies: [],
  from: undefined,
  force: false,
};

const RIGHT: readonly (readonly [string, Record<string, unknown>, string[]])[] = [
  ["in -o out", { output: "out" }, ["in"]],
  ["-o out in", { output: "out" }, ["in"]],
  ["-oout in", { output: "out" }, ["in"]],
  ["-o=out in", { output: "out" }, ["in"]],
  ["--output=out in", { output: "out" }, ["in"]],
  ["--output - -", { output: "-" }, ["-"]],
  ["-o - -", { output: "-" }, ["-"]],
  ["-o a=b in", { output: "a=b" }, ["in"]],
  ["-o out -f true", { output: "out", force: true }, ["true"]],
  ["-fo out in", { output: "out", force: true }, ["in"]],
  ["-o out -- --policy -x", { output: "out" }, ["--policy", "-x"]],
  ["-o out 0xffffffff81000000 1e9", { output: "out" }, ["0xffffffff81000000", "1e9"]],
  ["-o 007 in", { output: "007" }, ["in"]],
  ["-o out --from 0x10 in", { output: "out", from: 16 }, ["in"]],
  ["-o out --from=12 in", { output: "out", from: 12 }, ["in"]],
  ["-o out --policy unified in", { output: "out", policy: "unified" }, ["in"]],
  ["-o out --other ./mine.ts in", { output: "out", other: "./mine.ts" }, ["in"]],
  [
    "-o out --policies unified,linux-6.12 --policies unified in",
    { output: "out", policies: ["unified", "linux-6.12", "unified"] },
    ["in"],
  ],
];
for (const [line, options, operands] of RIGHT) {
  Deno.test(`"${line}" is understood`, () => {
    const parsed = parse(command, line.split(" "));
    assertEquals<unknown>(parsed.options, { ...NONE, ...options });
    assertEquals(parsed.operands, operands);
  });
}

const WRONG: readonly (readonly [string, string])[] = [
  ["in", "Option -o, --output VALUE is needed"],
  ["in -o", "Option --output needs a value"],
  ["in --output=", "Option --output needs a value"],
  ["in --output --force", "Option --output needs a value"],
  ["in -o a -o b", "Option --output is given twice"],
  ["in -o a --force=no", "Option --force takes no value"],
  ["in -o a --from ten", 'Option --from needs a whole number that is not negative, not "ten"'],
  ["in -o a --from 1.5", "Option --from needs a whole number"],
  ["in -o a --from=-1", "Option --from needs a whole number"],
  ["in -o a --from 9007199254740993", "Option --from needs a whole number"],
  ["in -o a --policy unifed", 'Option --policy cannot be "unifed", did you mean "unified"?'],
  ["in -o a --policies linux-6.12,x", 'cannot be "x", expected one of unified, linux-6.12'],
  ["in -o a --polcy unified", "Unknown option --polcy, did you mean --policy?"],
  ["in -o a --no-force", "Unknown option --no-force"],
  ["in -o a --policy.x=unified", "Unknown option --policy.x"],
  ["-o a", "FILE… is missing"],
  ["-o a 1 2 3", 'Unexpected "3" after FILE…'],
];
for (const [line, message] of WRONG) {
  Deno.test(`"${line}" is refused with a reason`, () => {
    assertThrows(() => parse(command, line.split(" ")), UsageError, message);
  });
}
