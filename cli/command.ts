/**
 * What a subcommand is: a name, a table of options that the parser, the help
 * and the completions are generated from, examples, and a function.
 *
 * @module
 */
import type { Context } from "./context.ts";

/** Statuses that the program ends with. */
export const EXIT = {
  /** Done; nothing differs. */
  ok: 0,
  /** Done; something differs. */
  differs: 1,
  /** The command line or a scenario is wrong, or a file cannot be opened or written. */
  usage: 2,
  /** A recording is damaged, cut off or not one at all. */
  damaged: 3,
  /** A trace of a version or with features that this program does not know. */
  version: 4,
  /** A fault of this program. */
  internal: 70,
  /** Stopped by Ctrl-C. */
  interrupted: 130,
} as const;

/** What an option takes. */
export type OptionKind =
  /** Nothing: it is there or not. */
  | "flag"
  /** A word. */
  | "text"
  /** Words, separated by commas or given one by one. */
  | "list"
  /** A whole number that is not negative, decimal or hexadecimal with `0x`. */
  | "number"
  /** Name of a file. */
  | "file";

/** One row of a command's options. */
export interface Option {
  /** Long name, without the dashes. */
  readonly name: string;
  /** One letter. */
  readonly short?: string;
  /** What it takes. */
  readonly kind: OptionKind;
  /** Name of its value in the help. */
  readonly value?: string;
  /** The values it may have. Others are refused, unless `open` is set. */
  readonly choices?: readonly string[];
  /** Whether other values than `choices` may be right. */
  readonly open?: boolean;
  /** Whether the command cannot do without. */
  readonly required?: boolean;
  /** What it does, in one line. */
  readonly doc: string;
}

/** What the command takes besides options. */
export interface Operands {
  /** How the help writes them, such as `TRACE`. */
  readonly usage: string;
  /** Fewest. */
  readonly min: number;
  /** Most; as many as wanted when left out. */
  readonly max?: number;
  /** What completes them besides file names. */
  readonly choices?: readonly string[];
  /** Whether a file name is no operand. */
  readonly noFiles?: boolean;
}

/** A command line that does something, for the help. */
export interface Example {
  /** What follows `vmtape`. */
  readonly line: string;
  /** What it does. */
  readonly doc: string;
}

type ValueOf<O extends Option> = O["kind"] extends "flag" ? boolean
  : O["kind"] extends "list" ? readonly string[]
  : O["kind"] extends "number" ? MayLack<O, number>
  : MayLack<O, string>;

type MayLack<O extends Option, T> = O extends { required: true } ? T : T | undefined;

/** The values of a table of options by name. */
export type Values<T extends readonly Option[]> = readonly Option[] extends T
  ? Readonly<Record<string, unknown>>
  : { readonly [O in T[number] as O["name"]]: ValueOf<O> };

/** A parsed command line. */
export interface Parsed<T extends readonly Option[] = readonly Option[]> {
  /** Values of the options by name. */
  readonly options: Values<T>;
  /** What is left of the words: file names and the like. */
  readonly operands: readonly string[];
}

/**
 * A permission that few commands need: to start QEMU, to connect to its debugging stub, to call the
 * system's C library.
 */
export type Ability = "run" | "net" | "ffi";

/** A subcommand. */
export interface Command<T extends readonly Option[] = readonly Option[]> {
  /** Name on the command line. */
  readonly name: string;
  /** What it does, in one line. */
  readonly summary: string;
  /** More about it, for its help. */
  readonly details?: string;
  /** What it takes besides options. */
  readonly operands: Operands;
  /** Its options; the common ones come on top. */
  readonly options: T;
  /** What it has to do besides reading files and writing its output; see {@linkcode Ability}. */
  readonly needs?: readonly Ability[];
  /** Command lines to learn from. */
  readonly examples: readonly Example[];
  /** Does it, and returns the exit status. */
  run(context: Context, args: Parsed<T>): number | Promise<number>;
}

/** Keeps the literal types of a command's options, then forgets them. */
export function defineCommand<const T extends readonly Option[]>(command: Command<T>): Command {
  return command as unknown as Command;
}

/** Options of every command. */
export const COMMON = [
  { name: "json", kind: "flag", doc: "Print JSON, errors too; 64-bit values are hexadecimal text" },
  { name: "quiet", short: "q", kind: "flag", doc: "Print no progress and no notes" },
  { name: "help", short: "h", kind: "flag", doc: "Print help and stop" },
  { name: "version", short: "V", kind: "flag", doc: "Print the version and stop" },
] as const satisfies readonly Option[];

/** The option of every command that writes a file. */
export const FORCE = {
  name: "force",
  short: "f",
  kind: "flag",
  doc: "Overwrite the output file if it exists",
} as const satisfies Option;

/** The option that names the file to write. */
export const OUTPUT = {
  name: "output",
  short: "o",
  kind: "file",
  value: "FILE",
  required: true,
  doc: "File to write",
} as const satisfies Option;
