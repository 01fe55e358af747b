/**
 * Standard output: whole lines, control characters escaped, and a reader that may go away.
 *
 * @module
 */
import { terminalLine, terminalText } from "./paint.ts";

/** Thrown when nobody reads standard output any more. */
export class ClosedOutputError extends Error {
  /** Name of the class. */
  override readonly name = "ClosedOutputError";

  /** Makes the error. */
  constructor() {
    super("Standard output was closed");
  }
}

/** Where bytes go. */
export interface Sink {
  /** Writes some of the bytes and says how many. */
  writeSync(bytes: Uint8Array): number;
}

const FLUSH_AT = 1 << 16;
const encoder = new TextEncoder();

function pause(): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 5);
}

/** Writes all bytes, however few the sink takes at a time. */
function writeAll(sink: Sink, bytes: Uint8Array): void {
  let at = 0;
  while (at < bytes.length) {
    try {
      at += sink.writeSync(bytes.subarray(at));
    } catch (error) {
      // A pipe that another program made non-blocking is only full for now.
      if (error instanceof Deno.errors.WouldBlock) pause();
      else if (error instanceof Deno.errors.BrokenPipe) throw new ClosedOutputError();
      else throw error;
    }
  }
}

/** Lines on their way to standard output. */
export class Output {
  readonly #sink: Sink;
  #pending = "";

  /** @param sink Where they go. */
  constructor(sink: Sink) {
    this.#sink = sink;
  }

  /**
   * Writes text of any number of lines, control characters escaped.
   *
   * @throws {ClosedOutputError} When nobody reads it.
   */
  text(text: string): void {
    this.#write(terminalText(text));
  }

  /** Writes one line, control characters and line breaks within it escaped. */
  line(text = ""): void {
    this.#write(terminalLine(text) + "\n");
  }

  /** Writes cells of a line between tabs, control characters and line breaks within them escaped. */
  cells(cells: readonly string[]): void {
    this.#write(cells.map(terminalLine).join("\t") + "\n");
  }

  #write(text: string): void {
    this.#pending += text;
    if (this.#pending.length >= FLUSH_AT) this.flush();
  }

  /** Writes a value as one line of JSON. */
  json(value: unknown): void {
    this.line(toJson(value));
  }

  /** Writes bytes as they are. */
  bytes(bytes: Uint8Array): void {
    this.flush();
    writeAll(this.#sink, bytes);
  }

  /** Writes what is pending. */
  flush(): void {
    const text = this.#pending;
    this.#pending = "";
    if (text !== "") writeAll(this.#sink, encoder.encode(text));
  }
}

/**
 * JSON of a value: bigints as hexadecimal text, bytes as hexadecimal digits,
 * maps as objects.
 *
 * @param value The value.
 * @param indent Blanks per level; one line when left out.
 * @returns Its JSON.
 */
export function toJson(value: unknown, indent?: number): string {
  return JSON.stringify(value, (_key, v: unknown) => {
    if (typeof v === "bigint") return `0x${v.toString(16)}`;
    if (v instanceof Uint8Array) return v.toHex();
    if (v instanceof Map) return Object.fromEntries(v);
    if (v instanceof Set) return [...v];
    return v;
  }, indent);
}
