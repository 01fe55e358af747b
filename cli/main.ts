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

if (import.meta.main) {
  const status = await run(Deno.args, {
    out: Deno.stdout,
    err: Deno.stderr,
    color: Deno.stdout.isTerminal() && !Deno.noColor,
    debug: debug(),
    alone: true,
  });
  Deno.exit(status);
}
