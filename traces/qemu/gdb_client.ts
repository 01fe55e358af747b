/**
 * A client of the GDB remote protocol as QEMU speaks it: vCPUs are threads,
 * breakpoints are linear addresses, memory can be read and written by physical
 * address, and QEMU's monitor answers through `qRcmd`.
 *
 * @module
 */
import { GdbError, GdbFramer, gdbPacket, gdbText } from "./gdb_packets.ts";
import { GdbRegisterLayout, GdbRegisters } from "./gdb_registers.ts";

/** Where a GDB stub listens. */
export type GdbAddress =
  | { readonly transport: "tcp"; readonly hostname: string; readonly port: number }
  | { readonly transport: "unix"; readonly path: string };

/** Why the target stopped. */
export interface GdbStop {
  /**
   * `breakpoint`: a breakpoint or the end of a single step; `interrupt`: asked to;
   * `shutdown`: the guest reset or switched itself off; `gone`: QEMU ended; `other`: any other signal.
   */
  readonly reason: "breakpoint" | "interrupt" | "shutdown" | "gone" | "other";
  /** vCPU that stopped, as the stub names it. */
  readonly thread?: string;
  /** The packet itself. */
  readonly text: string;
}

/** How to talk to the stub. */
export interface GdbOptions {
  /** Milliseconds to wait for the answer to a request; 10,000 when left out. */
  readonly timeoutMs?: number;
}

/** A connection to a stub: a socket, or the standard streams of a QEMU that was started with `-gdb stdio`. */
export interface GdbTransport {
  /**
   * Reads what has arrived.
   *
   * @param into Where to put it.
   * @returns Number of bytes, or null at the end.
   */
  read(into: Uint8Array): Promise<number | null>;
  /**
   * Sends bytes.
   *
   * @param bytes The bytes.
   * @returns How many were taken.
   */
  write(bytes: Uint8Array): Promise<number>;
  /** Hangs up. */
  close(): void;
}

interface Waiter {
  resolve(payload: Uint8Array): void;
  reject(error: unknown): void;
}

const REASONS: Readonly<Record<string, GdbStop["reason"]>> = {
  "05": "breakpoint",
  "02": "interrupt",
  "03": "shutdown",
};

/** Bytes of memory in one packet: QEMU's packets hold 4,096 characters, two a byte. */
const MEMORY_CHUNK = 2000;

/** Memory requests under way at once. */
const PIPELINE = 16;

/**
 * Takes an address apart: `HOST:PORT`, `:PORT`, `PORT`, or `unix:PATH`.
 *
 * @param text The address, as QEMU's `-gdb` takes it (a leading `tcp:` or `tcp::` is allowed).
 * @returns The address.
 * @throws {GdbError} `refused`, when it is none of these.
 * @example
 * ```ts
 * import { parseGdbAddress } from "@vmtape/vmtape/traces";
 * const address = parseGdbAddress("localhost:1234");
 * if (address.transport !== "tcp" || address.port !== 1234) throw new Error();
 * ```
 */
export function parseGdbAddress(text: string): GdbAddress {
  if (text.startsWith("unix:") && text.length > 5) {
    return { transport: "unix", path: text.slice(5).replace(/,.*$/, "") };
  }
  const match = /^(?:tcp:)?(?:(\[[^\]]+\]|[^:]*):)?(\d{1,5})$/.exec(text);
  const port = Number(match?.[2]);
  if (match === null || port < 1 || port > 65535) {
    throw new GdbError(
      "refused",
      `${JSON.stringify(text)} is not an address; expected HOST:PORT or unix:PATH`,
    );
  }
  const host = (match[1] ?? "").replace(/^\[|\]$/g, "");
  return { transport: "tcp", hostname: host === "" ? "localhost" : host, port };
}

/**
 * An address as text.
 *
 * @param address The address.
 * @returns `HOST:PORT` or `unix:PATH`.
 * @example
 * ```ts
 * import { gdbAddressText, parseGdbAddress } from "@vmtape/vmtape/traces";
 * if (gdbAddressText(parseGdbAddress(":1234")) !== "localhost:1234") throw new Error();
 * ```
 */
export function gdbAddressText(address: GdbAddress): string {
  return address.transport === "unix"
    ? `unix:${address.path}`
    : `${address.hostname}:${address.port}`;
}

