/**
 * Running a command with a policy of the user's own in a thread that may do next to nothing, and
 * watching that it ends.
 *
 * @module
 */
import { partNames } from "../codecs/container/output_file.ts";
import type { Command, Parsed } from "./command.ts";
import { EXIT } from "./command.ts";
import { UsageError } from "./errors.ts";
import { STANDARD } from "./files.ts";
import { STEP_LIMIT } from "./step_limit.ts";
import { moduleFiles } from "./module_files.ts";
import { moduleAddress, threadEntry } from "./policy_modules.ts";
import { threadModule } from "./thread_modules.ts";
import { isWatched, type Watched, WatchedThreads } from "./watchdog.ts";

/** What the thread is told. */
export interface Assigned {
  /** Arguments of the program. */
  readonly args: readonly string[];
  /** Whether standard output may be coloured. */
  readonly color: boolean;
  /** Whether to show where an internal error comes from. */
  readonly debug: boolean;
}

/** What it says. */
export type FromThread =
  | { readonly token: string }
  | { readonly watched: Watched }
  | { readonly wrong: string }
  | { readonly spawn: MessagePort }
  | { readonly from: string; readonly status: number };

/** How long a command that was interrupted may take to put its output in order, in milliseconds. */
const GRACE_MS = 3000;

/** What was said, if a thread of this program says such a thing: a policy can send anything. */
function fromThread(data: unknown): FromThread | undefined {
  if (typeof data !== "object" || data === null) return undefined;
  const { token, watched, wrong, spawn, from, status } = data as Readonly<Record<string, unknown>>;
  if (typeof token === "string") return { token };
  if (isWatched(watched)) return { watched };
  if (typeof wrong === "string") return { wrong };
  if (spawn instanceof MessagePort) return { spawn };
  return typeof from === "string" && typeof status === "number" ? { from, status } : undefined;
}

/**
 * What a command may read and write: the files that its command line names, and the code of its
 * policies.
 */
function permissionsOf(
  command: Command,
  { options, operands }: Parsed,
  modules: readonly string[],
): Deno.PermissionOptionsObject {
  const values = options as Readonly<Record<string, unknown>>;
  const named = (path: unknown) => typeof path === "string" && path !== STANDARD && path !== "";
  const read = new Set<string>(operands.filter(named));
  for (const path of moduleFiles(modules.map(moduleAddress))) read.add(path);
  const write = new Set<string>();
  for (const { name, kind } of command.options) {
    const path = values[name];
    if (kind !== "file" || !named(path)) continue;
    const file = path as string;
    read.add(file);
    if (name !== "output") continue;
    for (const own of [file, ...partNames(file)]) {
      read.add(own);
      write.add(own);
    }
  }
  const allowed = (name: "read" | "write", paths: ReadonlySet<string>) => {
    const own = [...paths].filter((path) =>
      Deno.permissions.querySync({ name, path }).state === "granted"
    );
    return own.length > 0 ? own : false;
  };
  return {
    read: allowed("read", read),
    write: allowed("write", write),
    net: false,
    env: false,
    run: false,
    ffi: false,
    sys: false,
    import: false,
  };
}

/**
 * Runs a command in a thread of its own.
 *
 * @param args The arguments of the program.
 * @param line The command, its parsed line, and the modules with policies that it names.
 * @param world Whether output may be coloured, and whether to show where errors come from.
 * @returns The exit status.
 * @throws {UsageError} When the thread does not end by itself, or ends in no way it should.
 */
export async function runConfined(
  args: readonly string[],
  line: { readonly command: Command; readonly parsed: Parsed; readonly modules: readonly string[] },
  world: { readonly color: boolean; readonly debug: boolean },
): Promise<number> {
  const { command, parsed, modules } = line;
  const permissions = permissionsOf(command, parsed, modules);
  const ended = Promise.withResolvers<number>();
  const fail = (what: string) => ended.reject(new UsageError(what));
  const limit = (parsed.options as Readonly<Record<string, unknown>>)[STEP_LIMIT.name];
  if (limit === 0) throw new UsageError(`Option --${STEP_LIMIT.name} is at least 1`);
  const watched = new WatchedThreads(modules, fail, typeof limit === "number" ? limit : undefined);
  const workers: Worker[] = [];
  let token: string | undefined;
  const start = (thread: URL, take: (data: FromThread) => void) => {
    const worker = new Worker(threadEntry(thread, modules), {
      type: "module",
      deno: { permissions },
    });
    workers.push(worker);
    worker.onmessage = ({ data }: MessageEvent<unknown>) => {
      const said = fromThread(data);
      if (said === undefined) fail("A policy sends messages of its own");
      else if ("watched" in said) watched.add(said.watched);
      else take(said);
    };
    worker.onerror = (event) => {
      event.preventDefault();
      fail(`A policy went wrong outside of its steps: ${event.message}`);
    };
    return worker;
  };
  const main = start(threadModule("confined"), (data) => {
    if ("wrong" in data) fail(`A policy went wrong outside of its steps: ${data.wrong}`);
    else if ("spawn" in data) {
      if (workers.length > navigator.hardwareConcurrency) return fail("A policy starts threads");
      start(threadModule("share"), () => {}).postMessage({ port: data.spawn }, [data.spawn]);
    } else if ("token" in data) token ??= data.token;
    // Only who was there before the policy knows the token.
    else if ("from" in data && data.from === token) ended.resolve(data.status);
  });
  let interrupts = 0;
  const interrupt = () => {
    if (++interrupts > 1 || !watched.graceful) ended.resolve(EXIT.interrupted);
    else setTimeout(() => ended.resolve(EXIT.interrupted), GRACE_MS);
  };
  Deno.addSignalListener("SIGINT", interrupt);
  Deno.addSignalListener("SIGTERM", interrupt);
  main.postMessage({ args: [...args], ...world } satisfies Assigned);
  try {
    return await ended.promise;
  } finally {
    for (const worker of workers) worker.terminate();
    watched.stop();
    Deno.removeSignalListener("SIGINT", interrupt);
    Deno.removeSignalListener("SIGTERM", interrupt);
  }
}
