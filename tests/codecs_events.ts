/**
 * Random events of every kind, made from the event table, and a few helpers for traces in memory.
 *
 * @module
 */
import fc from "fast-check";
import { EVENTS, type FieldType, type Image, type TraceEvent } from "../engine/event.ts";
import { memorySource, readTrace, TraceFile, TraceWriter } from "../codecs/mod.ts";
import type { TraceError, TraceWriterOptions } from "../codecs/mod.ts";
import { Random } from "../traces/generate/random.ts";

/** An id for traces whose bytes must not change. */
export const ID = new Uint8Array(16).fill(7);

const text = fc.oneof(
  fc.constantFrom("vmrun", "vmexit", "nmi", ""),
  fc.string({ unit: "binary", maxLength: 20 }).filter((value) => value.isWellFormed()),
);

const json = fc.dictionary(
  fc.string({ maxLength: 9 }).filter((key) => key !== "__proto__"),
  fc.oneof(
    fc.string({ maxLength: 9 }),
    fc.boolean(),
    fc.constant(null),
    fc.integer(),
    fc.double({ noNaN: true }).map((value) => value + 0),
    fc.bigInt({ min: -(2n ** 63n), max: 2n ** 64n - 1n }),
    fc.array(fc.nat(), { maxLength: 3 }),
    fc.dictionary(fc.string({ maxLength: 3 }).filter((key) => key !== "__proto__"), fc.nat(), {
      noNullPrototype: true,
      maxKeys: 2,
    }),
  ),
  { noNullPrototype: true, maxKeys: 4 },
);

/** Bytes that are mostly zero, with a few words set, or altogether random. */
function sparse(size: number): fc.Arbitrary<Uint8Array> {
  const words = fc.array(fc.tuple(fc.nat({ max: size - 1 }), fc.nat({ max: 255 })), {
    maxLength: 12,
  });
  const few = words.map((list) => {
    const bytes = new Uint8Array(size);
    for (const [at, value] of list) bytes[at] = value;
    return bytes;
  });
  const random = fc.nat().map((seed) => {
    const numbers = new Random(seed);
    return Uint8Array.from({ length: size }, () => numbers.below(256));
  });
  return fc.oneof({ weight: 9, arbitrary: few }, { weight: 1, arbitrary: random });
}

function image(size: fc.Arbitrary<number>): fc.Arbitrary<Image> {
  return size.chain((bytes) =>
    fc.tuple(sparse(bytes), fc.option(sparse(bytes), { freq: 2, nil: undefined })).map((
      [bytes, known],
    ) => known ? { bytes, known } : { bytes })
  );
}

const VALUES: Record<FieldType, fc.Arbitrary<unknown>> = {
  u32: fc.oneof(fc.nat({ max: 3 }), fc.nat({ max: 0xffff_ffff })),
  i32: fc.oneof(fc.constantFrom(0, -1), fc.integer()),
  u64: fc.oneof(
    fc.constantFrom(0n, 0x10000n, 0xffff_ffff_ffff_ffffn),
    fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
  ),
  text,
  map: json,
  vmcb: image(fc.constant(4096)),
  page: image(fc.constant(4096)),
  regs: image(fc.constantFrom(256, 301)),
  inner: image(fc.constantFrom(128, 1, 127)),
  smram: image(fc.constant(512)),
};

/** An event of any kind, each field of it there or not. */
export const anyEvent: fc.Arbitrary<TraceEvent> = fc.oneof(
  ...EVENTS.map((row) => {
    const fields = Object.fromEntries(row.fields.map((field) => [field.name, VALUES[field.type]]));
    const time = fc.oneof(fc.nat(), fc.nat({ max: Number.MAX_SAFE_INTEGER }));
    return fc.record({
      kind: fc.constant(row.kind),
      vcpu: fc.oneof(fc.constant(0), fc.constantFrom(1, 0xffff_ffff)),
      time,
      ...fields,
    }, { requiredKeys: ["kind", "vcpu"], noNullPrototype: true });
  }),
) as fc.Arbitrary<TraceEvent>;

/** A few events of every sort a damaged trace is tried with. */
export function someEvents(count: number): TraceEvent[] {
  const events: TraceEvent[] = [{ kind: "session", vcpu: 0, meta: { source: "test", npt: true } }];
  const page = new Uint8Array(4096);
  const known = new Uint8Array(4096).fill(0xff, 0, 0x400);
  for (let i = 1; events.length < count; i++) {
    page[0x578] = i;
    page[0x70] = 0;
    events.push({
      kind: "vmrun",
      vcpu: 0,
      time: 1000 * i,
      rip: 0x8003n,
      vmcb12_gpa: 0x10000n,
      vmcb12: { bytes: page.slice() },
    });
    page[0x70] = 0x81;
    events.push({
      kind: "exit",
      vcpu: i % 2,
      time: 1000 * i + 300,
      vmcb12_gpa: 0x10000n,
      vmcb12: { bytes: page.slice(), known },
    });
    events.push({ kind: "check", vcpu: 0, check: `check-${i % 3}`, text: "EFER.SVME" });
  }
  return events.slice(0, count);
}

/** How {@linkcode traceOf} cuts a trace into blocks. */
export interface TraceOptions extends TraceWriterOptions {
  /** Number of events in a block. */
  readonly every?: number;
  /** Whether it ends without index and trailer. */
  readonly open?: boolean;
}

/** A trace in memory. */
export function traceOf(events: Iterable<TraceEvent>, options: TraceOptions = {}): Uint8Array {
  const chunks: Uint8Array[] = [];
  const writer = new TraceWriter({ write: (chunk) => void chunks.push(chunk) }, {
    id: ID,
    flushInterval: 0,
    ...options,
  });
  let count = 0;
  for (const event of events) {
    writer.write(event);
    if (options.every && ++count % options.every === 0) writer.flush();
  }
  if (options.open) writer.flush();
  else writer.close();
  return join(chunks);
}

/** All chunks as one. */
export function join(chunks: readonly Uint8Array[]): Uint8Array {
  const bytes = new Uint8Array(chunks.reduce((sum, chunk) => sum + chunk.length, 0));
  let at = 0;
  for (const chunk of chunks) {
    bytes.set(chunk, at);
    at += chunk.length;
  }
  return bytes;
}

/** All events of a trace, read as a stream. */
export async function eventsOf(
  bytes: Uint8Array,
  onDamage?: (error: TraceError) => void,
): Promise<TraceEvent[]> {
  const trace = await readTrace([bytes], onDamage ? { onDamage } : {});
  return await Array.fromAsync(trace.events());
}

/** Opens a trace in memory for random access. */
export function fileOf(bytes: Uint8Array): Promise<TraceFile> {
  return TraceFile.open(memorySource(bytes));
}
