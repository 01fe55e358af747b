/**
 * The subcommand `scenarios`.
 *
 * @module
 */
import { BUILTINS, builtinScenarios } from "../../traces/scenarios/builtin.ts";
import { toLabCase } from "../../traces/scenarios/lab_case.ts";
import { defineCommand, EXIT } from "../command.ts";
import { UsageError } from "../errors.ts";
import { columns } from "../help.ts";
import { BUILTIN_NAMES } from "../scenario_inputs.ts";
import { didYouMean } from "../suggest.ts";

function find(name: string) {
  const found = BUILTINS.find((builtin) => builtin.name === name);
  if (found) return found;
  throw new UsageError(
    `Unknown scenario ${JSON.stringify(name)}${didYouMean(name, BUILTIN_NAMES)}`,
  );
}

/** Lists the built-in scenarios. */
export const scenarios = defineCommand({
  name: "scenarios",
  summary: "List the built-in scenarios, or print their cases",
  operands: { usage: "[NAME…]", min: 0, choices: BUILTIN_NAMES, noFiles: true },
  options: [
    { name: "cases", kind: "flag", doc: "Print them as a file of cases, to be changed and run" },
  ],
  examples: [
    { line: "scenarios", doc: "What there is, and what it shows" },
    { line: "scenarios gif-left-set --cases > mine.txt", doc: "A file to start from" },
  ],
  run(context, { options, operands }) {
    const chosen = operands.length === 0 ? BUILTINS : operands.map(find);
    if (context.json) {
      for (const builtin of chosen) {
        const cases = builtinScenarios(builtin.name).map(toLabCase);
        context.out.json({ ...builtin, specs: undefined, cases });
      }
    } else if (options.cases) {
      for (const { name, shows } of chosen) {
        context.out.line(`# ${shows}`);
        for (const scenario of builtinScenarios(name)) context.out.line(toLabCase(scenario));
      }
    } else if (operands.length > 0) {
      for (const { name, shows, observed, npt } of chosen) {
        context.out.line(name);
        context.out.text(
          columns([
            ["shows", shows],
            ["observed", observed],
            ["npt", npt ?? "on and off"],
            ...builtinScenarios(name).map((s) => ["case", toLabCase(s)] as const),
          ]) + "\n",
        );
      }
    } else context.out.text(columns(chosen.map(({ name, shows }) => [name, shows])) + "\n");
    return EXIT.ok;
  },
});
