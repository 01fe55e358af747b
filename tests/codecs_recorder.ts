/** A recorder to be killed: records an event every few milliseconds until it is. */
import { fileSink, TraceWriter } from "../codecs/mod.ts";

if (import.meta.main) {
  const writer = new TraceWriter(fileSink(Deno.args[0]!), { flushInterval: 200 });
  const line = new TextEncoder().encode("recording\n");
  for (let i = 0;; i++) {
    writer.write({ kind: "switch", vcpu: 0, time: Date.now(), to: i });
    if (i === 0) Deno.stdout.writeSync(line);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}
