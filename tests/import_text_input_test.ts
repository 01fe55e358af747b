import { gzipSync } from "node:zlib";
import fc from "fast-check";
import { assert, assertEquals, assertRejects } from "@std/assert";
import { importTracepoints, TracepointError } from "@vmtape/vmtape/codecs";
import type { TraceEvent } from "@vmtape/vmtape/engine";
import { DIALECTS, encoder, imported } from "./import_text_log.ts";

Deno.test("a last line that is cut off is not believed", async () => {
  const text = DIALECTS.ftrace!("qemu", 7);
  const whole = (await imported(text)).events;
  const start = text.trimEnd().lastIndexOf("\n") + 1;
  for (let end = text.indexOf("kvm_", start) + 5; end < text.length; end++) {
    const { events, stats } = await imported(text.slice(0, end));
    assertEquals(events, whole.slice(0, -1));
    assertEquals(stats.malformed, 1);
    assertEquals(stats.issues[0]?.line, 12);
  }
});

Deno.test("where the input is cut into pieces makes no difference", async () => {
  const bytes = encoder.encode(DIALECTS.ftrace!("CPU 0/KVM", 3415));
  const whole = await imported(bytes);
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.integer({ min: 1, max: 400 }), { minLength: 1 }),
      async (sizes) => {
        const pieces = async function* () {
          for (let at = 0, i = 0; at < bytes.length; i++) {
            const size = sizes[i % sizes.length]!;
            yield bytes.subarray(at, at += size);
            await Promise.resolve();
          }
        };
        const log = importTracepoints(pieces());
        assertEquals((await Array.fromAsync(log)).flat(), whole.events);
        assertEquals(log.stats, whole.stats);
      },
    ),
    { numRuns: 100 },
  );
});

Deno.test("no text makes the reader throw anything but its own error", async () => {
  const base = DIALECTS["trace-cmd"]!("CPU 0/KVM", 3415);
  const bytes = encoder.encode(base);
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.tuple(fc.nat(bytes.length - 1), fc.integer({ min: 0, max: 255 })), {
        maxLength: 30,
      }),
      async (changes) => {
        const copy = bytes.slice();
        for (const [at, byte] of changes) copy[at] = byte;
        try {
          const { events, stats } = await imported(copy);
          for (const { kind } of events) assert(kind !== undefined);
          assert(stats.lines > 0);
        } catch (error) {
          if (!(error instanceof TracepointError)) throw error;
        }
      },
    ),
    { numRuns: 500 },
  );
});

Deno.test("gzip, its members one after another, and its end missing", async () => {
  const text = DIALECTS.ftrace!("CPU 0/KVM", 3415);
  const whole = (await imported(text)).events;
  const packed = gzipSync(text);
  assertEquals((await imported(packed)).events, whole);
  const halves = [text.slice(0, 700), text.slice(700)].map((half) => gzipSync(half));
  assertEquals((await imported(new Uint8Array(halves.flatMap((half) => [...half])))).events, whole);
  const long = gzipSync(text + text.split("\n").slice(4).join("\n").repeat(500));
  const log = importTracepoints(new Uint8Array(long.subarray(0, long.length / 2)));
  const found: TraceEvent[] = [];
  const error = await assertRejects(async () => {
    for await (const batch of log) found.push(...batch);
  }, TracepointError);
  assertEquals(error.code, "truncated");
  assert(found.length > 500, `${found.length} events`);
  assertEquals(found.slice(0, whole.length), whole);
});

Deno.test("what is no log of tracepoints is refused, with its length", async () => {
  const of = (text: string) => assertRejects(() => imported(text), TracepointError);
  assertEquals((await of("")).code, "not-a-trace");
  assert((await of("")).message.includes("empty"));
  const story = await of("Once upon a time\nthere was a text\n");
  assert(story.message.includes("none of 2 lines"), story.message);
  assert((await of("no line end at all")).message.includes("none of 1 lines"));
  // A gigabyte of it is not read to the end.
  let read = 0;
  const pieces = async function* () {
    for (; read < 1024; read++) {
      yield await Promise.resolve(encoder.encode("words, words\n".repeat(8000)));
    }
  };
  await assertRejects(() => Array.fromAsync(importTracepoints(pieces())), TracepointError);
  assert(read < 100);
});

Deno.test("a log with a header and no events is one", async () => {
  const { events, stats } = await imported("# tracer: nop\n#\n");
  assertEquals([events, stats.form], [[], "ftrace"]);
});

Deno.test("a gigabyte of other events costs no memory", async () => {
  const line =
    "           <idle>-0       [003] d..2.   100.000001: cpu_idle: state=4294967295 cpu_id=3 kvm-free zone\n";
  const piece = encoder.encode(line.repeat(10_000));
  const times = Math.ceil(2 ** 30 / piece.length);
  const pieces = async function* () {
    for (let i = 0; i < times; i++) yield await Promise.resolve(piece);
    yield encoder.encode(DIALECTS.ftrace!("qemu", 7));
  };
  const before = Deno.memoryUsage().rss;
  let most = before, events = 0;
  const log = importTracepoints(pieces());
  for await (const batch of log) events += batch.length;
  most = Math.max(most, Deno.memoryUsage().rss);
  assertEquals(events, 8);
  assertEquals(log.stats.lines, times * 10_000 + 12);
  assertEquals(log.stats.skipped, times * 10_000 + 4);
  // Other tests run in this process meanwhile.
  assert(most - before < 500e6, `${most - before} bytes more`);
});

Deno.test("a line that never ends is passed over", async () => {
  const pieces = async function* () {
    yield encoder.encode(DIALECTS.ftrace!("qemu", 7));
    for (let i = 0; i < 300; i++) yield await Promise.resolve(encoder.encode("x".repeat(10_000)));
    yield encoder.encode("\n" + DIALECTS.ftrace!("qemu", 7));
  };
  const log = importTracepoints(pieces());
  const events = (await Array.fromAsync(log)).flat();
  assertEquals(events.length, 8 + 7);
  assertEquals(log.stats.issues, [{ line: 13, what: "A line of over 64 KiB" }]);
});

Deno.test("a live pipe is followed as it is written", async () => {
  const text = DIALECTS.ftrace!("qemu", 7).split(/(?<=\n)/);
  const pipe = new TransformStream<Uint8Array, Uint8Array>();
  const writer = pipe.writable.getWriter();
  const batches = importTracepoints(pipe.readable)[Symbol.asyncIterator]();
  const seen: string[] = [];
  const next = async () => {
    const { value } = await batches.next();
    seen.push((value ?? []).map(({ kind }: TraceEvent) => kind).join());
  };
  const write = (piece: string) => void writer.write(encoder.encode(piece));
  text.slice(0, 6).forEach(write);
  await next();
  await next();
  write(text[6]!);
  await next();
  write(text[7]!.slice(0, 50));
  write(text[7]!.slice(50));
  await next();
  // The VMRUN came when its intercepts were there, without waiting for anything after them.
  assertEquals(seen, ["session", "vmrun", "l2exit", "tracepoint"]);
  void writer.close();
  assertEquals((await batches.next()).done, true);
});
