/**
 * What a subcommand gets from the program: output, notes, progress, interruption.
 *
 * @module
 */
import { InterruptedError } from "./errors.ts";
import { painter, terminalText } from "./paint.ts";
import type { Output, Sink } from "./output.ts";
import { Progress } from "./progress.ts";
import { willBeGraceful } from "./watchdog.ts";

/** What a command has to work with besides its arguments. */
export class Context {
  /** Standard output: data. */
  readonly out: Output;
  /** Whether to print JSON. */
  readonly json: boolean;
  /** Whether to print no progress and no notes. */
  readonly quiet: boolean;
  /** Whether standard output may be coloured. */
  readonly color: boolean;
  readonly #err: Sink;
  #interrupt: AbortController | undefined;
  #listener: (() => void) | undefined;

  /**
   * @param streams Where output goes.
   * @param mode How it is to look.
   */
  constructor(
    streams: { out: Output; err: Sink },
    mode: { json: boolean; quiet: boolean; color: boolean },
  ) {
    this.out = streams.out;
    this.#err = streams.err;
    this.json = mode.json;
    this.quiet = mode.quiet;
    this.color = mode.color;
  }

  /** Writes a line for people to standard error, unless they want none. */
  note(text: string): void {
    if (!this.quiet) this.warn(text);
  }

  /** Writes a line to standard error, wanted or not. */
  warn(text: string): void {
    try {
      this.#err.writeSync(new TextEncoder().encode(terminalText(text) + "\n"));
    } catch {
      // There is nowhere left to complain to.
    }
  }

  /** Text that stands out on a terminal, and is plain elsewhere. */
  bold(text: string): string {
    return painter(this.color)("bold", text);
  }

  /** Whether somebody looks at the progress of long work. */
  get watched(): boolean {
    return !this.quiet && Deno.stderr.isTerminal();
  }

  /** Progress of long work on a terminal; nothing elsewhere. */
  progress(what: string, total?: number): Progress {
    return new Progress(this.watched ? this.#err : undefined, what, total);
  }

  /**
   * From the first call on, Ctrl-C sets this signal instead of ending the
   * program; a second one ends it. Work that asks for it has to yield now and
   * then, or the signal is never delivered.
   */
  get signal(): AbortSignal {
    willBeGraceful();
    if (!this.#interrupt) {
      const controller = new AbortController();
      this.#interrupt = controller;
      this.#listener = () => {
        if (controller.signal.aborted) Deno.exit(130);
        controller.abort(new InterruptedError());
      };
      Deno.addSignalListener("SIGINT", this.#listener);
      if (Deno.build.os !== "windows") Deno.addSignalListener("SIGTERM", this.#listener);
    }
    return this.#interrupt.signal;
  }

  /** Gives Ctrl-C back its usual effect. */
  [Symbol.dispose](): void {
    if (!this.#listener) return;
    Deno.removeSignalListener("SIGINT", this.#listener);
    if (Deno.build.os !== "windows") Deno.removeSignalListener("SIGTERM", this.#listener);
    this.#listener = undefined;
  }
}
