import { assert, assertEquals, assertThrows, equal } from "@std/assert";
import fc from "fast-check";
import type { EventOf, Image, TraceEvent } from "../engine/event.ts";
import { copyEvent, readTrace, TraceError, TraceWriter } from "../codecs/mod.ts";
import { ColumnWriter } from "../codecs/container/columns.ts";
import { EventDecoder } from "../codecs/container/decoder.ts";
import { HEAD_NO_TIME, HEAD_VCPU, OP, SHAPE } from "../codecs/container/field_codes.ts";
import { OWN_PLANS } from "../codecs/container/schema.ts";
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

/** Events with pages that change now here, now there: long runs over few slots reach the guesses of the codec. */
const walkingImages: fc.Arbitrary<TraceEvent[]> = fc.array(
  fc.record({
    kind: fc.constantFrom("vmrun" as const, "exit" as const),
    gpa: fc.constantFrom(0x1000n, 0x2000n, undefined),
    place: fc.constantFrom(0, 28, 30, 350, 1023),
    value: fc.oneof(fc.nat({ max: 1 }), fc.nat({ max: 0xffff_ffff })),
    again: fc.boolean(),
    wide: fc.boolean(),
  }),
  { minLength: 50, maxLength: 200 },
).map((steps) => {
  const page = new Uint32Array(1024);
  return steps.map(({ kind, gpa, place, value, again, wide }): TraceEvent => {
    if (!again) page[place] = value;
    if (wide && value % 7 === 6) page.fill(value, 100, 900);
    const vmcb12 = { bytes: new Uint8Array(page.buffer.slice(0)) };
    return gpa === undefined
      ? { kind, vcpu: 0, vmcb12 }
      : { kind, vcpu: 0, vmcb12_gpa: gpa, vmcb12 };
  });
});

Deno.test("images that walk come back, whichever way they are told", async () => {
  await fc.assert(
    fc.asyncProperty(walkingImages, async (events) => {
      assertEquals(await eventsOf(traceOf(events)), events);
    }),
    { numRuns: 30 },
  );
});

Deno.test("the revision of a shared image is another exactly when its content is", async () => {
  await fc.assert(
    fc.asyncProperty(walkingImages, async (events) => {
      const seen = new Map<Image, { revision: number | undefined; bytes: Uint8Array }>();
      for await (const block of (await readTrace([traceOf(events)])).blocks()) {
        for (const event of block.shared()) {
          const image = (event as EventOf<"vmrun">).vmcb12!;
          const { revision, bytes } = image;
          const last = seen.get(image);
          if (last) assertEquals(last.revision !== revision, !equal(last.bytes, bytes));
          seen.set(image, { revision, bytes: bytes.slice() });
        }
      }
      assert(seen.size > 0 && seen.size < events.length);
    }),
    { numRuns: 30 },
  );
});

Deno.test("a moment is told by its text, also where a writer put that in the table twice", () => {
  const kind = OWN_PLANS.find((plan) => plan?.kind === "inner")!;
  const columns = new ColumnWriter();
  for (const [number, text] of ["vmrun", "vmexit", "vmrun"].entries()) {
    columns.begin();
    if (number === 0) columns.shape(7); // The vCPU.
    columns.shape(text.length);
    columns.bytes(new TextEncoder().encode(text));
    if (number < 2) { for (const value of [SHAPE.size, 4]) columns.shape(value); }
    const ops = OP.other | (number < 2 ? OP.changed : OP.other) << 2;
    columns.head(kind.id | HEAD_NO_TIME | (number === 0 ? HEAD_VCPU : 0), ops, kind.opBytes);
  }
  const decoder = new EventDecoder(columns.content().bytes, 3, OWN_PLANS, 0);
  const images = Array.from({ length: 3 }, () => (decoder.next() as EventOf<"inner">).inner);
  // The third event's image is the first one's, told as unchanged.
  assertEquals(images.map((image) => images.indexOf(image)), [0, 1, 0]);
  assertEquals(decoder.next(), undefined);
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
