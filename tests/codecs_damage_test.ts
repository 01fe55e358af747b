import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { BLOCK_HEADER_SIZE } from "../codecs/container/format.ts";
import { readBlockHead } from "../codecs/container/block.ts";
import {
  memorySource,
  readHeader,
  readTrace,
  recoverTrace,
  TraceError,
  TraceFile,
  TraceWriter,
  verifyTrace,
} from "../codecs/mod.ts";
import type { TraceEvent } from "../engine/event.ts";
import { eventsOf, join, someEvents, traceOf } from "./codecs_events.ts";

const EVENTS = someEvents(20);
const TRACE = traceOf(EVENTS, { every: 5 });
const HEADER = readHeader(TRACE).size;
const BLOCKS = blocksOf(TRACE);

/** Offsets of the blocks, and of the trailer behind them. */
function blocksOf(bytes: Uint8Array): number[] {
  const offsets: number[] = [];
  let at = readHeader(bytes).size;
  while (at + BLOCK_HEADER_SIZE <= bytes.length) {
    offsets.push(at);
    const head = readBlockHead(bytes.subarray(at, at + BLOCK_HEADER_SIZE), at);
    at += BLOCK_HEADER_SIZE + head.storedSize;
  }
  return [...offsets, at];
}

async function recovered(bytes: Uint8Array): Promise<TraceEvent[]> {
  const chunks: Uint8Array[] = [];
  await recoverTrace(
    memorySource(bytes),
    (meta, like) => new TraceWriter({ write: (chunk) => void chunks.push(chunk) }, { meta, like }),
  );
  const whole = join(chunks);
  assertEquals((await verifyTrace([whole])).intact, true);
  return await eventsOf(whole);
}

function part(number: number, from = BLOCKS): Uint8Array {
  return TRACE.subarray(from[number], from[number + 1]);
}

function lost(count: number): TraceEvent {
  return { kind: "lost", vcpu: 0, count: BigInt(count) };
}

Deno.test("cut off at any byte, a trace gives all events of its whole blocks and says so", async () => {
  assertEquals(BLOCKS.length, 6);
  for (let size = 0; size < TRACE.length; size++) {
    const bytes = TRACE.subarray(0, size);
    const whole = BLOCKS.filter((_, i) => i < 4 && BLOCKS[i + 1]! <= size).length;
    const seen: TraceEvent[] = [];
    const error = await assertRejects(async () => {
      for await (const event of (await readTrace([bytes])).events()) seen.push(event);
    }, TraceError);
    assertEquals(error.code, size === 0 ? "empty" : "truncated");
    assert(error.offset <= size && error.offset >= 0);
    assertEquals(seen.length, 5 * whole);
    if (size < HEADER) continue;
    assertEquals(seen, EVENTS.slice(0, seen.length));
    const file = await TraceFile.open(memorySource(bytes));
    assertEquals([file.finished, file.eventCount], [false, seen.length]);
    await assertRejects(() => Array.fromAsync(file.events()), TraceError);
    await assertRejects(() => Array.fromAsync(file.events({ from: seen.length })), TraceError);
    const part = await Array.fromAsync(file.events({ to: seen.length }));
    assertEquals(part.length, seen.length);
    // A header that is whole says how many events its block had.
    const known = whole < 4 && BLOCKS[whole]! + BLOCK_HEADER_SIZE <= size ? [lost(5)] : [];
    if (size % 16 === 0) assertEquals(await recovered(bytes), [...seen, ...known]);
  }
});

Deno.test("any flipped bit of the header is noticed", async () => {
  for (let bit = 0; bit < 8 * HEADER; bit++) {
    const bytes = TRACE.slice();
    bytes[bit >> 3]! ^= 1 << (bit & 7);
    const error = await assertRejects(() => readTrace([bytes]), TraceError);
    const codes = bit < 64 ? ["foreign"] : ["damaged", "limit", "truncated"];
    assert(codes.includes(error.code), `bit ${bit}: ${error.code}`);
  }
});

