/**
 * The command line: `deno task vmtape --help`.
 *
 * @module
 */
import { run } from "./app.ts";

function debug(): boolean {
  try {
    return Deno.env.get("VMTAPE_DEBUG") === "1";
  } catch {
    return false;
  }
}

/** Runs the program with its arguments, and ends it. */
export async function main(): Promise<never> {
  const status = await run(Deno.args, {
    out: Deno.stdout,
    err: Deno.stderr,
    color: Deno.stdout.isTerminal() && !Deno.noColor,
    debug: debug(),
    alone: true,
  });
  Deno.exit(status);
}

if (import.meta.main) await main();
