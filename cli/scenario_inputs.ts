/**
 * Scenarios that operands name.
 *
 * @module
 */
import { BUILTINS, builtinScenarios } from "../traces/scenarios/builtin.ts";
import type { Scenario } from "../traces/scenarios/scenario.ts";
import { parseScenarios } from "../traces/scenarios/scenario_reader.ts";
import { UsageError } from "./errors.ts";
import { readText, shown, STANDARD } from "./files.ts";
import { didYouMean } from "./suggest.ts";

/** Names of the built-in scenarios. */
export const BUILTIN_NAMES: readonly string[] = BUILTINS.map((builtin) => builtin.name);

/** What someone may have meant who misspelt an operand: a second word of a command among it. */
const SUGGESTED = [...BUILTIN_NAMES, "qemu", "kvm"];

/** Operands of commands that run scenarios. */
export const SCENARIO_OPERANDS = {
  usage: "[SCENARIO…]",
  min: 0,
  choices: BUILTIN_NAMES,
} as const;

/** What the help of such a command says about its operands. */
export const SCENARIO_DETAILS =
  'A scenario is a file of cases, one a line ("vmtape scenarios --cases" prints some), - for ' +
  "standard input, or the name of a built-in one. Without any, all built-in ones are run.";

async function isFile(path: string): Promise<boolean> {
  // A device or a folder is no built-in scenario either, and reading it says what is wrong.
  return await Deno.stat(path).then(
    () => true,
    // What the command line does not name may not be looked at beside a policy of the user's own.
    (error) => !(error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotCapable),
  );
}

async function scenariosOf(operand: string): Promise<Scenario[]> {
  if (operand === STANDARD || await isFile(operand)) {
    return parseScenarios(await readText(operand), { file: shown(operand) });
  }
  if (BUILTIN_NAMES.includes(operand)) return builtinScenarios(operand);
  throw new UsageError(
    `${operand} is neither a file nor a built-in scenario${didYouMean(operand, SUGGESTED)}`,
  );
}

/**
 * The scenarios that operands name, in order; all built-in ones for none.
 *
 * @param operands Files, `-`, or names.
 * @returns The scenarios.
 * @throws {ScenarioError} When a file holds what is no scenario.
 * @throws {UsageError} When there is no such file or name, or no scenario in all of them.
 */
export async function loadScenarios(operands: readonly string[]): Promise<Scenario[]> {
  const names = operands.length === 0 ? BUILTIN_NAMES : operands;
  const lists: Scenario[][] = [];
  for (const name of names) lists.push(await scenariosOf(name));
  const all = lists.flat();
  if (all.length === 0) throw new UsageError(`There is no case in ${names.map(shown).join(", ")}`);
  return all;
}
