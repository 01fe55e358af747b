/**
 * Starts QEMU with a GDB stub on a socket of its own, and ends it.
 *
 * @module
 */
import { GdbClient } from "./gdb_client.ts";
import { GdbError } from "./gdb_packets.ts";

/** The emulator that is started when no other is named. */
export const QEMU_BINARY = "qemu-system-x86_64";

/**
 * QEMU could not be started.
 *
 * @example
 * ```ts
 * import { QemuError } from "@vmtape/vmtape/traces";
 * if (new QemuError("No machine of that name", "-machine: unsupported").stderr === "") throw new Error();
 * ```
 */
export class QemuError extends Error {
  override readonly name = "QemuError";
  /** What QEMU said, at most its last 4 KiB. */
  readonly stderr: string;

  /**
   * @param message What happened and what to do next.
   * @param stderr What QEMU said.
   * @param options The error behind it.
   */
  constructor(message: string, stderr = "", options?: ErrorOptions) {
    super(message, options);
    this.stderr = stderr;
  }
}

/** How to start QEMU. */
export interface QemuOptions {
  /** Program; {@linkcode QEMU_BINARY} when left out. */
  readonly binary?: string;
  /** Options beside the accelerator, the processor and the GDB stub. */
  readonly args?: readonly string[];
  /** Processor for `-cpu`; `max` when left out, which has SVM under software emulation. */
  readonly cpu?: string;
  /** TCP port of the GDB stub on 127.0.0.1; a socket in a temporary folder when left out. */
  readonly port?: number;
  /** Milliseconds to wait for QEMU to listen; 20,000 when left out. */
  readonly timeoutMs?: number;
}

/**
 * A QEMU of our own, stopped before its first instruction, with a client on its stub.
 *
 * @example
 * ```ts ignore
 * import { QemuProcess } from "@vmtape/vmtape/traces";
 * await using qemu = await QemuProcess.start({ args: ["-m", "16", "-kernel", "guest.elf"] });
 * console.log(await qemu.gdb.threads());
 * ```
 */
export class QemuProcess {
  /** Client of the stub. */
  readonly gdb: GdbClient;
  readonly #child: Deno.ChildProcess;
  readonly #stderr: Promise<string>;
  readonly #folder: string | undefined;

  private constructor(
    gdb: GdbClient,
    child: Deno.ChildProcess,
    stderr: Promise<string>,
    folder: string | undefined,
  ) {
    this.gdb = gdb;
    this.#child = child;
    this.#stderr = stderr;
    this.#folder = folder;
  }

