/**
 * The most memory that each command takes over files that are made to take much.
 *
 * @module
 */
import { bombs, writeBomb } from "./bombs.ts";
import { LINES } from "./commands.ts";

const ROOT = new URL("../..", import.meta.url).pathname;
const MAIN = ["run", "--frozen", "-q", "--no-prompt", "-A", `${ROOT}cli/main.ts`];

/** The most that a command may hold, in MiB. */
export const BUDGET = 512;

/** One command over one file. */
export interface Peak {
  /** The command, without its file. */
  readonly line: string;
  /** The file. */
  readonly input: string;
  /** Exit status; -1 when it was ended because it took too long. */
  readonly status: number;
  /** The most memory that was resident at once, in MiB. */
  readonly peak: number;
  /** How long it took, in seconds. */
  readonly seconds: number;
  /** What it said. */
  readonly said: string;
}

/** High-water mark of a process's resident memory, in MiB; 0 once it is gone. */
async function highWater(pid: number): Promise<number> {
  const text = await Deno.readTextFile(`/proc/${pid}/status`).catch(() => "");
  return Number(/^VmHWM:\s*(\d+) kB/m.exec(text)?.[1] ?? 0) / 1024;
}

/**
 * Runs a command and watches its memory.
 *
 * @param line Its words; `IN` is the input, `OUT` a file in the folder.
 * @param input The input.
 * @param folder Where it may write.
 * @param patience Seconds that it may take.
 */
export async function peakOf(
  line: readonly string[],
  input: string,
  folder: string,
  patience: number,
): Promise<Peak> {
  const args = line.map((word) => word === "IN" ? input : word === "OUT" ? `${folder}/out` : word);
  const start = performance.now();
  const child = new Deno.Command(Deno.execPath(), {
    args: [...MAIN, ...args, "-q"],
    cwd: folder,
    stdout: "null",
    stderr: "piped",
  }).spawn();
  let peak = 0, late = false;
  const timer = setInterval(async () => {
    peak = Math.max(peak, await highWater(child.pid));
    if (performance.now() - start < patience * 1000 && peak < 4 * BUDGET) return;
    late = true;
    try {
      child.kill("SIGKILL");
    } catch {
      // It was faster.
    }
  }, 20);
  const { code, stderr } = await child.output();
  clearInterval(timer);
  const seconds = (performance.now() - start) / 1000;
  const said = new TextDecoder().decode(stderr).slice(0, 300);
  const name = line.filter((word) => !["IN", "OUT", "-o", "-f"].includes(word)).join(" ");
  return {
    ...{ line: name, input: input.replace(/.*\//, ""), status: late ? -1 : code },
    ...{ peak: Math.round(peak), seconds, said },
  };
}

/**
 * Runs commands over bombs.
 *
 * @param blocks Blocks of events in each bomb.
 * @param only Part of the names of those that are tried.
 * @param tell Receives each that ran.
 * @param lines The commands.
 * @param others More files to try.
 * @param patience Seconds that each may take.
 */
export async function memory(
  blocks: number,
  only: RegExp,
  tell: (peak: Peak) => void,
  lines: readonly (readonly string[])[] = LINES,
  others: readonly string[] = [],
  patience = 120,
): Promise<void> {
  const folder = await Deno.makeTempDir({ prefix: "vmtape-memory-" });
  try {
    const inputs = [...others];
    for (const bomb of await bombs()) if (only.test(bomb.name)) inputs.push(bomb.name);
    const all = new Map((await bombs()).map((bomb) => [bomb.name, bomb]));
    for (const input of inputs) {
      const bomb = all.get(input);
      const path = bomb === undefined ? input : `${folder}/${input}`;
      if (bomb !== undefined) await writeBomb(bomb, path, blocks);
      for (const line of lines) tell(await peakOf(line, path, folder, patience));
      if (bomb !== undefined) await Deno.remove(path);
    }
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}
