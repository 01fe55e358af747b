/**
 * What the tests of the QEMU recorder share: whether there is a QEMU, sinks,
 * and a stub that does what a test says.
 *
 * @module
 */
import { Buffer } from "node:buffer";
import type { TraceEvent } from "../engine/event.ts";
import { QEMU_BINARY } from "../traces/qemu/mod.ts";

/** Whether QEMU is installed; tests that need it are ignored, visibly, when not. */
export const hasQemu = (() => {
  try {
    return new Deno.Command(QEMU_BINARY, { args: ["--version"], stdout: "null", stderr: "null" })
      .outputSync().success;
  } catch {
    return false;
  }
})();

/** A sink that keeps what it gets, and counts how often it was closed. */
export class MemorySink {
  /** What was written. */
  readonly events: TraceEvent[] = [];
  /** How often it was closed. */
  closed = 0;
  readonly #onEvent: ((event: TraceEvent, count: number) => void) | undefined;

  /** @param onEvent Called with each event and how many there are. */
  constructor(onEvent?: (event: TraceEvent, count: number) => void) {
    this.#onEvent = onEvent;
  }

  /** @param event The next event. */
  write(event: TraceEvent): void {
    if (this.closed > 0) throw new Error("Written after close");
    this.events.push(event);
    this.#onEvent?.(event, this.events.length);
  }

  /** The end. */
  close(): void {
    this.closed++;
  }

  /**
   * @param kind A kind of event.
   * @returns How many there are.
   */
  count(kind: TraceEvent["kind"]): number {
    return this.events.filter((event) => event.kind === kind).length;
  }
}

/**
 * A server on a free port that answers bytes with bytes.
 *
 * @param talk What to say to what came; undefined hangs up.
 * @returns Its port, and how to end it.
 */
export function fakeStub(
  talk: (heard: string) => string | undefined,
): { port: number } & AsyncDisposable {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const serve = (async () => {
    for await (const conn of listener) {
      const chunk = new Uint8Array(4096);
      const greeting = talk("");
      if (greeting) await conn.write(new TextEncoder().encode(greeting));
      for (;;) {
        const n = await conn.read(chunk).catch(() => null);
        if (n === null) break;
        const answer = talk(new TextDecoder().decode(chunk.subarray(0, n)));
        if (answer === undefined) break;
        try {
          const bytes = Buffer.from(answer, "latin1");
          for (let at = 0; at < bytes.length;) at += await conn.write(bytes.subarray(at));
        } catch {
          break; // the client has heard enough
        }
      }
      try {
        conn.close();
      } catch { /* the client was first */ }
    }
  })().catch(() => {});
  return {
    port: (listener.addr as Deno.NetAddr).port,
    async [Symbol.asyncDispose]() {
      listener.close();
      await serve;
    },
  };
}
