/**
 * The most memory that each command takes over files that are made to take much.
 *
 * @module
 */
import { TextLineStream } from "@std/streams/text-line-stream";
import { bombs, writeBomb } from "./bombs.ts";
import { HOLDING } from "./commands.ts";
import type { Ran } from "./memory_server.ts";

const ROOT = new URL("../..", import.meta.url).pathname;
const MAIN = ["run", "--frozen", "-q", "--no-prompt", "-A", `${ROOT}cli/main.ts`];

const SERVER = new URL("memory_server.ts", import.meta.url).pathname;

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

/** The words of a line with the names of its files. */
function wordsOf(line: readonly string[], input: string, folder: string): string[] {
  const words = line.map((w) => w === "IN" ? input : w === "OUT" ? `${folder}/out` : w);
  return [...words, "-q"];
}

/** The command of a line, without its files. */
function nameOf(line: readonly string[]): string {
  return line.filter((word) => !["IN", "OUT", "-o", "-f"].includes(word)).join(" ");
}

/** A process that runs one command after the other. */
class Server implements AsyncDisposable {
  readonly #child = new Deno.Command(Deno.execPath(), {
    args: ["run", "--frozen", "-q", "--no-prompt", "-A", "--v8-flags=--expose-gc", SERVER],
    stdin: "piped",
    stdout: "piped",
    stderr: "null",
  }).spawn();
  readonly #words = this.#child.stdin.getWriter();
  readonly #answers = this.#child.stdout.pipeThrough(new TextDecoderStream())
    .pipeThrough(new TextLineStream()).getReader();

  /** Runs a command; undefined when it took too long or too much, and the server is gone. */
  async run(words: readonly string[], patience: number): Promise<Ran | undefined> {
    let late = false;
    const start = performance.now();
    const timer = setInterval(async () => {
      const much = await highWater(this.#child.pid) > 3 * BUDGET;
      if (!much && performance.now() - start < patience * 1000) return;
      late = true;
      this.#kill();
    }, 100);
    try {
      await this.#words.write(new TextEncoder().encode(`${JSON.stringify(words)}\n`));
      const { value } = await this.#answers.read();
      return late || value === undefined ? undefined : JSON.parse(value);
    } finally {
      clearInterval(timer);
    }
  }

  #kill(): void {
    try {
      this.#child.kill("SIGKILL");
    } catch {
      // It was faster.
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#kill();
    await this.#answers.cancel();
    await this.#words.close().catch(() => {});
    await this.#child.status;
  }
}

/**
 * Runs commands over one input, in one process, and again in one of its own what took more than the
 * budget there.
 *
 * @param lines The commands.
 * @param input The input.
 * @param folder Where they may write.
 * @param patience Seconds that each may take.
 */
export async function* peaksOf(
  lines: readonly (readonly string[])[],
  input: string,
  folder: string,
  patience: number,
): AsyncGenerator<Peak> {
  let server: Server | undefined;
  try {
    for (const line of lines) {
      const start = performance.now();
      const ran = await (server ??= new Server()).run(wordsOf(line, input, folder), patience);
      if (ran === undefined || ran.peak > BUDGET) {
        await server[Symbol.asyncDispose]();
        server = undefined;
        yield await peakOf(line, input, folder, patience);
        continue;
      }
      const seconds = (performance.now() - start) / 1000;
      yield { line: nameOf(line), input: input.replace(/.*\//, ""), seconds, ...ran };
    }
  } finally {
    await server?.[Symbol.asyncDispose]();
  }
}

/**
 * Runs a command in a process of its own, and watches its memory.
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
  const start = performance.now();
  const child = new Deno.Command(Deno.execPath(), {
    args: [...MAIN, ...wordsOf(line, input, folder)],
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
  return {
    ...{ line: nameOf(line), input: input.replace(/.*\//, ""), status: late ? -1 : code },
    ...{ peak: Math.round(peak), seconds, said },
  };
}

/**
 * Runs commands over bombs, and once more in a process of its own over the one that took most.
 *
 * @param blocks Blocks of events in each bomb.
 * @param only Part of the names of those that are tried.
 * @param tell Receives each that ran.
 * @param patience Seconds that each may take.
 * @returns For each command the file over which it took most.
 */
export async function memory(
  blocks: number,
  only: RegExp,
  tell: (peak: Peak) => void,
  patience: number,
): Promise<Peak[]> {
  const folder = await Deno.makeTempDir({ prefix: "vmtape-memory-" });
  const all = (await bombs()).filter(({ name }) => only.test(name));
  const most = new Map<string, Peak>();
  try {
    for (const bomb of all) {
      const path = `${folder}/${bomb.name}`;
      await writeBomb(bomb, path, blocks);
      for await (const peak of peaksOf(HOLDING, path, folder, patience)) {
        tell(peak);
        if (peak.peak > (most.get(peak.line)?.peak ?? 0)) most.set(peak.line, peak);
      }
      await Deno.remove(path);
    }
    const alone: Peak[] = [];
    for (const line of HOLDING) {
      const bomb = all.find(({ name }) => name === most.get(nameOf(line))?.input);
      if (bomb === undefined) continue;
      const path = `${folder}/${bomb.name}`;
      await writeBomb(bomb, path, blocks);
      alone.push(await peakOf(line, path, folder, patience));
    }
    return alone;
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}
