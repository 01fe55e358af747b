/**
 * Giving up what a command has no use for.
 *
 * @module
 */
import type { Command } from "./command.ts";

/** Every permission but to read. */
const ALL = ["write", "run", "net", "ffi", "env", "sys", "import"] as const;

/**
 * Gives up, for good, every permission that a command has no use for, before it has read anything:
 * whatever is in a file then finds a process that may read, and write if the command has an output.
 *
 * @param command The command.
 */
export function giveUp({ options, needs = [] }: Command): void {
  const kept = new Set<string>(needs);
  if (options.some(({ name }) => name === "output")) kept.add("write");
  for (const name of ALL) if (!kept.has(name)) Deno.permissions.revokeSync({ name });
}