Deno.test("any flipped bit of a block costs that block only", async () => {
  const start = BLOCKS[1]!;
  const end = BLOCKS[2]!;
  const rest = [...EVENTS.slice(0, 5), ...EVENTS.slice(10)];
  for (let bit = 8 * start; bit < 8 * end; bit++) {
    const bytes = TRACE.slice();
    bytes[bit >> 3]! ^= 1 << (bit & 7);
    const errors: TraceError[] = [];
    assertEquals(await eventsOf(bytes, (error) => errors.push(error)), rest);
    assertEquals(errors[0]?.offset, start);
    const error = await assertRejects(() => eventsOf(bytes), TraceError);
    assert(["damaged", "foreign", "limit", "truncated"].includes(error.code), error.code);
    const whole = [...EVENTS.slice(0, 5), lost(5), ...EVENTS.slice(10)];
    if (bit % 32 === 0) assertEquals(await recovered(bytes), whole);
    if (bit % 16 !== 0) continue;
    // Without an index, too: one block is gone, and nobody is told that there never was one.
    const file = await TraceFile.open(memorySource(bytes.subarray(0, -1)));
    assertEquals(await Array.fromAsync(file.events({ from: 10, to: 20 })), EVENTS.slice(10));
    for (const range of [{ from: 7, to: 8 }, { from: 2, to: 12 }, { to: 10 }]) {
      await assertRejects(() => Array.fromAsync(file.events(range)), TraceError);
    }
    assertThrows(() => file.requireIntact(), TraceError);
  }
});

Deno.test("a flipped bit of the index or the trailer costs no event, and is noticed", async () => {
  for (let bit = 8 * BLOCKS[4]!; bit < 8 * TRACE.length; bit++) {
    const bytes = TRACE.slice();
    bytes[bit >> 3]! ^= 1 << (bit & 7);
    const seen: TraceEvent[] = [];
    await assertRejects(async () => {
      for await (const event of (await readTrace([bytes])).events()) seen.push(event);
    }, TraceError);
    assertEquals(seen, EVENTS);
    const file = await TraceFile.open(memorySource(bytes));
    assertEquals(file.finished, false);
    assertEquals(await Array.fromAsync(file.events({ to: EVENTS.length })), EVENTS);
    file.requireIntact();
    await assertRejects(() => Array.fromAsync(file.events()), TraceError);
    if (bit % 32 === 0) assertEquals(await recovered(bytes), EVENTS);
  }
});

Deno.test("blocks removed, repeated, out of order or of another trace are noticed and put right", async () => {
  const other = traceOf(EVENTS, { every: 5, id: new Uint8Array(16).fill(9) });
  const head = TRACE.subarray(0, HEADER);
  const tail = TRACE.subarray(BLOCKS[4]);
  const foreign = other.subarray(BLOCKS[1], BLOCKS[2]);
  const cases: [string, Uint8Array[], TraceEvent[]][] = [
    ["removed", [part(0), part(2), part(3)], [...EVENTS.slice(0, 5), lost(5), ...EVENTS.slice(10)]],
    ["repeated", [part(0), part(1), part(1), part(2), part(3)], EVENTS],
    ["out of order", [part(2), part(0), part(3), part(1)], EVENTS],
    ["foreign", [part(0), foreign, part(1), part(2), part(3)], EVENTS],
    [
      "rubbish between",
      [part(0), new Uint8Array(999).fill(0x76), part(1), part(2), part(3)],
      EVENTS,
    ],
    ["one within another", [part(0).subarray(0, 90), part(0), part(1), part(2), part(3)], EVENTS],
  ];
  for (const [what, blocks, expected] of cases) {
    const bytes = join([head, ...blocks, tail]);
    const verification = await verifyTrace([bytes]);
    assertEquals(verification.intact, false, what);
    await assertRejects(() => eventsOf(bytes), TraceError);
    assertEquals(await recovered(bytes), expected, what);
  }
});

