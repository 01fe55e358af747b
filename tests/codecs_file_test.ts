import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { TextLineStream } from "@std/streams";
import type { TraceEvent } from "../engine/event.ts";
import {
  catTraces,
  cutTrace,
  failedOnly,
  fileChunks,
  fileSink,
  fileSource,
  filterTrace,
  memorySource,
  readTrace,
  recoverTrace,
  streamSink,
  TraceError,
  TraceFile,
  TraceWriter,
  verifyTrace,
} from "../codecs/mod.ts";
import { eventsOf, fileOf, join, someEvents, traceOf } from "./codecs_events.ts";
import { walk } from "../bench/codecs_events.ts";
import { withFolder } from "./cli_process.ts";

const ROOT = new URL("../", import.meta.url).pathname;

function numbered(count: number): TraceEvent[] {
  return Array.from({ length: count }, (_, i) => ({ kind: "switch", vcpu: 0, time: i, to: i }));
}

async function edited(act: (writer: TraceWriter) => Promise<void>): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  const writer = new TraceWriter({ write: (chunk) => void chunks.push(chunk) });
  await act(writer);
  writer.close();
  const bytes = join(chunks);
  assertEquals((await verifyTrace([bytes])).problems, []);
  return bytes;
}

Deno.test("a file has its name once it is whole", () =>
  withFolder(async (folder) => {
    const path = `${folder}/t.vmt`;
    const events = someEvents(9);
    {
      const writer = new TraceWriter(fileSink(path));
      events.forEach((event) => writer.write(event));
      writer.flush();
      assertThrows(() => fileSource(path), TraceError, "does not exist");
      writer.close();
    }
    const names = (await Array.fromAsync(Deno.readDir(folder))).map((entry) => entry.name);
    assertEquals(names, ["t.vmt"]);
    assertEquals(await eventsOf(await Deno.readFile(path)), events);
    const error = assertThrows(() => fileSink(path), TraceError, "is there already");
    assertEquals([error.code, error.exitStatus], ["exists", 2]);
    new TraceWriter(fileSink(path, { force: true })).close();
    assertEquals(await eventsOf(await Deno.readFile(path)), []);
  }));

Deno.test("what a killed recorder left is not written over", () =>
  withFolder(async (folder) => {
    const path = `${folder}/t.vmt`;
    const left = new TraceWriter(fileSink(path));
    left.write(numbered(1)[0]!);
    left.flush();
    const before = await Deno.readFile(`${path}.part`);
    new TraceWriter(fileSink(path)).close();
    assertEquals(await Deno.readFile(`${path}.part`), before);
    assertEquals(await eventsOf(await Deno.readFile(path)), []);
    const error = assertThrows(() => left.close(), TraceError, "came to be meanwhile");
    assertEquals(error.code, "exists");
  }));

Deno.test("files that cannot be read or written are typed errors", async () => {
  assertEquals(assertThrows(() => fileSource("/nonexistent"), TraceError).code, "missing");
  const read = await assertRejects(() => readTrace(fileChunks("/nonexistent/t")), TraceError);
  assertEquals(read.code, "missing");
  assertEquals(assertThrows(() => fileSink("/nonexistent/t"), TraceError).code, "output");
  await assertRejects(() => readTrace(fileChunks("/")), TraceError, "cannot be read");
});

Deno.test("a full disk is an error now and at the next call", () => {
  let full = false;
  const sink = streamSink({
    writeSync(bytes) {
      if (full) throw new Error("No space left on device (os error 28)");
      return Math.ceil(bytes.length / 2);
    },
  });
  const writer = new TraceWriter(sink, { flushInterval: 0 });
  full = true;
  writer.write(someEvents(1)[0]!);
  const error = assertThrows(() => writer.flush(), TraceError, "No space left");
  assertEquals([error.code, error.exitStatus], ["output", 2]);
  assertThrows(() => writer.write(someEvents(1)[0]!), TraceError, "cannot be written");
  assertThrows(() => writer.close(), TraceError, "cannot be written");
});

