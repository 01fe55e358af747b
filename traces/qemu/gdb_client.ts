/**
 * A client of the GDB remote protocol as QEMU speaks it: vCPUs are threads,
 * breakpoints are linear addresses, memory can be read and written by physical
 * address, and QEMU's monitor answers through `qRcmd`.
 *
 * @module
 */
import { type GdbAddress, gdbAddressText } from "./gdb_address.ts";
import { fromHex, GdbConnection, type GdbStop, type GdbTransport } from "./gdb_connection.ts";
import type { GdbOptions } from "./gdb_connection.ts";
import { GdbError, gdbText, quoted } from "./gdb_packets.ts";
import { GdbRegisterLayout, GdbRegisters } from "./gdb_registers.ts";

/** Bytes of memory in one packet, two characters each, when the stub does not say how long its packets are. */
const MEMORY_CHUNK = 0x400;
/** The same at most, whatever it says. */
const MAX_MEMORY_CHUNK = 0x8000;
/** Of these, what the address in a request to write takes. */
const MEMORY_HEADER = 32;
/** Documents of a target's description at most; QEMU's are three. */
const MAX_DOCUMENTS = 32;
/** vCPUs at most; QEMU's machines have 4,096 at most. */
const MAX_THREADS = 8192;

/** Memory requests under way at once. */
const PIPELINE = 16;

/**
 * One conversation with a stub. Connecting stops the guest; {@linkcode GdbClient.detach}
 * lets it run on without breakpoints. Every method rejects with a {@linkcode GdbError}:
 * `closed` once QEMU is gone, `timeout` without an answer, `remote` when the stub refuses.
 *
 * @example
 * ```ts
 * import { GdbClient, parseGdbAddress, QemuProcess } from "@vmtape/vmtape/traces";
 * const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
 * const { port } = listener.addr;
 * listener.close();
 * try {
 *   await using qemu = await QemuProcess.start({ port });
 *   await qemu.gdb.detach();
 *   const gdb = await GdbClient.connect(parseGdbAddress(`localhost:${port}`));
 *   const bytes = await gdb.readMemory(0xfffffff0n, 16);
 *   await gdb.detach();
 *   if (bytes?.[0] !== 0xea) throw new Error("The firmware begins with a far jump");
 * } catch (error) {
 *   const { cause } = error as Error;
 *   if (!(cause instanceof Deno.errors.NotFound)) throw error; // QEMU is not installed
 * }
 * ```
 */
export class GdbClient {
  readonly #link: GdbConnection;
  #thread = "";
  #chunk = MEMORY_CHUNK;
  #layout = new GdbRegisterLayout([]);

