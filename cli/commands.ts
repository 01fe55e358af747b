import type { Command } from "./command.ts";

/** A subcommand that is loaded when it is asked for, so that the others cost no start-up time. */
export interface CommandEntry {
  /** Name on the command line. */
  readonly name: string;
  /** What it does, in one line; the loaded command says the same. */
  readonly summary: string;
  /** Loads it. */
  load(): Promise<Command>;
}

/** All subcommands, in the order of the help. */
export const COMMANDS: readonly CommandEntry[] = [
  {
    name: "completions",
    summary: "Print a completion script for a shell",
    load: async () => (await import("./commands/completions.ts")).completions,
  },
];
