/**
 * One connection to a GDB stub: requests and their answers in order, stops as
 * they come, and one end for whatever ends it.
 *
 * @module
 */
import { Buffer } from "node:buffer";
import { GdbError, GdbFramer, gdbPacket, gdbText, quoted } from "./gdb_packets.ts";

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
  resolve(answer: GdbAnswer): void;
  reject(error: unknown): void;
  /** Output of the monitor so far. */
  console: string;
  /** Milliseconds it may take. */
  readonly limitMs: number;
}

/** An answer of the stub. */
interface GdbAnswer {
  readonly payload: Uint8Array;
  /** What the monitor printed before it. */
  readonly console: string;
}

/** Output of one monitor command held at most, in characters; that of the largest machines is a tenth. */
const MAX_CONSOLE = 4 << 20;
/** Damaged packets asked for again one after the other. */
const MAX_DAMAGED = 8;
/** Packets at most that answer nothing. */
const MAX_UNASKED = 64;

const REASONS: Readonly<Record<string, GdbStop["reason"]>> = {
  "05": "breakpoint",
  "02": "interrupt",
  "03": "shutdown",
};

/**
 * Requests, answers and stops over a {@linkcode GdbTransport}.
 *
 * Several requests may be under way; answers come in their order. Every method rejects with a
 * {@linkcode GdbError} once the connection has ended, for the reason it ended with.
 */
export class GdbConnection {
  /** What the other end is called in messages. */
  readonly where: string;
  readonly #transport: GdbTransport;
  readonly #timeoutMs: number;
  readonly #framer = new GdbFramer();
  readonly #waiters: Waiter[] = [];
  readonly #stops: GdbStop[] = [];
  #stopWaiter: { resolve(stop: GdbStop): void; reject(error: unknown): void } | undefined;
  #running = false;
  #dead: GdbError | undefined;
  #acks = true;
  #damaged = 0;
  #unasked = 0;
  /** What is to be sent next, in one go. */
  #queue: Uint8Array[] = [];
  #sending: Promise<void> | undefined;
  /** When the request that waits longest came to be the next one, and what looks after it. */
  #waitingSince = 0;
  #watch: ReturnType<typeof setTimeout> | undefined;

  /**
   * Begins to listen.
   *
   * @param transport The connection; it is closed at the end.
   * @param where What to call the other end.
   * @param timeoutMs Milliseconds to wait for an answer.
   */
  constructor(transport: GdbTransport, where: string, timeoutMs: number) {
    this.#transport = transport;
    this.where = where;
    this.#timeoutMs = timeoutMs;
    void this.#pump();
  }

  /** Whether the guest runs as far as is known here. */
  get running(): boolean {
    return this.#running;
  }

  /** Why the connection ended; undefined while it lasts. */
  get ended(): GdbError | undefined {
    return this.#dead;
  }

  /** Milliseconds to wait for an answer. */
  get timeoutMs(): number {
    return this.#timeoutMs;
  }

  /** Agrees with the stub to leave acknowledgements out. */
  async dropAcks(): Promise<void> {
    await this.ok("QStartNoAckMode");
    this.leaveAcks();
  }

  /**
   * Leaves acknowledgements out. QEMU takes the next request for one, and a byte that comes while
   * its guest runs, an acknowledgement too, for the wish to stop it.
   */
  leaveAcks(): void {
    this.#acks = false;
  }

