import { gzipSync } from "node:zlib";
import fc from "fast-check";
import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import {
  fileSource,
  fileSpool,
  importTracepoints,
  memorySpool,
  readTracepoints,
  TraceError,
  TracepointError,
  type TracepointOptions,
  type TracepointRecord,
  type TracepointSource,
  type TraceSource,
} from "@vmtape/vmtape/codecs";
import type { TraceEvent } from "@vmtape/vmtape/engine";
import {
  buildTraceDat,
  type BuiltCpu,
  type BuiltFile,
  type BuiltRecord,
} from "./import_dat_builder.ts";

const u64 = fc.bigInt({ min: 0n, max: 0xffff_ffff_ffff_ffffn });
const u32 = fc.integer({ min: 0, max: 0xffffffff });
const pid = fc.constantFrom(7, 8, 1234);

function record(name: string, values: fc.Arbitrary<BuiltRecord["values"]>) {
  return fc.record({ name: fc.constant(name), pid, values });
}

const anyRecord = fc.oneof(
  record(
    "kvm_nested_vmenter",
    fc.record({
      rip: u64,
      vmcb: u64,
      nested_rip: u64,
      int_ctl: u32,
      event_inj: u32,
      tdp_enabled: fc.constantFrom(0, 1),
      guest_pgd: u64,
      isa: fc.constant(2),
    }),
  ),
  record(
    "kvm_nested_intercepts",
    fc.record({
      cr_read: fc.integer({ min: 0, max: 0xffff }),
      cr_write: fc.integer({ min: 0, max: 0xffff }),
      exceptions: u32,
      intercept1: u32,
      intercept2: u32,
      intercept3: u32,
    }),
  ),
  record(
    "kvm_nested_vmexit",
    fc.record({
      exit_reason: u32,
      guest_rip: u64,
      isa: fc.constant(2),
      info1: u64,
      info2: u64,
      intr_info: u32,
      error_code: u32,
      vcpu_id: fc.integer({ min: 0, max: 3 }),
    }),
  ),
  record(
    "kvm_nested_vmenter_failed",
    fc.record({ msg: fc.stringMatching(/^[ -~]{0,200}$/), err: fc.constant(0) }),
  ),
  record("sched_wakeup", fc.record({ comm: fc.constant("cat"), target_cpu: u32 })),
);

const anyFile: fc.Arbitrary<BuiltFile> = fc.record({
  version: fc.constantFrom(6 as const, 7 as const),
  little: fc.boolean(),
  longSize: fc.constantFrom(4 as const, 8 as const),
  compression: fc.constantFrom("none" as const, "zstd" as const, "zlib" as const),
  stamps: fc.constantFrom("extend" as const, "absolute" as const),
  shuffle: fc.boolean(),
  cpus: fc.array(
    fc.array(
      fc.tuple(
        fc.oneof(fc.integer({ min: 0, max: 1000 }), fc.integer({ min: 0, max: 2 ** 40 })),
        anyRecord,
      ),
      { maxLength: 40 },
    ).map((rows) => {
      let time = 1000;
      return rows.map(([delta, row]) => ({ ...row, time: time += delta + 16 }));
    }),
    { maxLength: 4 },
  ).map((cpus) => cpus.map((records, cpu) => ({ cpu, records }))),
}).map((file) => file.version === 6 ? { ...file, compression: "none" as const } : file);

/** Name in a neutral record of each field that the format spells otherwise. */
const RENAMED: Readonly<Record<string, string>> = {
  tdp_enabled: "npt",
  exit_reason: "exit_code",
  guest_rip: "rip",
  info1: "exit_info_1",
  info2: "exit_info_2",
  intr_info: "exit_int_info",
  error_code: "exit_int_info_err",
};

function expected({ cpus }: BuiltFile): { cpu: number; time: number; name: string; pid: number }[] {
  return cpus.flatMap(({ cpu, records }) =>
    records.map(({ name, time, pid, values }) => {
      const fields: Record<string, number | bigint | string> = {};
      for (const [field, value] of Object.entries(values)) {
        const root = values.tdp_enabled === 0 ? "guest_cr3" : "nested_cr3";
        const key = field === "guest_pgd" ? root : RENAMED[field] ?? field;
        fields[key] = typeof value === "bigint" && value <= BigInt(Number.MAX_SAFE_INTEGER)
          ? Number(value)
          : value;
      }
      return { cpu, time, name, pid, fields };
    })
  ).filter(({ name }) => name !== "sched_wakeup").sort((a, b) => a.time - b.time);
}

