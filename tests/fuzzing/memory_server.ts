/**
 * Runs commands one after the other in one process, and tells the most memory that was resident
 * during each: a process for each takes longer to start than most of the commands do.
 *
 * Reads a command's words as JSON from each line of standard input, answers with a line of
 * {@linkcode Ran}. What the commands before it left behind counts, so an answer is rather too high.
 *
 * @module
 */
import { TextLineStream } from "@std/streams/text-line-stream";
import { run } from "../../cli/app.ts";

/** What came of one command. */
export interface Ran {
  /** Exit status. */
  readonly status: number;
  /** The most memory that was resident at once, in MiB. */
  readonly peak: number;
  /** What it said on standard error, as far as that is shown. */
  readonly said: string;
}

/** Throws what is printed away, but for its beginning. */
class Beginning {
  bytes = "";
  readonly #decoder = new TextDecoder();

  writeSync(bytes: Uint8Array): number {
    if (this.bytes.length < 300) this.bytes += this.#decoder.decode(bytes.subarray(0, 1200));
    return bytes.length;
  }
}

async function serve(): Promise<void> {
  const { gc } = globalThis as { gc?: () => void };
  const lines = Deno.stdin.readable.pipeThrough(new TextDecoderStream())
    .pipeThrough(new TextLineStream());
  for await (const line of lines) {
    gc?.();
    // 5 sets the high-water mark to what is resident now.
    await Deno.writeTextFile("/proc/self/clear_refs", "5");
    const out = new Beginning(), err = new Beginning();
    const status = await run(JSON.parse(line), { out, err, color: false, debug: false });
    const marks = await Deno.readTextFile("/proc/self/status");
    const peak = Math.round(Number(/^VmHWM:\s*(\d+) kB/m.exec(marks)?.[1] ?? 0) / 1024);
    const answer = JSON.stringify({ status, peak, said: err.bytes.slice(0, 300) } satisfies Ran);
    await Deno.stdout.write(new TextEncoder().encode(`${answer}\n`));
  }
}

if (import.meta.main) await serve();
