/**
 * How small and fast the trace format is, beside msgpackr with structures and
 * JSON, on the same events in the same run.
 *
 * `deno bench bench/codecs_bench.ts` gives times; `deno run -A
 * bench/codecs_bench.ts table` the table of goals, `… table --baseline` also
 * writes it to `bench/baselines/codecs.json`. What is measured as one round
 * trip is told in `bench/codecs_events.ts`. cbor-x is not in the table: its
 * resolver wants native packages that not every registry mirror has.
 *
 * @module
 */
import { gzipSync, zstdCompressSync } from "node:zlib";
import { Packr, Unpackr } from "msgpackr/pack";
import type { TraceEvent } from "../engine/event.ts";
import { fileSink, fileSource, readTrace, TraceFile, TraceWriter } from "../codecs/mod.ts";
import { readLabRecords } from "../codecs/lab/record.ts";
import { importLab } from "../traces/scenarios/lab_import.ts";
import { Random } from "../traces/generate/random.ts";
import { identical, walk } from "./codecs_events.ts";
import { machine, print, writeBaseline } from "./table.ts";

/** One way to store events. */
interface Format {
  readonly name: string;
  /** Stores events; gives the bytes, in pieces. */
  encode(events: Iterable<TraceEvent>): Uint8Array[];
  /** Reads them all; gives how many there were. */
  decode(chunks: readonly Uint8Array[]): number | Promise<number>;
}

const VMTAPE: Format = {
  name: "vmtape",
  encode(events) {
    const chunks: Uint8Array[] = [];
    const writer = new TraceWriter({ write: (chunk) => void chunks.push(chunk) });
    for (const event of events) writer.write(event);
    writer.close();
    return chunks;
  },
  async decode(chunks) {
    let count = 0;
    for await (const block of (await readTrace(chunks)).blocks()) {
      for (const event of block.shared()) count += event.kind === "lost" ? 0 : 1;
    }
    return count;
  },
};

const structures: object[] = [];

const MSGPACKR: Format = {
  name: "msgpackr, structures",
  encode(events) {
    const packr = new Packr({ structures: structures as [] });
    return Array.from(events, (event) => packr.pack(event));
  },
  decode(chunks) {
    const unpackr = new Unpackr({ structures: structures as [] });
    let count = 0;
    for (const chunk of chunks) count += unpackr.unpack(chunk).kind === "lost" ? 0 : 1;
    return count;
  },
};

const text = new TextEncoder();
const untext = new TextDecoder();

const JSON_TEXT: Format = {
  name: "JSON, images as base64",
  encode: (events) => Array.from(events, (event) => text.encode(JSON.stringify(event, plain))),
  decode(chunks) {
    let count = 0;
    for (const chunk of chunks) {
      const event = JSON.parse(untext.decode(chunk), fancy);
      count += event.kind === "lost" ? 0 : 1;
    }
    return count;
  },
};

function plain(_: string, value: unknown): unknown {
  if (typeof value === "bigint") return `0x${value.toString(16)}`;
  return value instanceof Uint8Array ? value.toBase64() : value;
}

function fancy(key: string, value: unknown): unknown {
  if (key === "bytes") return Uint8Array.fromBase64(value as string);
  return key === "rip" || key === "vmcb12_gpa" ? BigInt(value as string) : value;
}

const FORMATS = [VMTAPE, MSGPACKR, JSON_TEXT];
const WORKLOADS = { identical, walk };

/** What was measured of one format on one workload. */
interface Row {
  readonly workload: string;
  readonly format: string;
  readonly bytesPerRoundTrip: number;
  readonly encodeEventsPerSecond: number;
  readonly decodeEventsPerSecond: number;
}

/** The least time of several runs, in seconds: what others do on the machine only adds to it. */
async function least(runs: number, act: () => unknown): Promise<number> {
  let best = Infinity;
  for (let i = 0; i < runs; i++) {
    const start = performance.now();
    await act();
    best = Math.min(best, performance.now() - start);
  }
  return best / 1000;
}

