/**
 * What the benches' tables share: how they print, and what they keep.
 *
 * @module
 */

const text = new TextEncoder();

/** Prints a line. */
export async function print(line: string): Promise<void> {
  await Deno.stdout.write(text.encode(`${line}\n`));
}

/** What was measured on. */
export function machine(): Record<string, string> {
  const cpu = (() => {
    try {
      return /model name\s*: (.*)/.exec(Deno.readTextFileSync("/proc/cpuinfo"))?.[1] ?? "";
    } catch {
      return "";
    }
  })();
  return { cpu, deno: Deno.version.deno, v8: Deno.version.v8 };
}

/** The middle one of some numbers. */
export function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[values.length >> 1] as number;
}

/** Keeps a result beside the benches, to hold later ones against. */
export async function writeBaseline(name: string, result: unknown): Promise<void> {
  const folder = new URL("baselines/", import.meta.url);
  await Deno.mkdir(folder, { recursive: true });
  await Deno.writeTextFile(new URL(name, folder), JSON.stringify(result, null, 2) + "\n");
}