/**
 * One conversation with a stub. Connecting stops the guest; {@linkcode GdbClient.detach}
 * lets it run on without breakpoints. Every method rejects with a {@linkcode GdbError}:
 * `closed` once QEMU is gone, `timeout` without an answer, `remote` when the stub refuses.
 *
 * @example
 * ```ts ignore
 * import { GdbClient, parseGdbAddress } from "@vmtape/vmtape/traces";
 * const gdb = await GdbClient.connect(parseGdbAddress("localhost:1234"));
 * const registers = await gdb.registers((await gdb.threads())[0]!);
 * console.log(registers.need("rip").toString(16));
 * await gdb.detach();
 * ```
 */
export class GdbClient {
  readonly #conn: GdbTransport;
  readonly #where: string;
  readonly #timeoutMs: number;
  readonly #framer = new GdbFramer();
  readonly #waiters: Waiter[] = [];
  readonly #stops: GdbStop[] = [];
  #stopWaiter: { resolve(stop: GdbStop): void; reject(error: unknown): void } | undefined;
  #running = false;
  #dead: GdbError | undefined;
  #acks = true;
  #console = "";
  #thread = "";
  #layout = new GdbRegisterLayout([]);
  #sending: Promise<void> = Promise.resolve();

  /**
   * @param conn An open connection.
   * @param where Its address, for messages.
   * @param options How to talk.
   */
  private constructor(conn: GdbTransport, where: string, options: GdbOptions) {
    this.#conn = conn;
    this.#where = where;
    this.#timeoutMs = options.timeoutMs ?? 10_000;
  }

  /**
   * Connects, agrees on features, and learns the target's registers. The guest stops.
   *
   * @param address Where the stub listens.
   * @param options How to talk.
   * @returns The client.
   * @throws {GdbError} `refused`, `timeout` (another debugger may hold the stub), or `protocol`.
   */
  static async connect(address: GdbAddress, options: GdbOptions = {}): Promise<GdbClient> {
    const where = gdbAddressText(address);
    let conn: Deno.Conn;
    try {
      conn = address.transport === "unix"
        ? await Deno.connect({ transport: "unix", path: address.path })
        : await connectTcp(address.hostname, address.port);
    } catch (cause) {
      if (cause instanceof Deno.errors.NotCapable) throw cause;
      throw new GdbError(
        "refused",
        `Nothing answers at ${where}; start QEMU with -gdb ${
          address.transport === "unix" ? "unix:PATH,server=on" : "tcp::PORT"
        }, or say another address`,
        { cause },
      );
    }
    return await GdbClient.over(conn, where, options);
  }

  /**
   * The same over a connection that is open already.
   *
   * @param transport The connection; the client closes it.
   * @param where What to call it in messages.
   * @param options How to talk.
   * @returns The client.
   * @throws {GdbError} `timeout` or `protocol`.
   */
  static async over(
    transport: GdbTransport,
    where: string,
    options: GdbOptions = {},
  ): Promise<GdbClient> {
    const client = new GdbClient(transport, where, options);
    void client.#pump();
    try {
      await client.#greet();
    } catch (error) {
      // Connecting has stopped the guest.
      await client.detach().catch(() => {});
      throw error;
    }
    return client;
  }

  /** Whether QEMU runs on this machine, so that files can be shared with it. */
  get local(): boolean {
    return /^(stdio$|unix:|localhost:|127\.|::1:)/.test(this.#where);
  }

  /** Layout of the registers. */
  get layout(): GdbRegisterLayout {
    return this.#layout;
  }

  /** Whether the guest runs as far as this client knows. */
  get running(): boolean {
    return this.#running;
  }

  /** Why the conversation ended; undefined while it lasts. */
  get ended(): GdbError | undefined {
    return this.#dead;
  }

  async #greet(): Promise<void> {
    const features = gdbText(await this.request("qSupported:xmlRegisters=i386;vContSupported+"));
    if (!features.includes("qXfer:features:read+")) {
      throw new GdbError(
        "remote",
        `The GDB stub at ${this.#where} does not describe its registers; it must be QEMU 7.2 or newer`,
      );
    }
    if (features.includes("QStartNoAckMode+")) {
      await this.ok("QStartNoAckMode");
      this.#acks = false;
    }
    this.#layout = GdbRegisterLayout.parse(await this.#describe("target.xml", 0));
    await this.ok("Qqemu.PhyMemMode:1").catch((cause) => {
      throw new GdbError(
        "remote",
        `The GDB stub at ${this.#where} cannot read physical memory; it must be QEMU 7.2 or newer`,
        { cause },
      );
    });
  }

