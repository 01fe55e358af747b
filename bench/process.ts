/**
 * What benches share that run programs in processes of their own.
 *
 * @module
 */
const CONFIG = new URL("../deno.json", import.meta.url).pathname;

/** Seconds that something takes. */
export async function timed(work: () => Promise<unknown>): Promise<number> {
  const start = performance.now();
  await work();
  return (performance.now() - start) / 1000;
}

/**
 * Runs a program of this project in a process of its own.
 *
 * @param program Its file.
 * @param args Its arguments.
 * @returns What it printed.
 * @throws {Error} When it does not end with 0.
 */
export async function runApart(program: string, ...args: readonly string[]): Promise<string> {
  const { code, stdout } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "-q", "--config", CONFIG, "--allow-all", program, ...args],
    stderr: "inherit",
  }).output();
  if (code !== 0) throw new Error(`${args.join(" ")} ended with ${code}`);
  return new TextDecoder().decode(stdout);
}