async function measure(name: keyof typeof WORKLOADS, format: Format): Promise<Row> {
  const rounds = format === VMTAPE ? 300_000 : 10_000;
  const make = WORKLOADS[name];
  let chunks: Uint8Array[] = [];
  const encode = await least(6, () => void (chunks = format.encode(make(rounds))));
  const size = chunks.reduce((sum, chunk) => sum + chunk.length, 0);
  const decode = await least(6, async () => {
    const count = await format.decode(chunks);
    if (count !== 2 * rounds) throw new Error(`${format.name} lost events`);
  });
  return {
    workload: name,
    format: format.name,
    bytesPerRoundTrip: size / rounds,
    encodeEventsPerSecond: 2 * rounds / encode,
    decodeEventsPerSecond: 2 * rounds / decode,
  };
}

/** Round trips of suite A: vmcb12 before VMRUN and as it stood after, for every case. */
async function suiteA(): Promise<[string, number][] | undefined> {
  const url = new URL("../../shared/ground-truth/A-upstream-npt1.ndjson.gz", import.meta.url);
  let file: Deno.FsFile;
  try {
    file = await Deno.open(url);
  } catch {
    return undefined;
  }
  const lines = file.readable.pipeThrough(new DecompressionStream("gzip"));
  const all = await Array.fromAsync(importLab(readLabRecords(lines)));
  const cases = all.filter((event) => event.kind === "case").length;
  const pairs: TraceEvent[] = [];
  let before: TraceEvent | undefined;
  for (const event of all) {
    if (event.kind === "vmrun" && event.vmcb12) before = event;
    if (event.kind !== "regs" || event.phase !== "post" || !event.vmcb12 || !before) continue;
    const vmcb12_gpa = (before as { vmcb12_gpa: bigint }).vmcb12_gpa;
    pairs.push(before, { kind: "exit", vcpu: 0, vmcb12_gpa, vmcb12: event.vmcb12 });
    before = undefined;
  }
  const images = pairs.map((event) => (event as { vmcb12: { bytes: Uint8Array } }).vmcb12.bytes);
  const raw = new Uint8Array(images.length * 4096);
  images.forEach((bytes, i) => raw.set(bytes, i * 4096));
  const size = (chunks: readonly Uint8Array[]) => chunks.reduce((sum, c) => sum + c.length, 0);
  const packed = size(MSGPACKR.encode(pairs));
  const joined = new Uint8Array(packed);
  MSGPACKR.encode(pairs).reduce((at, chunk) => (joined.set(chunk, at), at + chunk.length), 0);
  const per = (bytes: number) => bytes / (pairs.length / 2);
  return [
    [`vmtape, ${pairs.length / 2} round trips`, per(size(VMTAPE.encode(pairs)))],
    [`vmtape, everything the ${cases} records hold`, size(VMTAPE.encode(all)) / cases],
    ["raw images", 8192],
    ["raw images, gzip", per(gzipSync(raw).length)],
    ["raw images, zstd level 3", per(zstdCompressSync(raw).length)],
    ["msgpackr, zstd level 3", per(zstdCompressSync(joined).length)],
  ];
}

/** Most resident memory while 10 million events are written, or read: in a process of its own. */
async function memory(what: "write" | "read", path: string): Promise<string> {
  const output = await new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "-q", import.meta.filename!, what, path],
  }).output();
  return new TextDecoder().decode(output.stdout).trim();
}

async function writeMany(path: string, count: number): Promise<void> {
  let rss = 0;
  const writer = new TraceWriter(fileSink(path, { force: true }));
  for (const event of walk(count / 2)) {
    writer.write(event);
    if (writer.events % 100_000 === 0) rss = Math.max(rss, Deno.memoryUsage().rss);
  }
  writer.close();
  await print(`${Math.round(rss / 2 ** 20)} MiB`);
}

async function readMany(path: string): Promise<void> {
  let [rss, count] = [0, 0];
  for await (const block of (await readTrace((await Deno.open(path)).readable)).blocks()) {
    for (const event of block.shared()) count += event.vcpu + 1;
    rss = Math.max(rss, Deno.memoryUsage().rss);
  }
  await print(`${Math.round(rss / 2 ** 20)} MiB, ${count} events`);
}

