import { assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import type { TraceEvent } from "../engine/event.ts";
import { copyEvent, readTrace, TraceError, TraceWriter } from "../codecs/mod.ts";
import { anyEvent, eventsOf, fileOf, ID, join, someEvents, traceOf } from "./codecs_events.ts";

Deno.test("any events come back as they were written, however cut into blocks", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(anyEvent, { maxLength: 30 }),
      fc.integer({ min: 1, max: 40 }),
      async (events, every) => {
        assertEquals(await eventsOf(traceOf(events, { every })), events);
      },
    ),
    { numRuns: 300 },
  );
});

Deno.test("any events come back from any place of a file", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(anyEvent, { minLength: 1, maxLength: 12 }),
      fc.integer({ min: 1, max: 5 }),
      fc.nat({ max: 12 }),
      fc.nat({ max: 12 }),
      async (events, every, from, size) => {
        const trace = await fileOf(traceOf(events, { every }));
        assertEquals(trace.eventCount, events.length);
        const to = from + size;
        assertEquals(await Array.fromAsync(trace.events({ from, to })), events.slice(from, to));
      },
    ),
    { numRuns: 200 },
  );
});

Deno.test("images that walk come back, whichever way they are told", async () => {
  // Long runs over few slots reach the encoder's guesses, which short random ones do not.
  const step = fc.record({
    kind: fc.constantFrom("vmrun" as const, "exit" as const),
    gpa: fc.constantFrom(0x1000n, 0x2000n, undefined),
    place: fc.constantFrom(0, 28, 30, 350, 1023),
    value: fc.nat({ max: 0xffff_ffff }),
    again: fc.boolean(),
    wide: fc.boolean(),
  });
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 50, maxLength: 200 }), async (steps) => {
      const page = new Uint32Array(1024);
      const events = steps.map((step): TraceEvent => {
        if (!step.again) page[step.place] = step.value;
        if (step.wide && step.value % 7 === 0) page.fill(step.value, 100, 900);
        const vmcb12 = { bytes: new Uint8Array(page.buffer.slice(0)) };
        const { kind, gpa } = step;
        return gpa === undefined
          ? { kind, vcpu: 0, vmcb12 }
          : { kind, vcpu: 0, vmcb12_gpa: gpa, vmcb12 };
      });
      assertEquals(await eventsOf(traceOf(events)), events);
    }),
    { numRuns: 30 },
  );
});

Deno.test("a trace comes back whatever chunks it arrives in", async () => {
  const events = someEvents(40);
  const bytes = traceOf(events, { every: 7 });
  for (const size of [1, 3, 64, 1000]) {
    const chunks: Uint8Array[] = [];
    for (let at = 0; at < bytes.length; at += size) chunks.push(bytes.subarray(at, at + size));
    const trace = await readTrace(chunks);
    assertEquals(await Array.fromAsync(trace.events()), events);
    assertEquals(trace.finished, true);
  }
});

Deno.test("the same events give the same bytes", () => {
  assertEquals(traceOf(someEvents(50)), traceOf(someEvents(50)));
});

Deno.test("shared events are what copies are, until the next step", async () => {
  const events = someEvents(30);
  const trace = await readTrace([traceOf(events)]);
  for await (const block of trace.blocks()) {
    let number = 0;
    for (const event of block.shared()) assertEquals(copyEvent(event), events[number++]);
    assertEquals(number, events.length);
    assertEquals([...block.entries()].map(([number]) => number), events.map((_, i) => i));
  }
});

Deno.test("metadata come back", async () => {
  const meta = { by: "test", cpu: { phys_bits: 40 }, list: [1, "two", null, 3n] };
  const trace = await readTrace([traceOf([], { meta })]);
  assertEquals(trace.header.meta, meta);
  assertEquals(trace.header.id, ID);
});

Deno.test("an event that cannot be stored is refused, and leaves the trace as it was", async () => {
  const chunks: Uint8Array[] = [];
  const writer = new TraceWriter({ write: (chunk) => void chunks.push(chunk) }, {
    flushInterval: 0,
  });
  const good = someEvents(10);
  const bytes = new Uint8Array(4096);
  const bad: [unknown, string][] = [
    [{ kind: "nothing", vcpu: 0 }, "kind"],
    [{ kind: "switch", vcpu: -1 }, "vcpu"],
    [{ kind: "switch", vcpu: 0, time: 0.5 }, "time"],
    [{ kind: "switch", vcpu: 0, to: 2 ** 32 }, "to"],
    [{ kind: "regs", vcpu: 0, rc: 1.5 }, "rc"],
    [{ kind: "vmrun", vcpu: 0, rip: 1 }, "rip"],
    [{ kind: "vmrun", vcpu: 0, rip: 2n ** 64n }, "rip"],
    [{ kind: "vmrun", vcpu: 0, rip: 5n, vmcb12: { bytes: new Uint8Array(4097) } }, "vmcb12"],
    [{ kind: "vmrun", vcpu: 0, vmcb12: { bytes, known: new Uint8Array(1) } }, "vmcb12"],
    [{ kind: "warn", vcpu: 0, text: "\ud800" }, "text"],
    [{ kind: "warn", vcpu: 0, text: "x".repeat(2 << 20) }, "larger"],
    [{ kind: "session", vcpu: 0, meta: { at: new Date(0) } }, "map"],
    [{ kind: "session", vcpu: 0, meta: JSON.parse('{"__proto__":1}') }, "__proto__"],
  ];
  for (const [i, [event, field]] of bad.entries()) {
    const error = assertThrows(() => writer.write(event as TraceEvent), TraceError, field);
    assertEquals(["event", "limit"].includes(error.code), true);
    if (i < good.length) writer.write(good[i]!);
  }
  writer.close();
  assertEquals(await eventsOf(join(chunks)), good);
});

Deno.test("more images, vCPUs and events than a block takes go to further blocks", async () => {
  const data = { bytes: new Uint8Array(4096).fill(1, 0, 9) };
  const events: TraceEvent[] = [];
  for (let i = 0; i < 3000; i++) {
    events.push({ kind: "memory", vcpu: i % 1500, gpa: BigInt(i) << 12n, data });
  }
  for (let i = 0; i < 70_000; i++) events.push({ kind: "switch", vcpu: 0, to: i & 1 });
  const trace = await fileOf(traceOf(events));
  let number = 0;
  for await (const block of trace.blocks()) {
    for (const event of block) {
      if (number % 997 === 0) assertEquals(event, events[number]);
      number++;
    }
  }
  assertEquals(number, events.length);
  assertEquals(trace.index.length >= 4, true);
});

Deno.test("a block never takes more than 1 MiB", async () => {
  const texts = Array.from(
    { length: 40 },
    (_, i) => String.fromCharCode(65 + i).repeat(90_000 + i),
  );
  const events = texts.map((text): TraceEvent => ({ kind: "warn", vcpu: 0, text }));
  const bytes = traceOf(events);
  assertEquals(await eventsOf(bytes), events);
  for await (const block of (await readTrace([bytes])).blocks()) {
    assertEquals(block.head.rawSize <= 1 << 20, true);
  }
});
