/**
 * Parsing a command line by a command's table of options.
 *
 * @module
 */
import { parseArgs } from "@std/cli/parse-args";
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

/**
 * The same arguments with every value joined to its long option, and the rest
 * behind `--`. `parseArgs` takes `-oFILE` for letters and the `-` in `--output -`
 * for no value, and lets a flag swallow the word `true` behind it.
 */
function normalize(args: readonly string[], table: readonly Option[]): string[] {
  const pending = [...args];
  const options: string[] = [];
  const operands: string[] = [];
  for (let arg = pending.shift(); arg !== undefined; arg = pending.shift()) {
    if (arg === "--") {
      operands.push(...pending);
      break;
    }
    if (arg === "-" || !arg.startsWith("-")) {
      operands.push(arg);
      continue;
    }
    const [, name = arg, equals, value] = /^(--[^=]+|-[^-])(=?)(.*)$/s.exec(arg) ?? [];
    const option = table.find((o) => name === `--${o.name}` || name === `-${o.short}`);
    if (!option) options.push(arg);
    else if (option.kind !== "flag") {
      const next = pending[0] === "-" || !pending[0]?.startsWith("-") ? pending[0] : undefined;
      const text = value || (equals ? undefined : next);
      if (!text) throw new UsageError(`Option --${option.name} needs a value`);
      if (!value) pending.shift();
      options.push(`--${option.name}=${text}`);
    } else if (equals) {
      throw new UsageError(`Option --${option.name} takes no value`);
    } else {
      options.push(`--${option.name}`);
      if (value) pending.unshift(`-${value}`);
    }
  }
  return [...options, "--", ...operands];
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

function valueOf(option: Option, given: unknown): unknown {
  if (option.kind === "flag") return given === true;
  const all = Array.isArray(given) ? given.map(String) : [];
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
  const { min, max, usage } = command.operands;
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
  const flags = table.filter((o) => o.kind === "flag").map((o) => o.name);
  const texts = table.filter((o) => o.kind !== "flag").map((o) => o.name);
  const alias: Record<string, string> = {};
  for (const o of table) if (o.short) alias[o.name] = o.short;
  const unknown: string[] = [];
  const parsed: Record<string, unknown> = parseArgs(normalize(args, table), {
    boolean: flags,
    // Without this, "0xffffffff81000000" would become a number and lose its last digits.
    string: [...texts, "_"],
    collect: texts,
    alias,
    unknown: (arg: string) => {
      unknown.push(arg);
      return false;
    },
  });
  const common: Common = {
    json: parsed["json"] === true,
    quiet: parsed["quiet"] === true,
    help: parsed["help"] === true,
    version: parsed["version"] === true,
  };
  const operands = (parsed["_"] as readonly (string | number)[]).map(String);
  if (common.help || common.version) return { common, operands, options: {} };
  const stray = unknown[0];
  if (stray !== undefined) {
    const name = stray.replace(/=.*$/s, "");
    const near = closest(name, table.map((o) => `--${o.name}`));
    throw new UsageError(`Unknown option ${name}${near ? `, did you mean ${near}?` : ""}`);
  }
  const options: Record<string, unknown> = {};
  for (const option of command.options) {
    options[option.name] = valueOf(option, parsed[option.name]);
  }
  checkOperands(command, operands);
  return { common, operands, options };
}