Deno.test("a recorder that is killed leaves all but the last moment", () =>
  withFolder(async (folder) => {
    const path = `${folder}/t.vmt`;
    const recorder = new Deno.Command(Deno.execPath(), {
      args: [
        "run",
        "-q",
        "--no-check",
        `-R=${ROOT},${folder}`,
        `-W=${folder}`,
        "tests/codecs_recorder.ts",
        path,
      ],
      cwd: ROOT,
      stdout: "piped",
    }).spawn();
    const times: number[] = [];
    let killed = false;
    const lines = recorder.stdout.pipeThrough(new TextDecoderStream())
      .pipeThrough(new TextLineStream());
    for await (const line of lines) {
      times.push(Number(line));
      if (killed || times.at(-1)! - times[0]! < 1200) continue;
      killed = true;
      recorder.kill("SIGKILL");
    }
    await recorder.status;
    const errors: TraceError[] = [];
    const left = await Deno.readFile(`${path}.part`);
    const events = await eventsOf(left, (error) => errors.push(error));
    assertEquals(errors.map((error) => error.code), ["truncated"]);
    events.forEach((event, i) => assert(event.kind === "switch" && event.to === i));
    // By the recorder's own clock: a busy machine holds recorder and flushing up alike.
    const [first = 0, last = 0] = [times[events.length], times.at(-1)];
    assert(events.length > 0 && last - first < 1000, "behind by more than a second");
    const { events: saved, lost } = await (async () => {
      using source = fileSource(`${path}.part`);
      return await recoverTrace(source, (meta) => new TraceWriter(fileSink(path), { meta }));
    })();
    assertEquals([saved, lost], [events.length, 0]);
    assertEquals((await verifyTrace(fileChunks(path))).intact, true);
  }));