  async #describe(annex: string, depth: number): Promise<string[]> {
    let text = "";
    for (;;) {
      const part = gdbText(
        await this.request(`qXfer:features:read:${annex}:${text.length.toString(16)},ffb`),
      );
      if (!/^[lm]/.test(part) || text.length > 1 << 20) {
        throw new GdbError("protocol", `The GDB stub does not describe its registers (${annex})`);
      }
      text += part.slice(1);
      if (part.startsWith("l") || part.length === 1) break;
    }
    const documents = [text];
    for (const [, href] of text.matchAll(/<xi:include\s+href="([^"]+)"/g)) {
      if (depth < 4) documents.push(...await this.#describe(href!, depth + 1));
    }
    return documents;
  }

  async #pump(): Promise<void> {
    const chunk = new Uint8Array(65536);
    try {
      for (;;) {
        const n = await this.#conn.read(chunk);
        if (n === null) throw this.#closed();
        this.#framer.push(chunk.subarray(0, n));
        for (let frame = this.#framer.next(); frame; frame = this.#framer.next()) {
          if (this.#acks) this.#write(Uint8Array.of(frame.intact ? 0x2b : 0x2d));
          if (frame.intact) this.#deliver(frame.payload);
          else if (!this.#acks) {
            throw new GdbError("protocol", `A packet from ${this.#where} has a bad checksum`);
          }
        }
      }
    } catch (error) {
      this.#end(error instanceof GdbError ? error : this.#closed(error));
    }
  }

  #closed(cause?: unknown): GdbError {
    return new GdbError(
      "closed",
      `The GDB stub at ${this.#where} closed the connection: QEMU ended or was killed`,
      { cause },
    );
  }

  #end(error: GdbError): void {
    this.#dead ??= error;
    for (const waiter of this.#waiters.splice(0)) waiter.reject(this.#dead);
    this.#stopWaiter?.reject(this.#dead);
    this.#stopWaiter = undefined;
    try {
      this.#conn.close();
    } catch { /* closed before */ }
  }

  #deliver(payload: Uint8Array): void {
    const kind = payload[0];
    // Output of the monitor comes ahead of its OK, as O and hex; OK itself begins with the same letter.
    if (kind === 0x4f && payload.length > 2) {
      this.#console += decodeHex(gdbText(payload.subarray(1)));
      return;
    }
    if (kind === 0x54 || kind === 0x53 || kind === 0x57 || kind === 0x58) {
      // Connecting to a running guest stops it, and that is reported before any answer.
      if (!this.#running) return;
      this.#running = false;
      const text = gdbText(payload);
      const thread = /thread:([^;]+);/.exec(text)?.[1];
      const ended = kind === 0x57 || kind === 0x58;
      const stop: GdbStop = {
        reason: ended ? "gone" : REASONS[text.slice(1, 3)] ?? "other",
        ...(thread === undefined ? {} : { thread }),
        text,
      };
      if (this.#stopWaiter) this.#stopWaiter.resolve(stop);
      else this.#stops.push(stop);
      this.#stopWaiter = undefined;
      return;
    }
    this.#waiters.shift()?.resolve(payload);
  }

  #write(bytes: Uint8Array): void {
    this.#sending = this.#sending.then(async () => {
      for (let at = 0; at < bytes.length;) at += await this.#conn.write(bytes.subarray(at));
    }).catch((cause) => this.#end(this.#closed(cause)));
  }

  /**
   * Sends a packet and waits for the answer.
   *
   * @param payload The request.
   * @param timeoutMs Milliseconds to wait, when other than the client's.
   * @returns The answer; empty when the stub does not know the request.
   * @throws {GdbError} `closed` or `timeout`; either ends the conversation.
   */
  async request(payload: string, timeoutMs: number = this.#timeoutMs): Promise<Uint8Array> {
    if (this.#dead) throw this.#dead;
    const { promise, resolve, reject } = Promise.withResolvers<Uint8Array>();
    this.#waiters.push({ resolve, reject });
    const timer = setTimeout(() =>
      this.#end(
        new GdbError(
          "timeout",
          `No answer from ${this.#where} in ${timeoutMs} ms; it may not be a GDB stub, or another debugger may be attached to it`,
        ),
      ), timeoutMs);
    this.#write(gdbPacket(payload));
    try {
      return await promise;
    } finally {
      clearTimeout(timer);
    }
  }

  /**
   * Sends a request that is answered by OK.
   *
   * @param payload The request.
   * @throws {GdbError} `remote`, at any other answer.
   */
  async ok(payload: string): Promise<void> {
    const answer = gdbText(await this.request(payload));
    if (answer !== "OK") {
      throw new GdbError(
        "remote",
        `The GDB stub at ${this.#where} answered ${JSON.stringify(answer)} to ${
          payload.slice(0, 40)
        }`,
      );
    }
  }

  /**
   * The vCPUs.
   *
   * @returns Their names, in the order of their number.
   */
  async threads(): Promise<string[]> {
    const out: string[] = [];
    let answer = gdbText(await this.request("qfThreadInfo"));
    while (answer.startsWith("m")) {
      out.push(...answer.slice(1).split(","));
      answer = gdbText(await this.request("qsThreadInfo"));
    }
    return out;
  }

  async #select(thread: string): Promise<void> {
    if (this.#thread === thread) return;
    await this.ok(`Hg${thread}`);
    this.#thread = thread;
  }

  /**
   * Reads all registers of a vCPU.
   *
   * @param thread The vCPU.
   * @returns Their values.
   */
  async registers(thread: string): Promise<GdbRegisters> {
    await this.#select(thread);
    const answer = gdbText(await this.request("g"));
    const bytes = fromHex(answer);
    if (bytes === undefined) throw this.#refusal("read registers", answer);
    return new GdbRegisters(this.#layout, bytes);
  }

  /**
   * Writes one register of a vCPU.
   *
   * @param thread The vCPU.
   * @param name Name, as in GDB.
   * @param value The value, cut to the register's size.
   */
  async setRegister(thread: string, name: string, value: bigint): Promise<void> {
    const register = this.#layout.get(name);
    if (register === undefined) {
      throw new GdbError("remote", `The GDB stub at ${this.#where} has no register ${name}`);
    }
    await this.#select(thread);
    let hex = "";
    for (let i = 0; i < register.size; i++) {
      hex += Number(value >> BigInt(8 * i) & 0xffn).toString(16).padStart(2, "0");
    }
    await this.ok(`P${register.number.toString(16)}=${hex}`);
  }

  #refusal(what: string, answer: string): GdbError {
    return new GdbError(
      "remote",
      `The GDB stub at ${this.#where} cannot ${what} (answer ${
        JSON.stringify(answer.slice(0, 20))
      })`,
    );
  }

  /**
   * Reads memory by physical address.
   *
   * @param address First byte.
   * @param length Number of bytes.
   * @returns The bytes, or undefined where there is no memory.
   */
  async readMemory(address: bigint | number, length: number): Promise<Uint8Array | undefined> {
    const out = new Uint8Array(length);
    const base = BigInt(address);
    let next = 0;
    let missing = false;
    const work = async () => {
      while (next < length && !missing) {
        const at = next;
        const size = Math.min(MEMORY_CHUNK, length - at);
        next = at + size;
        const answer = await this.request(
          `m${(base + BigInt(at)).toString(16)},${size.toString(16)}`,
        );
        const bytes = fromHex(gdbText(answer));
        if (bytes === undefined || bytes.length !== size) missing = true;
        else out.set(bytes, at);
      }
    };
    await Promise.all(Array.from({ length: PIPELINE }, work));
    return missing ? undefined : out;
  }

  /**
   * Reads memory by linear address, through a vCPU's page tables.
   *
   * @param thread The vCPU.
   * @param address First byte.
   * @param length Number of bytes, at most 2,000.
   * @returns The bytes, or undefined where nothing is mapped.
   */
  async readLinear(
    thread: string,
    address: bigint,
    length: number,
  ): Promise<Uint8Array | undefined> {
    await this.#select(thread);
    await this.ok("Qqemu.PhyMemMode:0");
    const answer = await this.request(`m${address.toString(16)},${length.toString(16)}`);
    await this.ok("Qqemu.PhyMemMode:1");
    const bytes = fromHex(gdbText(answer));
    return bytes?.length === length ? bytes : undefined;
  }

  /**
   * Writes memory by physical address.
   *
   * @param address First byte.
   * @param bytes What to write.
   */
  async writeMemory(address: bigint | number, bytes: Uint8Array): Promise<void> {
    const base = BigInt(address);
    const requests: Promise<void>[] = [];
    for (let at = 0; at < bytes.length; at += MEMORY_CHUNK) {
      const part = bytes.subarray(at, at + MEMORY_CHUNK);
      requests.push(
        this.ok(`M${(base + BigInt(at)).toString(16)},${part.length.toString(16)}:${part.toHex()}`),
      );
    }
    await Promise.all(requests);
  }

  /**
   * Sets a breakpoint on all vCPUs.
   *
   * @param linear Linear address.
   */
  async insertBreakpoint(linear: bigint): Promise<void> {
    await this.ok(`Z0,${linear.toString(16)},1`);
  }

  /**
   * Removes a breakpoint.
   *
   * @param linear Linear address.
   */
  async removeBreakpoint(linear: bigint): Promise<void> {
    await this.ok(`z0,${linear.toString(16)},1`);
  }

  /**
   * Lets vCPUs run. {@linkcode GdbClient.stopped} waits for the next stop.
   *
   * @param actions `c` for all; `c:THREAD` or `s:THREAD` for one, the others stay stopped.
   */
  resume(actions = "c"): void {
    if (this.#dead) throw this.#dead;
    this.#running = true;
    this.#write(gdbPacket(`vCont;${actions}`));
  }

  /**
   * Waits for the guest to stop.
   *
   * @param timeoutMs Milliseconds to wait at most; for ever when left out.
   * @returns Why it stopped, or undefined when it still runs.
   */
  async stopped(timeoutMs?: number): Promise<GdbStop | undefined> {
    const held = this.#stops.shift();
    if (held) return held;
    if (this.#dead) throw this.#dead;
    const { promise, resolve, reject } = Promise.withResolvers<GdbStop | undefined>();
    this.#stopWaiter = { resolve, reject };
    const timer = timeoutMs === undefined ? undefined : setTimeout(() => {
      this.#stopWaiter = undefined;
      resolve(undefined);
    }, timeoutMs);
    try {
      return await promise;
    } finally {
      clearTimeout(timer);
    }
  }

  /** Asks a running guest to stop; {@linkcode GdbClient.stopped} then yields. */
  interrupt(): void {
    if (this.#running && !this.#dead) this.#write(Uint8Array.of(3));
  }

  /**
   * Gives a command to QEMU's monitor.
   *
   * @param command As typed at `(qemu)`.
   * @returns What it printed.
   */
  async monitor(command: string): Promise<string> {
    this.#console = "";
    await this.ok(`qRcmd,${new TextEncoder().encode(command).toHex()}`);
    return this.#console;
  }

  /** Removes every breakpoint, lets the guest run on, and ends the conversation. */
  async detach(): Promise<void> {
    if (this.#dead) return;
    try {
      if (this.#running) {
        this.interrupt();
        await this.stopped(this.#timeoutMs);
      }
      await this.ok("D");
      await this.#sending;
    } finally {
      this.close();
    }
  }

  /** Hangs up. QEMU then lets a stopped guest be; {@linkcode GdbClient.detach} is the polite way. */
  close(): void {
    this.#end(new GdbError("closed", `The connection to ${this.#where} is closed`));
  }
}

async function connectTcp(hostname: string, port: number): Promise<Deno.Conn> {
  const conn = await Deno.connect({ hostname, port });
  // Without it each request waits 40 ms for the acknowledgement of the one before.
  conn.setNoDelay(true);
  return conn;
}

function fromHex(text: string): Uint8Array | undefined {
  if (text.length % 2 !== 0) return undefined;
  try {
    // QEMU writes x for what it cannot read of a register.
    return Uint8Array.fromHex(text.replaceAll("x", "0"));
  } catch {
    return undefined;
  }
}

function decodeHex(text: string): string {
  return gdbText(fromHex(text) ?? new Uint8Array());
}
