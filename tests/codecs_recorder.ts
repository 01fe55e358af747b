/**
 * A recorder to be killed: records an event every few milliseconds until it is, and prints the
 * time of each.
 *
 * @module
 */
import { fileSink, TraceWriter } from "../codecs/mod.ts";

if (import.meta.main) {
  const writer = new TraceWriter(fileSink(Deno.args[0]!), { flushInterval: 200 });
  const encoder = new TextEncoder();
  for (let i = 0;; i++) {
    const time = Date.now();
    writer.write({ kind: "switch", vcpu: 0, time, to: i });
    Deno.stdout.writeSync(encoder.encode(`${time}\n`));
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}