  /**
   * Starts QEMU under software emulation and connects.
   *
   * @param options How.
   * @returns The process, its guest stopped.
   * @throws {QemuError} When it is not installed, refuses its options, or its port is taken.
   */
  static async start(options: QemuOptions = {}): Promise<QemuProcess> {
    const binary = options.binary ?? QEMU_BINARY;
    if (options.port !== undefined) checkFree(options.port);
    const folder = options.port === undefined
      ? await Deno.makeTempDir({ prefix: "vmtape-qemu-" })
      : undefined;
    const device = folder === undefined
      ? `tcp:127.0.0.1:${options.port}`
      : `unix:${folder}/gdb,server=on,wait=off`;
    let child: Deno.ChildProcess;
    try {
      child = new Deno.Command(binary, {
        args: [
          ...["-accel", "tcg", "-cpu", options.cpu ?? "max", "-display", "none"],
          ...["-S", "-gdb", device],
          ...options.args ?? [],
        ],
        stdin: "null",
        stdout: "null",
        stderr: "piped",
      }).spawn();
    } catch (cause) {
      await removeFolder(folder);
      if (cause instanceof Deno.errors.NotCapable) throw cause;
      throw new QemuError(
        `${binary} cannot be started; install it (Debian: apt-get install qemu-system-x86)`,
        "",
        { cause },
      );
    }
    const stderr = lastWords(child.stderr);
    let ended: Deno.CommandStatus | undefined;
    void child.status.then((status) => ended = status);
    const deadline = performance.now() + (options.timeoutMs ?? 20_000);
    for (;;) {
      try {
        const gdb = await GdbClient.connect(
          folder === undefined
            ? { transport: "tcp", hostname: "127.0.0.1", port: options.port! }
            : { transport: "unix", path: `${folder}/gdb` },
        );
        // Another program may hold the port: QEMU then ends, and what answered is not ours.
        await new Promise((resolve) => setTimeout(resolve, folder === undefined ? 50 : 0));
        if (ended === undefined) return new QemuProcess(gdb, child, stderr, folder);
        gdb.close();
      } catch (error) {
        const waiting = error instanceof GdbError && error.code === "refused" &&
          performance.now() < deadline;
        if (!waiting && ended === undefined) {
          // Of two reasons, QEMU's own is the better one: give it a moment to say it.
          await within(child.status, 300);
        }
        if (!waiting && ended === undefined) {
          kill(child);
          await child.status;
          await removeFolder(folder);
          throw error;
        }
      }
      if (ended !== undefined) {
        await removeFolder(folder);
        const words = (await stderr).trim();
        throw new QemuError(
          `${binary} ended with status ${ended.code} before it could be recorded: ${
            gist(words) ?? "it said nothing"
          }`,
          words,
        );
      }
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }

  /** Process id. */
  get pid(): number {
    return this.#child.pid;
  }

  /** Resolves when QEMU has ended. */
  get status(): Promise<Deno.CommandStatus> {
    return this.#child.status;
  }

  /**
   * What QEMU said when it ended by a fault of its own.
   *
   * @returns Its last line, or undefined when it still runs, or was ended by someone.
   */
  async crash(): Promise<string | undefined> {
    const status = await within(this.#child.status, 1000);
    if (status === undefined || status.success) return undefined;
    if (status.signal !== null && !FAULTS.includes(status.signal)) return undefined;
    return gist(await this.#stderr) ?? `It ended with status ${status.code}`;
  }

  /** Ends QEMU and waits for it. */
  async stop(): Promise<void> {
    this.gdb.close();
    kill(this.#child);
    await this.#child.status;
    await this.#stderr;
    await removeFolder(this.#folder);
  }

  /** {@linkcode QemuProcess.stop}, for `await using`. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }
}

/** The line of what QEMU said that tells most: its first that is no warning. */
function gist(words: string): string | undefined {
  const lines = words.split("\n").filter((line) => line.trim() !== "");
  return lines.find((line) => !/warning:/i.test(line)) ?? lines.at(-1);
}

/** QEMU's own words on a port that is taken come late, after something else has answered there. */
function checkFree(port: number): void {
  try {
    Deno.listen({ hostname: "127.0.0.1", port }).close();
  } catch (cause) {
    if (!(cause instanceof Deno.errors.AddrInUse)) throw cause;
    throw new QemuError(
      `Port ${port} is in use; leave the port out, say another one, or attach to what listens there`,
      "",
      { cause },
    );
  }
}

/** Signals that a program gives itself; any other was sent by someone. */
const FAULTS: readonly Deno.Signal[] = [
  "SIGABRT",
  "SIGSEGV",
  "SIGBUS",
  "SIGILL",
  "SIGFPE",
  "SIGTRAP",
];

/** The promise's value, or undefined when it takes longer. */
async function within<T>(promise: Promise<T>, ms: number): Promise<T | undefined> {
  const { promise: late, resolve } = Promise.withResolvers<undefined>();
  const timer = setTimeout(() => resolve(undefined), ms);
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

function kill(child: Deno.ChildProcess): void {
  try {
    child.kill("SIGKILL");
  } catch { /* it ended by itself */ }
}

async function removeFolder(folder: string | undefined): Promise<void> {
  if (folder === undefined) return;
  try {
    await Deno.remove(folder, { recursive: true });
  } catch { /* removed before */ }
}

/** The end of a stream of text, read as it comes so that its writer never blocks. */
async function lastWords(stream: ReadableStream<Uint8Array>): Promise<string> {
  const decoder = new TextDecoder();
  let text = "";
  for await (const chunk of stream) text = (text + decoder.decode(chunk)).slice(-4096);
  return text;
}
