/**
 * Parsing a command line by a command's table of options.
 *
 * @module
 */
import { parseArgs } from "node:util";
import { closest } from "../engine/closest.ts";
import { type Command, COMMON, type Option, type Parsed } from "./command.ts";
import { UsageError } from "./errors.ts";
import { didYouMean } from "./suggest.ts";

/** Values of the common options. */
export interface Common {
  /** Machine-readable output. */
  readonly json: boolean;
  /** No progress, no notes. */
  readonly quiet: boolean;
  /** Print help and stop. */
  readonly help: boolean;
  /** Print the version and stop. */
  readonly version: boolean;
}

/** What stands on a command line, in order: values by option, and operands. */
interface Given {
  readonly values: ReadonlyMap<Option, readonly string[]>;
  readonly operands: readonly string[];
  /** The first option that no row describes. */
  readonly stray: string | undefined;
}

/** Takes a command line apart. */
function read(args: readonly string[], table: readonly Option[]): Given {
  const options = Object.fromEntries(table.map(({ name, short, kind }) => [name, {
    type: kind === "flag" ? "boolean" as const : "string" as const,
    ...(short !== undefined && { short }),
  }]));
  // Not strict: what is wrong is told in this program's own words, with what was meant.
  const { tokens } = parseArgs({ args: [...args], options, strict: false, tokens: true });
  const values = new Map<Option, string[]>();
  const operands: string[] = [];
  let stray: string | undefined;
  for (const token of tokens) {
    if (token.kind === "positional") operands.push(token.value);
    if (token.kind !== "option") continue;
    const option = table.find(({ name }) => name === token.name);
    if (!option) stray ??= token.rawName;
    else {
      const value = valueIn(option, token.value, token.inlineValue === true, token.rawName);
      values.set(option, [...values.get(option) ?? [], value]);
    }
  }
  return { values, operands, stray };
}

function valueIn(option: Option, given: string | undefined, inline: boolean, as: string): string {
  if (option.kind === "flag") {
    if (given !== undefined) throw new UsageError(`Option --${option.name} takes no value`);
    return "";
  }
  // `-o=FILE` is taken for `-oFILE`; and no value behind a blank begins with a dash, but `-` itself.
  const text = inline && !as.startsWith("--") ? given?.replace(/^=/, "") : given;
  const swallowed = !inline && text !== "-" && text?.startsWith("-");
  if (!text || swallowed) throw new UsageError(`Option --${option.name} needs a value`);
  return text;
}

function split(value: string): string[] {
  return value.split(",").map((s) => s.trim()).filter((s) => s !== "");
}

function number(option: Option, text: string): number {
  const n = /^(?:[0-9]+|0x[0-9a-f]+)$/i.test(text) ? Number(text) : NaN;
  if (Number.isSafeInteger(n)) return n;
  throw new UsageError(
    `Option --${option.name} needs a whole number that is not negative, not ${
      JSON.stringify(text)
    }`,
  );
}

function choice(option: Option, text: string): string {
  if (!option.choices || option.open || option.choices.includes(text)) return text;
  throw new UsageError(
    `Option --${option.name} cannot be ${JSON.stringify(text)}${didYouMean(text, option.choices)}`,
  );
}

function valueOf(option: Option, all: readonly string[]): unknown {
  if (option.kind === "flag") return all.length > 0;
  if (option.kind === "list") {
    const words = all.flatMap(split);
    if (option.required && words.length === 0) throw missing(option);
    return words.map((word) => choice(option, word));
  }
  if (all.length > 1) throw new UsageError(`Option --${option.name} is given twice`);
  const text = all[0];
  if (text === undefined) {
    if (option.required) throw missing(option);
    return undefined;
  }
  return option.kind === "number" ? number(option, text) : choice(option, text);
}

function missing(option: Option): UsageError {
  const short = option.short ? `-${option.short}, ` : "";
  return new UsageError(
    `Option ${short}--${option.name} ${option.value ?? "VALUE"} is needed`,
  );
}

function checkOperands(command: Command, operands: readonly string[]): void {
  const { min, max, usage, noFiles } = command.operands;
  if (!noFiles && operands.includes("")) throw new UsageError(`An empty name is no ${usage}`);
  if (operands.length < min) {
    throw new UsageError(operands.length === 0 ? `${usage} is missing` : `Too few of ${usage}`);
  }
  if (max !== undefined && operands.length > max) {
    throw new UsageError(
      max === 0
        ? `Unexpected ${JSON.stringify(operands[0])}, this command takes options only`
        : `Unexpected ${JSON.stringify(operands[max])} after ${usage}`,
    );
  }
}

/** What {@linkcode parse} found. */
export interface CommandLine extends Parsed {
  /** Values of the common options. */
  readonly common: Common;
}

/**
 * Parses the arguments of one command by its table of options.
 *
 * @param command The command.
 * @param args What follows its name.
 * @returns Values and operands. When help or the version is asked for, nothing else is checked.
 * @throws {UsageError} When they do not fit.
 */
export function parse(command: Command, args: readonly string[]): CommandLine {
  const table: readonly Option[] = [...command.options, ...COMMON];
  const { values, operands, stray } = read(args, table);
  const has = (name: string) => COMMON.some((o) => o.name === name && values.has(o));
  const common: Common = {
    json: has("json"),
    quiet: has("quiet"),
    help: has("help"),
    version: has("version"),
  };
  if (common.help || common.version) return { common, operands, options: {} };
  if (stray !== undefined) {
    const near = closest(stray, table.map((o) => `--${o.name}`));
    throw new UsageError(`Unknown option ${stray}${near ? `, did you mean ${near}?` : ""}`);
  }
  const options: Record<string, unknown> = {};
  for (const option of command.options) {
    options[option.name] = valueOf(option, values.get(option) ?? []);
  }
  checkOperands(command, operands);
  return { common, operands, options };
}