  private constructor(link: GdbConnection) {
    this.#link = link;
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
    const link = new GdbConnection(transport, where, options.timeoutMs ?? 10_000);
    const client = new GdbClient(link);
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
    return /^(stdio$|unix:|localhost:|127\.|::1:)/.test(this.#link.where);
  }

  /** Layout of the registers. */
  get layout(): GdbRegisterLayout {
    return this.#layout;
  }

  /** Whether the guest runs as far as this client knows. */
  get running(): boolean {
    return this.#link.running;
  }

  /** Why the conversation ended; undefined while it lasts. */
  get ended(): GdbError | undefined {
    return this.#link.ended;
  }

  async #greet(): Promise<void> {
    const where = this.#link.where;
    const features = gdbText(
      await this.#link.request("qSupported:xmlRegisters=i386;vContSupported+"),
    );
    if (!features.includes("qXfer:features:read+")) {
      throw new GdbError(
        "remote",
        `The GDB stub at ${where} does not describe its registers; it must be QEMU 7.2 or newer`,
      );
    }
    const size = parseInt(/PacketSize=([0-9a-f]{1,8})/i.exec(features)?.[1] ?? "0", 16) >> 1;
    if (size > 2 * MEMORY_HEADER) this.#chunk = Math.min(size, MAX_MEMORY_CHUNK);
    if (features.includes("QStartNoAckMode+")) {
      await this.#link.dropAcks();
    }
    this.#layout = GdbRegisterLayout.parse(await this.#describe());
    await this.#link.ok("Qqemu.PhyMemMode:1").catch((cause) => {
      throw new GdbError(
        "remote",
        `The GDB stub at ${where} cannot read physical memory; it must be QEMU 7.2 or newer`,
        { cause },
      );
    });
    // Only QEMU knows that request.
    this.#link.leaveAcks();
  }

  /** Documents of the target's description, each with what it includes behind it. */
  async #describe(): Promise<string[]> {
    const deadline = performance.now() + this.#link.timeoutMs;
    const seen = new Set<string>();
    const documents: string[] = [];
    const read = async (annex: string): Promise<void> => {
      if (seen.has(annex)) return;
      if (seen.add(annex).size > MAX_DOCUMENTS) throw this.#undescribed(annex);
      const text = await this.#document(annex, deadline);
      documents.push(text);
      for (const [, href] of text.matchAll(/<xi:include\s+href="([^"]{1,80})"/g)) await read(href!);
    };
    await read("target.xml");
    return documents;
  }

  async #document(annex: string, deadline: number): Promise<string> {
    let text = "";
    for (;;) {
      const part = gdbText(
        await this.#link.request(`qXfer:features:read:${annex}:${text.length.toString(16)},ffb`),
      );
      if (!/^[lm]/.test(part) || text.length > 1 << 20) throw this.#undescribed(annex);
      text += part.slice(1);
      if (part.startsWith("l") || part.length === 1) return text;
      if (performance.now() > deadline) {
        throw new GdbError(
          "timeout",
          `The GDB stub at ${this.#link.where} takes longer than ${this.#link.timeoutMs} ms to describe its registers`,
        );
      }
    }
  }

  #undescribed(annex: string): GdbError {
    return new GdbError(
      "protocol",
      `The GDB stub at ${this.#link.where} does not describe its registers (${quoted(annex)})`,
    );
  }

  /**
   * The vCPUs.
   *
   * @returns Their names, in the order of their number.
   */
  async threads(): Promise<string[]> {
    const out = new Set<string>();
    let answer = gdbText(await this.#link.request("qfThreadInfo"));
    while (answer.startsWith("m")) {
      const before = out.size;
      for (const name of answer.slice(1).split(",")) out.add(name);
      // A list that repeats itself has no end.
      if (out.size === before || out.size > MAX_THREADS) {
        throw new GdbError("protocol", `The GDB stub at ${this.#link.where} lists vCPUs for ever`);
      }
      answer = gdbText(await this.#link.request("qsThreadInfo"));
    }
    if (out.size === 0) {
      throw new GdbError("protocol", `The GDB stub at ${this.#link.where} lists no vCPU`);
    }
    return [...out];
  }

  /**
   * Makes what is sent next be about a vCPU. The caller sends that before it waits for this, so
   * that another call cannot come between.
   */
  #select(thread: string): Promise<void> {
    if (this.#thread === thread) return Promise.resolve();
    this.#thread = thread;
    return this.#link.ok(`Hg${thread}`);
  }

  /**
   * Reads all registers of a vCPU.
   *
   * @param thread The vCPU.
   * @returns Their values.
   */
  async registers(thread: string): Promise<GdbRegisters> {
    const [, payload] = await Promise.all([this.#select(thread), this.#link.request("g")]);
    const answer = gdbText(payload);
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
      throw new GdbError("remote", `The GDB stub at ${this.#link.where} has no register ${name}`);
    }
    let hex = "";
    for (let i = 0; i < register.size; i++) {
      hex += Number(value >> BigInt(8 * i) & 0xffn).toString(16).padStart(2, "0");
    }
    await Promise.all([
      this.#select(thread),
      this.#link.ok(`P${register.number.toString(16)}=${hex}`),
    ]);
  }

  #refusal(what: string, answer: string): GdbError {
    return new GdbError(
      "remote",
      `The GDB stub at ${this.#link.where} cannot ${what} (answer ${quoted(answer)})`,
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
        const size = Math.min(this.#chunk, length - at);
        next = at + size;
        const answer = await this.#link.request(
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
    const [, , answer] = await Promise.all([
      this.#select(thread),
      this.#link.ok("Qqemu.PhyMemMode:0"),
      this.#link.request(`m${address.toString(16)},${length.toString(16)}`),
      this.#link.ok("Qqemu.PhyMemMode:1"),
    ]);
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
    // The address is in the same packet.
    const room = this.#chunk - MEMORY_HEADER;
    for (let at = 0; at < bytes.length; at += room) {
      const part = bytes.subarray(at, at + room);
      requests.push(
        this.#link.ok(
          `M${(base + BigInt(at)).toString(16)},${part.length.toString(16)}:${part.toHex()}`,
        ),
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
    await this.#link.ok(`Z0,${linear.toString(16)},1`);
  }

  /**
   * Removes a breakpoint.
   *
   * @param linear Linear address.
   */
  async removeBreakpoint(linear: bigint): Promise<void> {
    await this.#link.ok(`z0,${linear.toString(16)},1`);
  }

  /**
   * Gives a command to QEMU's monitor.
   *
   * @param command As typed at `(qemu)`.
   * @returns What it printed.
   */
  async monitor(command: string): Promise<string> {
    return await this.#link.output(`qRcmd,${new TextEncoder().encode(command).toHex()}`);
  }

  /**
   * Lets vCPUs run. {@linkcode GdbClient.stopped} waits for the next stop.
   *
   * @param actions `c` for all; `c:THREAD` or `s:THREAD` for one, the others stay stopped.
   */
  resume(actions = "c"): void {
    this.#link.resume(actions);
  }

  /**
   * Waits for the guest to stop.
   *
   * @param timeoutMs Milliseconds to wait at most; for ever when left out.
   * @returns Why it stopped, or undefined when it still runs.
   */
  async stopped(timeoutMs?: number): Promise<GdbStop | undefined> {
    return await this.#link.stopped(timeoutMs);
  }

  /** Asks a running guest to stop; {@linkcode GdbClient.stopped} then yields. */
  interrupt(): void {
    this.#link.interrupt();
  }

  /** Removes every breakpoint, lets the guest run on, and ends the conversation. */
  async detach(): Promise<void> {
    const link = this.#link;
    if (link.ended) return;
    try {
      if (link.running) {
        link.interrupt();
        await link.stopped(link.timeoutMs);
      }
      await link.ok("D");
      await link.flush();
    } finally {
      link.close();
    }
  }

  /** Hangs up. QEMU leaves its guest as it is; {@linkcode GdbClient.detach} is the polite way. */
  close(): void {
    this.#link.close();
  }
}

async function connectTcp(hostname: string, port: number): Promise<Deno.Conn> {
  const conn = await Deno.connect({ hostname, port });
  // Without it each request waits 40 ms for the acknowledgement of the one before.
  conn.setNoDelay(true);
  return conn;
}
