/**
 * Runs the real command line, with the permissions of the task that users call.
 *
 * @module
 */
import { run } from "../cli/app.ts";
import config from "../deno.json" with { type: "json" };

/** What a finished process left behind. */
export interface Finished {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** What a process gets. */
export interface Given {
  readonly stdin?: string | Uint8Array;
  readonly env?: Record<string, string>;
  readonly cwd?: string;
}

const ROOT = new URL("..", import.meta.url);
const MAIN = "cli/main.ts";
const [, ...TASK] = config.tasks.vmtape.command.split(" ").map((word) =>
  word === MAIN ? new URL(MAIN, ROOT).pathname : word
);

/** The process, not yet started. */
export function command(args: readonly string[], given: Given = {}, stdin = false): Deno.Command {
  return new Deno.Command(Deno.execPath(), {
    args: [...TASK, ...args],
    cwd: given.cwd ?? ROOT.pathname,
    env: { NO_COLOR: "1", ...given.env },
    stdin: stdin ? "piped" : "null",
    stdout: "piped",
    stderr: "piped",
  });
}

/** Runs `vmtape` to its end. */
export async function vmtape(args: readonly string[], given: Given = {}): Promise<Finished> {
  const { stdin } = given;
  const child = command(args, given, stdin !== undefined).spawn();
  if (stdin !== undefined) {
    const writer = child.stdin.getWriter();
    try {
      await writer.write(typeof stdin === "string" ? new TextEncoder().encode(stdin) : stdin);
      await writer.close();
    } catch {
      // The process ended without reading it all.
    }
  }
  const { code, stdout, stderr } = await child.output();
  const decoder = new TextDecoder();
  return { code, stdout: decoder.decode(stdout), stderr: decoder.decode(stderr) };
}

/** Whether every command is to be a process, also where that is not the point: `task test:cli`. */
const PROCESSES = Deno.env.get("VMTAPE_TEST_PROCESSES") === "1";

/**
 * Runs `vmtape` to its end within this process: for what a command says and writes, where it does not
 * matter how it is started. It saves the quarter of a second that a process takes. Where something is
 * given, or a policy's module runs, it is a process after all.
 */
export async function vmtapeHere(
  args: readonly string[],
  given: Given = {},
): Promise<Finished> {
  const own = args.some((arg) => /\.[cm]?[jt]s(?:,|$)/.test(arg));
  if (PROCESSES || own || Object.keys(given).length > 0) return await vmtape(args, given);
  return await withinProcess(args);
}

/** Keeps what it gets. */
class Keeper {
  text = "";
  readonly #decoder = new TextDecoder();

  writeSync(bytes: Uint8Array): number {
    this.text += this.#decoder.decode(bytes, { stream: true });
    return bytes.length;
  }
}

/** Runs `vmtape` to its end within this process, whatever it is; faults of our own throw with `debug`. */
export async function withinProcess(args: readonly string[], debug = false): Promise<Finished> {
  const out = new Keeper(), err = new Keeper();
  const code = await run(args, { out, err, color: false, debug });
  return { code, stdout: out.text, stderr: err.text };
}

/** Runs a shell line in which `vmtape` is the real command. */
export async function shell(line: string, cwd?: string): Promise<Finished> {
  const words = [Deno.execPath(), ...TASK].map((w) => `'${w}'`).join(" ");
  const { code, stdout, stderr } = await new Deno.Command("bash", {
    args: ["-c", `vmtape() { NO_COLOR=1 ${words} "$@"; }; ${line}`],
    cwd: cwd ?? ROOT.pathname,
    stdout: "piped",
    stderr: "piped",
  }).output();
  const decoder = new TextDecoder();
  return { code, stdout: decoder.decode(stdout), stderr: decoder.decode(stderr) };
}

/** Calls `use` with a folder that is gone afterwards. */
export async function withFolder<T>(use: (folder: string) => Promise<T>): Promise<T> {
  const folder = await Deno.makeTempDir({ prefix: "vmtape-test-" });
  try {
    return await use(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}