Deno.test("events are written after the interval, in a loop that never rests as well", async () => {
  let chunks = 0;
  const writer = new TraceWriter({ write: () => void chunks++ }, { flushInterval: 50 });
  const event = someEvents(1)[0]!;
  // However long a busy machine takes; that nothing ever comes is what would be wrong.
  const end = performance.now() + 60_000;
  while (chunks < 3 && performance.now() < end) writer.write(event);
  assert(chunks >= 3, `${chunks} chunks`);
  writer.flush();
  const before = chunks;
  writer.write(event);
  while (chunks === before && performance.now() < end) {
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  assert(chunks > before, "nothing came while resting");
  writer.close();
});

Deno.test("a growing file is followed to its end", () =>
  withFolder(async (folder) => {
    const path = `${folder}/t.vmt`;
    const events = numbered(30);
    const writer = new TraceWriter(fileSink(path), { flushInterval: 0 });
    const seen: TraceEvent[] = [];
    writer.write(events[0]!);
    writer.flush();
    const trace = await readTrace(fileChunks(path, { follow: true, interval: 5 }), {
      unfinished: true,
    });
    const reading = (async () => {
      for await (const event of trace.events()) seen.push(event);
    })();
    for (const event of events.slice(1)) {
      writer.write(event);
      writer.flush();
      await new Promise((resolve) => setTimeout(resolve, 3));
    }
    assert(seen.length > 1, "nothing came before the end");
    writer.close();
    await reading;
    assertEquals(seen, events);
    assertEquals(trace.finished, true);
  }));

Deno.test("following a trace that is whole ends with it", () =>
  withFolder(async (folder) => {
    const path = `${folder}/t.vmt`;
    await Deno.writeFile(path, traceOf(numbered(5)));
    const trace = await readTrace(fileChunks(path, { follow: true }), { unfinished: true });
    assertEquals((await Array.fromAsync(trace.events())).length, 5);
    assertEquals(trace.finished, true);
  }));

Deno.test("following stops when told to", () =>
  withFolder(async (folder) => {
    const path = `${folder}/t.vmt`;
    await Deno.writeFile(path, traceOf(numbered(5), { open: true }));
    const signal = AbortSignal.timeout(30);
    const chunks = fileChunks(path, { follow: true, interval: 5, signal });
    const trace = await readTrace(chunks, { unfinished: true });
    assertEquals((await Array.fromAsync(trace.events())).length, 5);
    assertEquals(trace.finished, false);
  }));

Deno.test("one event of a large trace costs the index and one block", async () => {
  const bytes = traceOf(walk(100_000));
  let read = 0;
  const trace = await TraceFile.open({
    size: bytes.length,
    readAt: (offset, length) => {
      const part = bytes.subarray(offset, offset + length);
      read += part.length;
      return part;
    },
  });
  assertEquals([trace.eventCount, trace.finished], [200_000, true]);
  const opening = read;
  const [event] = await Array.fromAsync(trace.events({ from: 150_001, to: 150_002 }));
  assertEquals(event?.kind, "exit");
  const largest = Math.max(...trace.index.map((entry) => entry.storedSize));
  assert(opening < 5000, `opening read ${opening} bytes`);
  assert(read - opening <= largest + 64, `the event took ${read - opening} bytes`);
});

Deno.test("checkpoints are found at or before an event, and come back whole", async () => {
  const chunks: Uint8Array[] = [];
  const writer = new TraceWriter({ write: (chunk) => void chunks.push(chunk) });
  const states = [10, 2_500_000, 0].map((size) => new Uint8Array(size).map((_, i) => i * 31 >> 3));
  for (const [i, state] of states.entries()) {
    for (const event of numbered(10)) writer.write(event);
    writer.checkpoint(state, new Uint8Array([i]));
  }
  for (const event of numbered(3)) writer.write(event);
  assertThrows(() => writer.checkpoint(states[0]!, new Uint8Array(65)), TraceError, "checkpoint");
  writer.close();
  const trace = await fileOf(join(chunks));
  assertEquals(trace.eventCount, 33);
  assertEquals(await trace.checkpoint(9), undefined);
  for (const [at, i] of [[10, 0], [19, 0], [20, 1], [29, 1], [30, 2], [99, 2]] as const) {
    const found = await trace.checkpoint(at);
    assertEquals([found?.event, found?.digest[0]], [10 * (i + 1), i]);
    assertEquals(found?.state, states[i]);
  }
  assertEquals((await Array.fromAsync(trace.events({ from: 10, to: 12 }))).length, 2);
});

Deno.test("a derived trace keeps the checkpoints that belong to what precedes them, and no others", async () => {
  const make = (first: number) => {
    const chunks: Uint8Array[] = [];
    const writer = new TraceWriter({ write: (chunk) => void chunks.push(chunk) });
    for (const at of [0, 10, 20]) {
      for (const event of numbered(10)) writer.write({ ...event, time: first + at });
      writer.checkpoint(new Uint8Array([at]), new Uint8Array([at]));
    }
    for (const event of numbered(5)) writer.write(event);
    writer.close();
    return join(chunks);
  };
  const kept = async (bytes: Uint8Array) => {
    const trace = await fileOf(bytes);
    for (const at of trace.checkpoints) assertEquals((await trace.checkpoint(at))?.bound, true);
    return [...trace.checkpoints];
  };
  const [a, b] = [make(0), make(7)];
  assertEquals(await kept(a), [10, 20, 30]);
  const read = async (...traces: Uint8Array[]) =>
    await Promise.all(traces.map((bytes) => readTrace([bytes])));
  const twice = await read(a, b);
  assertEquals(await kept(await edited((writer) => catTraces(twice, writer))), [10, 20, 30]);
  for (
    const [range, left] of [[{ to: 25 }, [10, 20]], [{ from: 1 }, []], [{ from: 10 }, []]] as const
  ) {
    const file = await fileOf(a);
    assertEquals(await kept(await edited((writer) => cutTrace(file, range, writer))), [...left]);
  }
  const all = await fileOf(a);
  const damaged = a.slice();
  damaged[all.index[2]!.offset + 70]! ^= 1;
  const saved = await edited(async (writer) => {
    await recoverTrace(memorySource(damaged), () => writer);
  });
  assertEquals(await kept(saved), [10]);
  // Of another trace, in its place: its own bytes are right, and still it does not belong.
  const other = await fileOf(b);
  const mixed = await edited(async (writer) => {
    for (const [i, entry] of all.index.entries()) {
      if (entry.type !== 1) continue;
      writer.copy(await (i === 0 ? other : all).raw((i === 0 ? other : all).index[i]!));
    }
    writer.copy(await all.raw(all.index[5]!));
  });
  assertEquals(await kept(mixed), []);
});

Deno.test("traces are joined in order, with their checkpoints", async () => {
  const [a, b] = [someEvents(30), numbered(20)];
  const bytes = await edited(async (writer) => {
    await catTraces(
      [await readTrace([traceOf(a, { every: 7 })]), await readTrace([traceOf(b)])],
      writer,
    );
  });
  assertEquals(await eventsOf(bytes), [...a, ...b]);
});

Deno.test("a cut has the events asked for, behind the ground they stand on", async () => {
  const data = (fill: number) => ({ bytes: new Uint8Array(4096).fill(fill) });
  const ground: TraceEvent[] = [
    { kind: "session", vcpu: 0, meta: { number: 1 } },
    { kind: "memory", vcpu: 0, gpa: 0n, data: data(1) },
    { kind: "session", vcpu: 0, meta: { number: 2 } },
    { kind: "memory", vcpu: 0, gpa: 0x1000n, data: data(2) },
    { kind: "memory", vcpu: 0, gpa: 0x1000n, data: data(3) },
  ];
  const events = [...ground, ...numbered(40)];
  for (const [from, to] of [[0, 45], [7, 9], [20, 100], [44, 45], [45, 45]] as const) {
    const trace = await fileOf(traceOf(events, { every: 6 }));
    const bytes = await edited((writer) => cutTrace(trace, { from, to }, writer));
    const expected = [...from > 4 ? [ground[2]!, ground[4]!] : [], ...events.slice(from, to)];
    assertEquals(await eventsOf(bytes), expected);
  }
});

Deno.test("failed VMRUNs are kept, with the ground they stand on", async () => {
  const failed = new Uint8Array(4096).fill(0xff, 0x70, 0x78);
  const half = { bytes: failed, known: new Uint8Array(4096).fill(0xff, 0x70, 0x74) };
  const session: TraceEvent = { kind: "session", vcpu: 0, meta: {} };
  const vmrun: TraceEvent = { kind: "vmrun", vcpu: 0 };
  const good: TraceEvent = { kind: "exit", vcpu: 0, vmcb12: { bytes: new Uint8Array(4096) } };
  const bad: TraceEvent = { kind: "exit", vcpu: 0, vmcb12: { bytes: failed } };
  const unknown: TraceEvent = { kind: "exit", vcpu: 0, vmcb12: half };
  const check: TraceEvent = { kind: "check", vcpu: 0, check: "efer-svme" };
  const name = (name: string): TraceEvent => ({ kind: "case", vcpu: 0, name });
  const keep = async (events: TraceEvent[]) =>
    await eventsOf(
      await edited(async (writer) =>
        await filterTrace(await readTrace([traceOf(events)]), writer, failedOnly)
      ),
    );
  assertEquals(
    await keep([session, vmrun, good, vmrun, bad, vmrun, unknown, vmrun, check]),
    [session, vmrun, bad, vmrun, check],
  );
  assertEquals(
    await keep([session, name("a"), vmrun, bad, vmrun, good, name("b"), vmrun, good]),
    [session, name("a"), vmrun, bad, vmrun, good],
  );
  const follow = (name: string): TraceEvent => ({ kind: "case", vcpu: 0, name, spec: "x keepvm" });
  assertEquals(
    await keep([session, name("a"), good, follow("b"), bad, follow("c"), good, name("d"), good]),
    [session, name("a"), good, follow("b"), bad],
  );
  assertEquals(
    await keep([session, name("a"), good, name("b"), bad, session, follow("c"), bad]),
    [session, name("b"), bad, session, follow("c"), bad],
  );
});

Deno.test("a scenario that is too long to be held is dropped or kept as a whole", async () => {
  const page = { bytes: new Uint8Array(4096) };
  const name = (name: string, spec = "x"): TraceEvent => ({ kind: "case", vcpu: 0, name, spec });
  const exit: TraceEvent = { kind: "exit", vcpu: 0, vmcb12: page };
  const check: TraceEvent = { kind: "check", vcpu: 0, check: "efer-svme" };
  // 40 MB of what has no end.
  const long = Array.from({ length: 10_000 }, () => exit);
  const events = [name("a"), exit, name("b"), ...long, check, name("c"), check, name("d"), exit];
  const kept = async (
    events: readonly TraceEvent[],
    keep: (events: readonly TraceEvent[], more: boolean) => boolean | undefined,
  ) => {
    const bytes = await edited(async (writer) =>
      await filterTrace(await readTrace([traceOf(events)]), writer, keep)
    );
    return await eventsOf(bytes);
  };
  const called = (wanted: string) => (events: readonly TraceEvent[]) =>
    events.some((event) => event.kind === "case" && event.name === wanted);
  assertEquals((await kept(events, failedOnly)).length, 1 + 10_000 + 1 + 2);
  assertEquals((await kept(events, called("b"))).length, 1 + 10_000 + 1);
  assertEquals(await kept(events, called("d")), [name("d"), exit]);
  const goesOn = [name("a"), ...long, name("b", "x keepvm"), check];
  await assertRejects(() => kept(goesOn, called("b")), TraceError, "too long to be held");
});

Deno.test("a file that is followed and then cut, removed or replaced is told, and no wait is for ever", () =>
  withFolder(async (folder) => {
    const path = `${folder}/t.vmt`;
    const events = numbered(5);
    const whole = traceOf(events, { every: 2 });
    const ways: [string, () => Promise<void>, RegExp][] = [
      ["cut", () => Deno.truncate(path, 50), /was cut to 50 bytes/],
      ["removed", () => Deno.remove(path), /was removed/],
      ["replaced", async () => {
        await Deno.writeFile(`${folder}/new`, whole);
        await Deno.rename(`${folder}/new`, path);
      }, /Another file has the name/],
    ];
    for (const [, act, message] of ways) {
      await Deno.writeFile(path, whole.subarray(0, whole.length - 300));
      let seen = 0;
      const error = await assertRejects(async () => {
        const chunks = fileChunks(path, { follow: true, interval: 5 });
        for await (const block of (await readTrace(chunks, { unfinished: true })).blocks()) {
          seen += block.head.events;
          await act();
        }
      }, TraceError);
      assertEquals([error.code, error.exitStatus], ["truncated", 3]);
      assert(message.test(error.message), error.message);
      assert(seen >= 2);
    }
    const stop = new AbortController();
    await Deno.writeFile(path, whole.subarray(0, whole.length - 300));
    setTimeout(() => stop.abort(), 20);
    const options = { follow: true, interval: 1e9, signal: stop.signal };
    await Array.fromAsync(fileChunks(path, options));
  }));

Deno.test("of two writers to one name each writes its own file, and one of them gets the name", () =>
  withFolder(async (folder) => {
    const path = `${folder}/t.vmt`;
    const writers = [1, 2].map((vcpu) => {
      const writer = new TraceWriter(fileSink(path));
      for (const event of numbered(3)) writer.write({ ...event, vcpu });
      writer.flush();
      return writer;
    });
    writers[1]!.close();
    assertThrows(() => writers[0]!.close(), TraceError, "came to be meanwhile");
    assertEquals(
      new Set((await eventsOf(await Deno.readFile(path))).map(({ vcpu }) => vcpu)),
      new Set([2]),
    );
    // A link is a name that is taken, wherever it leads; with force it is replaced, not followed.
    await Deno.symlink(`${folder}/nowhere`, `${folder}/link`);
    assertThrows(() => fileSink(`${folder}/link`), TraceError, "is there already");
    new TraceWriter(fileSink(`${folder}/link`, { force: true })).close();
    assertEquals((await Deno.lstat(`${folder}/link`)).isSymlink, false);
    await assertRejects(() => Deno.stat(`${folder}/nowhere`));
  }));