  async #pump(): Promise<void> {
    const chunk = new Uint8Array(65536);
    try {
      for (;;) {
        const n = await this.#transport.read(chunk);
        if (n === null) throw this.#closed();
        this.#framer.push(chunk.subarray(0, n));
        for (let frame = this.#framer.next(); frame; frame = this.#framer.next()) {
          if (this.#acks) this.#write(Uint8Array.of(frame.intact ? 0x2b : 0x2d));
          this.#damaged = frame.intact ? 0 : this.#damaged + 1;
          if (frame.intact) this.#deliver(frame.payload);
          else if (!this.#acks || this.#damaged > MAX_DAMAGED) {
            throw new GdbError("protocol", `A packet from ${this.where} has a bad checksum`);
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
      `The GDB stub at ${this.where} closed the connection: QEMU ended or was killed`,
      { cause },
    );
  }

  #end(error: GdbError): void {
    this.#dead ??= error;
    clearTimeout(this.#watch);
    for (const waiter of this.#waiters.splice(0)) waiter.reject(this.#dead);
    this.#stopWaiter?.reject(this.#dead);
    this.#stopWaiter = undefined;
    try {
      this.#transport.close();
    } catch { /* closed before */ }
  }

  #deliver(payload: Uint8Array): void {
    const kind = payload[0];
    const [waiter] = this.#waiters;
    // Output of the monitor comes ahead of its OK, as O and hex; OK itself begins with the same letter.
    if (kind === 0x4f && payload.length > 2) {
      if (waiter === undefined) return this.#nobodyAsked();
      waiter.console += decodeHex(gdbText(payload.subarray(1)));
      if (waiter.console.length > MAX_CONSOLE) {
        throw new GdbError("protocol", `The monitor behind ${this.where} prints without end`);
      }
      return;
    }
    if (kind === 0x54 || kind === 0x53 || kind === 0x57 || kind === 0x58) {
      // Connecting to a running guest stops it, and that is reported before any answer.
      if (!this.#running) return this.#nobodyAsked();
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
    if (waiter === undefined) return this.#nobodyAsked();
    this.#waiters.shift();
    waiter.resolve({ payload, console: waiter.console });
    this.#waitingSince = performance.now();
    if (this.#waiters.length === 0) {
      clearTimeout(this.#watch);
      this.#watch = undefined;
    }
  }

  #nobodyAsked(): void {
    if (++this.#unasked > MAX_UNASKED) {
      throw new GdbError("protocol", `${this.where} sends packets that nobody asked for`);
    }
  }

  /** Looks after the request that waits longest. */
  #watchFor(waiter: Waiter): void {
    const late = () => {
      const [first] = this.#waiters;
      const left = (first?.limitMs ?? 0) - (performance.now() - this.#waitingSince);
      if (first && left > 0) {
        this.#watch = setTimeout(late, left);
        return;
      }
      this.#end(
        new GdbError(
          "timeout",
          `No answer from ${this.where} in ${
            first?.limitMs ?? waiter.limitMs
          } ms; it may not be a GDB stub, or another debugger may be attached to it`,
        ),
      );
    };
    this.#waitingSince = performance.now();
    this.#watch = setTimeout(late, waiter.limitMs);
  }

  /** Sends bytes; what is asked for before the next turn of the event loop goes out together. */
  #write(bytes: Uint8Array): void {
    this.#queue.push(bytes);
    this.#sending ??= this.#send();
  }

  async #send(): Promise<void> {
    await Promise.resolve();
    try {
      while (this.#queue.length > 0) {
        const bytes = Buffer.concat(this.#queue.splice(0));
        for (let at = 0; at < bytes.length;) at += await this.#transport.write(bytes.subarray(at));
      }
    } catch (cause) {
      this.#end(this.#closed(cause));
    }
    this.#sending = undefined;
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
    return (await this.#ask(payload, timeoutMs)).payload;
  }

  #ask(payload: string, limitMs: number): Promise<GdbAnswer> {
    if (this.#dead) return Promise.reject(this.#dead);
    const { promise, resolve, reject } = Promise.withResolvers<GdbAnswer>();
    const waiter: Waiter = { resolve, reject, console: "", limitMs };
    if (this.#waiters.push(waiter) === 1) this.#watchFor(waiter);
    this.#write(gdbPacket(payload));
    return promise;
  }

  /**
   * Sends a request that is answered by OK.
   *
   * @param payload The request.
   * @throws {GdbError} `remote`, at any other answer.
   */
  async ok(payload: string): Promise<void> {
    await this.output(payload);
  }

  /**
   * Sends a request that is answered by OK, before which the monitor's output may come.
   *
   * @param payload The request.
   * @returns The output.
   * @throws {GdbError} `remote`, at any other answer.
   */
  async output(payload: string): Promise<string> {
    const { payload: bytes, console } = await this.#ask(payload, this.#timeoutMs);
    const answer = gdbText(bytes);
    if (answer !== "OK") {
      throw new GdbError(
        "remote",
        `The GDB stub at ${this.where} answered ${quoted(answer)} to ${payload.slice(0, 40)}`,
      );
    }
    return console;
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

  /** Waits until everything is sent. */
  async flush(): Promise<void> {
    await this.#sending;
  }

  /** Hangs up. */
  close(): void {
    this.#end(new GdbError("closed", `The connection to ${this.where} is closed`));
  }
}

/**
 * Bytes from the digits of a packet.
 *
 * @param text Two digits a byte; `x` for what the stub cannot read.
 * @returns The bytes, or undefined when it is not that.
 */
export function fromHex(text: string): Uint8Array | undefined {
  if (text.length % 2 !== 0) return undefined;
  try {
    // QEMU writes x for what it cannot read of a register.
    return Uint8Array.fromHex(text.includes("x") ? text.replaceAll("x", "0") : text);
  } catch {
    return undefined;
  }
}

/** Text from the digits of a packet. */
function decodeHex(text: string): string {
  return gdbText(fromHex(text) ?? new Uint8Array());
}