async function records(source: TracepointSource, options: TracepointOptions = {}) {
  const log = readTracepoints(source, options);
  return { records: (await Array.fromAsync(log)).flat(), stats: log.stats };
}

async function events(source: TracepointSource): Promise<TraceEvent[]> {
  return (await Array.fromAsync(importTracepoints(source))).flat();
}

/** Everything up to the error, and the error. */
async function partly(source: TracepointSource) {
  const all: TraceEvent[] = [];
  const log = importTracepoints(source);
  try {
    for await (const batch of log) all.push(...batch);
  } catch (error) {
    if (!(error instanceof TracepointError)) throw error;
    return { events: all, error, stats: log.stats };
  }
  return { events: all, error: undefined, stats: log.stats };
}

function fields(found: readonly TracepointRecord[]) {
  return found.map(({ cpu, time, name, pid, fields }) => ({
    cpu: cpu!,
    time: time!,
    name,
    pid: pid!,
    // The exit code 1 << 31 and the like have no ISA of their own: what is compared is what is there.
    fields: name === "kvm_nested_vmexit" || name === "kvm_nested_vmenter"
      ? { ...fields, isa: 2 }
      : fields,
  }));
}

Deno.test("a trace.dat gives back its records, whatever its shape", async () => {
  await fc.assert(
    fc.asyncProperty(anyFile, async (file) => {
      const { records: found, stats } = await records(buildTraceDat(file));
      const times = found.map(({ time }) => time!);
      assertEquals(times, times.toSorted((a, b) => a - b));
      const order = (a: { time: number; cpu: number }, b: { time: number; cpu: number }) =>
        a.time - b.time || a.cpu - b.cpu;
      assertEquals(
        fields(found).sort(order),
        expected(file).sort(order) as unknown[] as ReturnType<typeof fields>,
      );
      const others = file.cpus.flatMap((cpu) =>
        cpu.records
      ).filter(({ name }) => name === "sched_wakeup").length;
      assertEquals(stats.skipped, others);
      assertEquals(stats.malformed, 0);
    }),
    { numRuns: 150 },
  );
});

const enter = (time: number, more: BuiltRecord["values"] = {}): BuiltRecord => ({
  name: "kvm_nested_vmenter",
  time,
  pid: 7,
  values: {
    rip: 0x1003,
    vmcb: 0x10000,
    nested_rip: 0x9000,
    int_ctl: 1,
    event_inj: 0x80000306,
    tdp_enabled: 1,
    guest_pgd: 0x60000,
    isa: 2,
    ...more,
  },
});
const failed = (time: number): BuiltRecord => ({
  name: "kvm_nested_vmenter_failed",
  time,
  pid: 7,
  values: { msg: "control->asid == 0" },
});
const noise = (time: number): BuiltRecord => ({
  name: "sched_wakeup",
  time,
  pid: 9,
  values: { comm: "cat", target_cpu: 1 },
});

function small(cpus: readonly BuiltCpu[], more: Partial<BuiltFile> = {}): Uint8Array<ArrayBuffer> {
  return buildTraceDat({
    version: 7,
    little: true,
    longSize: 8,
    compression: "none",
    cpus,
    ...more,
  });
}

const many = Array.from({ length: 400 }, (_, i) => i % 2 === 0 ? enter(100 * i) : failed(100 * i));

Deno.test("lost records are marked where they are missing", async () => {
  for (const longSize of [4, 8] as const) {
    for (const little of [true, false]) {
      const cpu = { cpu: 0, records: many.slice(0, 8), lost: { 4: 17, 6: -1 } };
      const log = importTracepoints(small([cpu], { longSize, little }));
      const found = (await Array.fromAsync(log)).flat();
      assertEquals(
        found.filter(({ kind }) => kind !== "session").map((event) =>
          event.kind === "lost" ? `lost ${event.count}` : event.kind
        ),
        [
          "vmrun",
          "check",
          "vmrun",
          "check",
          "lost 17",
          "vmrun",
          "check",
          "lost undefined",
          "vmrun",
          "check",
        ],
      );
      assertEquals([log.stats.lost, log.stats.lostMarks], [17, 2]);
    }
  }
});