Deno.test("a trace with a damaged header is recovered, as long as it is one", async () => {
  const bytes = TRACE.slice();
  bytes[60]! ^= 4;
  assertEquals(await recovered(bytes), EVENTS);
  bytes[0] = 0;
  await assertRejects(() => recovered(bytes), TraceError, "not a vmtape trace");
});

Deno.test("other versions, features and files are told apart", async () => {
  const { crc32 } = await import("node:zlib");
  const patched = (at: number, value: number) => {
    const bytes = TRACE.slice();
    const view = new DataView(bytes.buffer);
    view.setUint16(at, value, true);
    view.setUint32(16, crc32(bytes.subarray(0, 16)), true);
    return bytes;
  };
  const tried: [Uint8Array, string, number][] = [
    [new Uint8Array(0), "empty", 3],
    [new TextEncoder().encode('{"case":"ok"}\n'), "foreign", 3],
    [TRACE.subarray(0, 30), "truncated", 3],
    [patched(8, 2), "version", 4],
    [patched(12, 1), "feature", 4],
  ];
  for (const [bytes, code, status] of tried) {
    const error = await assertRejects(() => readTrace([bytes]), TraceError);
    assertEquals([error.code, error.exitStatus], [code, status]);
    assert(/^[A-Z][^]*[^.]$/.test(error.message));
  }
});

Deno.test("a newer minor version is read, its unknown kinds are kept as they are, its unknown block types left out", async () => {
  const { crc32 } = await import("node:zlib");
  const { packMap, unpackMap } = await import("../codecs/container/msgpack.ts");
  const { sealBlock } = await import("../codecs/container/block.ts");
  const { HEADER_SIZE } = await import("../codecs/container/format.ts");
  // The `check` kind gets a name this code does not know, and `exit` gets one field more.
  const meta = unpackMap(TRACE.subarray(HEADER_SIZE, HEADER - 4)) as {
    events: [number, string, string[][]][];
  };
  for (const row of meta.events) {
    if (row[1] === "check") row[1] = "checks-of-tomorrow";
    if (row[1] === "exit") row[2].push(["nonce", "u64", "", ""]);
  }
  const packed = packMap(meta);
  const header = new Uint8Array(HEADER_SIZE + packed.length + 4);
  header.set(TRACE.subarray(0, HEADER_SIZE));
  const view = new DataView(header.buffer);
  view.setUint16(10, 7, true);
  view.setUint32(16, crc32(header.subarray(0, 16)), true);
  view.setUint32(36, packed.length, true);
  header.set(packed, HEADER_SIZE);
  view.setUint32(header.length - 4, crc32(header.subarray(0, header.length - 4)), true);
  const tag = readHeader(TRACE).tag;
  const strange = sealBlock(
    { type: 200, tag, sequence: 4, events: 0, firstEvent: 20, firstTime: -1, lastTime: -1 },
    new Uint8Array(10),
  );
  const bytes = join([header, TRACE.subarray(HEADER, BLOCKS[4]), strange]);
  const trace = await readTrace([bytes], { unfinished: true });
  assertEquals(trace.header.minor, 7);
  const renamed = EVENTS.map((event) =>
    event.kind === "check"
      ? { ...event, kind: "checks-of-tomorrow" } as unknown as TraceEvent
      : event
  );
  assert(renamed.some(({ kind }) => kind as string === "checks-of-tomorrow"));
  const events = await Array.fromAsync(trace.events());
  assertEquals(events, renamed);
  // Coded anew, with an event of a kind that was renamed and so is not in that table.
  const chunks: Uint8Array[] = [];
  const write = (chunk: Uint8Array) => void chunks.push(chunk);
  const check: TraceEvent = { kind: "check", vcpu: 0, check: "efer-svme" };
  const writer = new TraceWriter({ write }, { like: trace.header });
  for (const event of [...events, check]) writer.write(event);
  writer.close();
  assertEquals(await eventsOf(join(chunks)), [...renamed, check]);
});