/** Writes 10 million events that take about 100 bytes each. */
function writeLarge(path: string): void {
  const random = new Random(99);
  const page = new Uint8Array(4096);
  const view = new DataView(page.buffer);
  const writer = new TraceWriter(fileSink(path, { force: true }));
  const event = { kind: "exit", vcpu: 0, time: 0, vmcb12_gpa: 0x10000n, vmcb12: { bytes: page } };
  for (let i = 0; i < 10_000_000; i++) {
    for (let word = 0; word < 25; word++) {
      view.setUint32(0x400 + 8 * word, random.below(0x1_0000_0000), true);
    }
    event.time = i * 1000;
    writer.write(event as TraceEvent);
  }
  writer.close();
}

async function seek(path: string): Promise<string> {
  using source = fileSource(path);
  let read = 0;
  const counting = {
    size: source.size,
    readAt: (offset: number, length: number) => {
      read += length;
      return source.readAt(offset, length);
    },
  };
  const start = performance.now();
  const trace = await TraceFile.open(counting);
  for await (const event of trace.events({ from: 9_000_000, to: 9_000_001 })) {
    if (event.time !== 9_000_000_000) throw new Error("This is another event");
  }
  const took = performance.now() - start;
  return `${(source.size / 1e6).toFixed(0)} MB: ${took.toFixed(1)} ms, ${
    (read / 1e6).toFixed(2)
  } MB read`;
}

async function table(baseline: boolean): Promise<void> {
  const rows: Row[] = [];
  for (const name of Object.keys(WORKLOADS) as (keyof typeof WORKLOADS)[]) {
    for (const format of FORMATS) rows.push(await measure(name, format));
  }
  await print(
    "| workload | format | bytes/round trip | M events/s encoded | M events/s decoded |\n" +
      "| --- | --- | --- | --- | --- |",
  );
  for (const row of rows) {
    await print(
      `| ${row.workload} | ${row.format} | ${row.bytesPerRoundTrip.toFixed(2)} | ${
        (row.encodeEventsPerSecond / 1e6).toFixed(2)
      } | ${(row.decodeEventsPerSecond / 1e6).toFixed(2)} |`,
    );
  }
  const cases = await suiteA();
  for (const [name, bytes] of cases ?? []) {
    await print(`| suite A | ${name} | ${bytes.toFixed(1)} | | |`);
  }
  const folder = await Deno.makeTempDir();
  const many = `${folder}/many.vmtape`;
  const written = await memory("write", many);
  const read = await memory("read", many);
  await print(`\n10 million events: ${written} resident to encode, ${read} to decode`);
  const large = `${folder}/large.vmtape`;
  writeLarge(large);
  const sought = await seek(large);
  await print(`event 9,000,000 of ${sought}`);
  await Deno.remove(folder, { recursive: true });
  if (!baseline) return;
  const result = {
    machine: machine(),
    rows,
    suiteA: cases,
    memory: { written, read },
    seek: sought,
  };
  await writeBaseline("codecs.json", result);
}

if (import.meta.main && Deno.args[0] === "table") await table(Deno.args.includes("--baseline"));
else if (import.meta.main && Deno.args[0] === "write") await writeMany(Deno.args[1]!, 10_000_000);
else if (import.meta.main && Deno.args[0] === "read") await readMany(Deno.args[1]!);
else {
  for (const [workload, make] of Object.entries(WORKLOADS)) {
    for (const format of FORMATS) {
      const rounds = 5000;
      const baseline = format === VMTAPE;
      Deno.bench(`encode ${2 * rounds} events, ${format.name}`, {
        group: `${workload}: encode`,
        baseline,
      }, () => void format.encode(make(rounds)));
      const chunks = format.encode(make(rounds));
      Deno.bench(`decode ${2 * rounds} events, ${format.name}`, {
        group: `${workload}: decode`,
        baseline,
      }, async () => void await format.decode(chunks));
    }
  }
}