Deno.test("all instances and threads of a file become vCPUs of their own", async () => {
  const other = { ...enter(150), pid: 8 };
  const found = await events(
    small([{ cpu: 3, records: [enter(100)] }, { cpu: 1, records: [other] }]),
  );
  assertEquals(found.map(({ kind, vcpu, time }) => [kind, vcpu, time]), [
    ["session", 0, 100],
    ["vmrun", 0, 100],
    ["session", 1, 150],
    ["vmrun", 1, 150],
  ]);
  assertEquals(found[2]?.kind === "session" && found[2].meta, {
    source: "kvm-tracepoints",
    task: "CPU 0/KVM",
    tid: 8,
  });
});

Deno.test("a trace.dat in gzip, as a stream, or in a file is the same", async () => {
  const bytes = small([{ cpu: 0, records: many }], { compression: "zstd" });
  const whole = await events(bytes);
  assertEquals(whole.length, 401);
  const stream = () => new Blob([bytes]).stream();
  const path = await Deno.makeTempFile();
  try {
    await Deno.writeFile(path, bytes);
    using file = fileSource(path);
    assertEquals(await events(file), whole);
    assertEquals(await events(stream()), whole);
    assertEquals(await events(gzipSync(bytes)), whole);
    const dir = await Deno.makeTempDir();
    const log = importTracepoints(stream(), { spool: () => fileSpool(dir) });
    assertEquals((await Array.fromAsync(log)).flat(), whole);
    assertEquals(await Array.fromAsync(Deno.readDir(dir)), []);
    await Deno.remove(dir);
  } finally {
    await Deno.remove(path);
  }
  await assertRejects(
    () => Array.fromAsync(importTracepoints(stream(), { spool: () => memorySpool(1000) })),
    TracepointError,
    "save it to a file",
  );
});

Deno.test("a trace.dat that is cut off gives what is before the cut, and says where it is", async () => {
  const shapes: readonly Partial<BuiltFile>[] = [
    { version: 6 },
    {},
    { compression: "zstd" },
  ];
  for (const more of shapes) {
    const late = many.map((record) => ({ ...record, pid: 8, time: record.time + 50_000 }));
    const bytes = small([{ cpu: 0, records: many }, { cpu: 1, records: late }], more);
    const whole = await events(bytes);
    const first = whole.filter((event) => event.vcpu === 0);
    let most = 0;
    for (let length = 0; length < bytes.length; length += 61) {
      const { events, error } = await partly(bytes.slice(0, length));
      assert(error !== undefined, `${length} of ${bytes.length} bytes went unnoticed`);
      assertEquals(
        events.filter(({ vcpu }) => vcpu === 0),
        first.slice(0, events.filter(({ vcpu }) => vcpu === 0).length),
      );
      assert((error.offset ?? error.line) !== undefined);
      most = Math.max(most, events.length);
    }
    assert(most > 700, `at most ${most} events of ${whole.length}`);
  }
});

Deno.test("no damaged byte makes the reader throw anything but its own error", async () => {
  await fc.assert(
    fc.asyncProperty(
      anyFile.filter(({ cpus }) => cpus.some(({ records }) => records.length > 0)),
      fc.array(fc.tuple(fc.nat(), fc.integer({ min: 1, max: 255 })), {
        minLength: 1,
        maxLength: 8,
      }),
      async (file, flips) => {
        const bytes = buildTraceDat(file);
        for (const [at, xor] of flips) bytes[at % bytes.length]! ^= xor;
        await partly(bytes);
      },
    ),
    { numRuns: 300 },
  );
});

async function message(bytes: Uint8Array): Promise<string> {
  const { error } = await partly(bytes);
  return `${error?.code}: ${error?.message}`;
}

