/**
 * Starts QEMU with a GDB stub of its own, and ends it.
 *
 * @module
 */
import { VmtapeError } from "../../engine/error.ts";
import { GdbClient } from "./gdb_client.ts";
import type { GdbTransport } from "./gdb_connection.ts";
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
export class QemuError extends VmtapeError {
  /** Name of the class. */
  override readonly name = "QemuError";
  /** What QEMU said, at most its last 4 KiB. */
  readonly stderr: string;

  /**
   * A trouble with QEMU.
   *
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
  /** TCP port of the GDB stub on 127.0.0.1; QEMU's standard streams carry it when left out, which needs no port. */
  readonly port?: number;
  /** Milliseconds to wait for QEMU to listen; 20,000 when left out. */
  readonly timeoutMs?: number;
}

/**
 * A QEMU of our own, stopped before its first instruction, with a client on its stub.
 *
 * @example
 * ```ts
 * import { QemuProcess } from "@vmtape/vmtape/traces";
 * try {
 *   await using qemu = await QemuProcess.start({ args: ["-m", "16"] });
 *   const [vcpu = ""] = await qemu.gdb.threads();
 *   if ((await qemu.gdb.registers(vcpu)).need("rip") !== 0xfff0n) throw new Error("Not stopped at reset");
 * } catch (error) {
 *   const { cause } = error as Error;
 *   if (!(cause instanceof Deno.errors.NotFound)) throw error; // QEMU is not installed
 * }
 * ```
 */
export class QemuProcess {
  /** Client of the stub. */
  readonly gdb: GdbClient;
  readonly #child: Deno.ChildProcess;
  readonly #stderr: Promise<string>;

  private constructor(
    gdb: GdbClient,
    child: Deno.ChildProcess,
    stderr: Promise<string>,
  ) {
    this.gdb = gdb;
    this.#child = child;
    this.#stderr = stderr;
  }

  /**
   * Starts QEMU under software emulation and connects.
   *
   * @param options How.
   * @returns The process, its guest stopped.
   * @throws {QemuError} When it is not installed, refuses its options, or its port is taken.
   */
  static async start(options: QemuOptions = {}): Promise<QemuProcess> {
    const { binary = QEMU_BINARY, port, timeoutMs = 20_000 } = options;
    if (port !== undefined) checkFree(port);
    const piped = port === undefined ? "piped" : "null";
    let child: Deno.ChildProcess;
    try {
      child = new Deno.Command(binary, {
        args: [
          ...["-accel", "tcg", "-cpu", options.cpu ?? "max", "-display", "none", "-S"],
          ...["-gdb", port === undefined ? "stdio" : `tcp:127.0.0.1:${port}`],
          ...options.args ?? [],
        ],
        stdin: piped,
        stdout: piped,
        stderr: "piped",
      }).spawn();
    } catch (cause) {
      if (cause instanceof Deno.errors.NotCapable) throw cause;
      throw new QemuError(
        `${binary} cannot be started; install it (Debian: apt-get install qemu-system-x86)`,
        "",
        { cause },
      );
    }
    const stderr = lastWords(child.stderr);
    try {
      const gdb = port === undefined
        ? await GdbClient.over(streams(child.stdout, child.stdin), "stdio", { timeoutMs })
        : await listening(port, child, timeoutMs);
      return new QemuProcess(gdb, child, stderr);
    } catch (error) {
      // Of two reasons, QEMU's own is the better one: give it a moment to say it.
      const status = await within(child.status, 300);
      kill(child);
      await child.status;
      const words = (await stderr).trim();
      if (status === undefined) throw error;
      throw new QemuError(
        `${binary} ended with status ${status.code} before it could be recorded: ${
          gist(words) ?? "it said nothing"
        }`,
        words,
      );
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

/** The standard streams of a child as a connection. */
function streams(
  output: ReadableStream<Uint8Array>,
  input: WritableStream<Uint8Array>,
): GdbTransport {
  const reader = output.getReader();
  const writer = input.getWriter();
  let rest: Uint8Array = new Uint8Array();
  return {
    async read(into) {
      if (rest.length === 0) {
        const { value, done } = await reader.read();
        if (done) return null;
        rest = value;
      }
      const taken = rest.subarray(0, into.length);
      into.set(taken);
      rest = rest.subarray(taken.length);
      return taken.length;
    },
    async write(bytes) {
      await writer.write(bytes);
      return bytes.length;
    },
    close() {
      // Either may have failed already, when QEMU ended; then there is nothing left to close.
      reader.cancel().catch(() => {});
      writer.close().catch(() => {});
    },
  };
}

/** A client, once QEMU listens. */
async function listening(
  port: number,
  child: Deno.ChildProcess,
  timeoutMs: number,
): Promise<GdbClient> {
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    try {
      return await GdbClient.connect({ transport: "tcp", hostname: "127.0.0.1", port });
    } catch (error) {
      const waiting = error instanceof GdbError && error.code === "refused" &&
        performance.now() < deadline;
      if (!waiting || await within(child.status, 20) !== undefined) throw error;
    }
  }
}

/** The end of a stream of text, read as it comes so that its writer never blocks. */
async function lastWords(stream: ReadableStream<Uint8Array>): Promise<string> {
  const decoder = new TextDecoder();
  let text = "";
  for await (const chunk of stream) text = (text + decoder.decode(chunk)).slice(-4096);
  return text;
}