Deno.test("what cannot be read is named, with what to do", async (t) => {
  const bytes = small([{ cpu: 0, records: many }]);
  const changed = (change: (bytes: Uint8Array) => void) => {
    const copy = bytes.slice();
    change(copy);
    return copy;
  };
  const rows: readonly [string, Uint8Array, RegExp][] = [
    ["wrong byte order", changed((b) => b[12] = 1), /^endianness: .*4096.*\(byte 12\)$/],
    ["no byte order", changed((b) => b[12] = 7), /^corrupt: .*byte order is 7.*\(byte 12\)$/],
    ["a later version", changed((b) => b[10] = 0x38), /^unsupported: .*version 8.*\(byte 10\)$/],
    [
      "an unknown compression",
      changed((b) => b.set(new TextEncoder().encode("lzma"), 18)),
      /^compression: .*`lzma`.*trace-cmd convert.*\(byte 18\)$/,
    ],
    ["no options", changed((b) => b.fill(0, 24, 32)), /^truncated: .*no options.*\(byte 24\)$/],
    ["options in a circle", circle(bytes), /^corrupt: .*circle/],
    ["xz", Uint8Array.of(0xfd, 0x37, 0x7a, 0x58, 0x5a, 0), /^compression: .*`xz -dc`/],
    ["perf.data", new TextEncoder().encode("PERFILE2\0\0"), /^not-a-trace: .*`perf script`/],
    ["gzip in gzip", gzipSync(gzipSync(bytes)), /^compression: .*twice/],
    ["zeros", new Uint8Array(5000), /^not-a-trace: .*binary.*\(byte 0\)$/],
  ];
  for (const [name, input, expected] of rows) {
    await t.step(name, async () => {
      const found = await message(input);
      assert(expected.test(found), found);
    });
  }
});

/** A file of version 7 whose first options name themselves as the next ones. */
function circle(bytes: Uint8Array): Uint8Array {
  const copy = bytes.slice();
  const view = new DataView(copy.buffer);
  const first = Number(view.getBigUint64(24, true));
  const size = Number(view.getBigUint64(first + 8, true));
  view.setBigUint64(first + 16 + size - 8, BigInt(first), true);
  return copy;
}

Deno.test("a broken page is passed over, counted, and marked as lost", async () => {
  const bytes = small([{ cpu: 0, records: many }]);
  const whole = await events(bytes);
  // The second page says that it holds more than a page.
  const first = bytes.length - 4096 * Math.floor(bytes.length / 4096 - 1);
  const view = new DataView(bytes.buffer);
  const page = Math.ceil(first / 4096) * 4096 + 4096;
  view.setUint32(page + 8, 5000, true);
  const { events: found, error, stats } = await partly(bytes);
  assertEquals(error, undefined);
  assertEquals(stats.malformed, 1);
  assertEquals(stats.issues[0]?.offset, page);
  assertEquals(found.filter(({ kind }) => kind === "lost").length, 1);
  assert(found.length > whole.length * 0.7 && found.length < whole.length);
});

Deno.test("other events cost no memory and are counted", async () => {
  const block = small(
    [{ cpu: 0, records: Array.from({ length: 3000 }, (_, i) => noise(i * 10)) }],
    {
      version: 6,
    },
  );
  const table = new TextDecoder("latin1").decode(block).indexOf("flyrecord\0") + 10;
  const head = new DataView(block.buffer);
  const start = Number(head.getBigUint64(table, true));
  const size = Number(head.getBigUint64(table + 8, true));
  const times = 3000;
  head.setBigUint64(table + 8, BigInt(size * times), true);
  const source: TraceSource = {
    size: start + size * times,
    readAt(offset, length) {
      const bytes = new Uint8Array(Math.max(0, Math.min(length, this.size - offset)));
      for (let i = 0; i < bytes.length;) {
        const from = offset + i < start ? offset + i : start + (offset + i - start) % size;
        const part = block.subarray(from, from + bytes.length - i);
        bytes.set(part, i);
        i += part.length;
      }
      return bytes;
    },
  };
  assert(source.size > 200e6);
  const before = Deno.memoryUsage().rss;
  const log = importTracepoints(source);
  assertEquals((await Array.fromAsync(log)).flat(), []);
  assertEquals(log.stats.others, { sched_wakeup: 3000 * times });
  assertEquals(log.stats.skipped, 3000 * times);
  const grown = Deno.memoryUsage().rss - before;
  assert(grown < 150e6, `${grown} bytes`);
});

Deno.test("every tracepoint of a trace.dat can be had", async () => {
  const { records: found } = await records(small([{ cpu: 0, records: [noise(50)] }]), {
    every: true,
  });
  assertEquals(found.map(({ name, fields, text }) => [name, fields, text]), [
    ["sched_wakeup", { comm: "cat", target_cpu: 1 }, "comm=cat target_cpu=0x1"],
  ]);
});

Deno.test("a place for a streamed log that cannot be had is an error that names it", () => {
  const error = assertThrows(() => fileSpool("/nonexistent"), TraceError, "in /nonexistent");
  assertEquals(error.code, "output");
});
