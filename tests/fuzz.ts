/**
 * Reads mutated traces: every one has to end in its own events or a typed error, soon, and without
 * asking for much memory.
 *
 * Mutants with wrong checksums must never give an event that was not written. Mutants whose
 * checksums are made right again reach the decoders behind them.
 *
 * @module
 */
import { cpuUsage } from "node:process";
import { crc32 } from "node:zlib";
import { blockContent, readBlockHead, sealBlock } from "../codecs/container/block.ts";
import {
  AT,
  BLOCK_HEADER_SIZE,
  BLOCK_MARK,
  HEADER_SIZE,
  PREFIX,
} from "../codecs/container/format.ts";
import { formatEvent, memorySource, readTrace, recoverTrace } from "../codecs/mod.ts";
import { TraceError, TraceFile, TraceWriter, verifyTrace } from "../codecs/mod.ts";
import { join, someEvents } from "./codecs_events.ts";
import { KINDS } from "./fuzzing/kinds.ts";
import { Random } from "../traces/generate/random.ts";
import { FuzzFailure, type FuzzReport } from "./fuzzing/mutants.ts";

interface Seed {
  readonly bytes: Uint8Array;
  readonly lines: readonly string[];
  readonly blocks: readonly number[];
}

function seedTrace(number: number, count: number, every: number): Seed {
  const chunks: Uint8Array[] = [];
  const blocks: number[] = [];
  let size = 0;
  const write = (chunk: Uint8Array) => {
    if (size > 0 && chunk.length > BLOCK_HEADER_SIZE) blocks.push(size);
    size += chunk.length;
    chunks.push(chunk);
  };
  const id = new Uint8Array(16).fill(number);
  const writer = new TraceWriter({ write }, { id, flushInterval: 0, meta: { seed: number } });
  const events = someEvents(count);
  events.forEach((event, i) => {
    writer.write(event);
    if (i % every === every - 1) writer.flush();
    if (i === every + 1) writer.checkpoint(new Uint8Array(100).fill(i), new Uint8Array(32));
  });
  writer.close();
  return { bytes: join(chunks), lines: events.map((event, i) => formatEvent(i, event)), blocks };
}

const SEEDS = [
  seedTrace(0, 12, 4),
  seedTrace(1, 40, 10),
  seedTrace(2, 3, 1),
  seedTrace(3, 200, 90),
];

/** Changes a trace in one of many ways. */
function mutate(seed: Seed, random: Random): Uint8Array {
  let bytes: Uint8Array = seed.bytes.slice();
  const changes = 1 + (random.below(4) === 0 ? random.below(6) : 0);
  for (let i = 0; i < changes; i++) bytes = change(bytes, seed, random);
  return bytes;
}

function change(bytes: Uint8Array, seed: Seed, random: Random): Uint8Array {
  if (bytes.length === 0) return bytes;
  // Half of the changes near the head of a block or of the file, where the sizes are.
  const base = random.below(2) ? seed.blocks[random.below(seed.blocks.length)]! : 0;
  const near = Math.min(bytes.length - 1, base + random.below(base ? 120 : 60));
  const at = random.below(2) ? near : random.below(bytes.length);
  const size = 1 + random.below(random.below(2) ? 8 : 400);
  switch (random.below(8)) {
    case 0:
      bytes[at]! ^= 1 << random.below(8);
      return bytes;
    case 1:
      bytes[at] = random.below(256);
      return bytes;
    case 2:
      return bytes.slice(0, at);
    case 3: // delete
      return join([bytes.subarray(0, at), bytes.subarray(at + size)]);
    case 4: // repeat
      return join([bytes.subarray(0, at + size), bytes.subarray(at)]);
    case 5: { // splice
      const other = SEEDS[random.below(SEEDS.length)]!.bytes;
      const from = random.below(other.length);
      return join([bytes.subarray(0, at), other.subarray(from, from + size), bytes.subarray(at)]);
    }
    case 6: { // a whole block, repeated, moved or of another trace
      const from = random.below(2) ? seed : SEEDS[random.below(SEEDS.length)]!;
      const which = random.below(from.blocks.length);
      const start = from.blocks[which]!;
      const block = from.bytes.subarray(start, from.blocks[which + 1] ?? from.bytes.length);
      const to = seed.blocks[random.below(seed.blocks.length)]!;
      return join([bytes.subarray(0, to), block, bytes.subarray(to)]);
    }
    default: { // extreme numbers
      const view = new DataView(bytes.buffer);
      if (at + 4 <= bytes.length) view.setUint32(at, random.below(2) ? 0xffff_ffff : 0x7fff_ffff);
      return bytes;
    }
  }
}

/** Changes the content of one block, and makes all checksums right again. */
function mutateContent(seed: Seed, random: Random): Uint8Array {
  const which = random.below(seed.blocks.length);
  const offset = seed.blocks[which]!;
  const end = seed.blocks[which + 1] ?? offset + BLOCK_HEADER_SIZE;
  const head = readBlockHead(seed.bytes.subarray(offset, offset + BLOCK_HEADER_SIZE), offset);
  const stored = seed.bytes.subarray(offset + BLOCK_HEADER_SIZE, end);
  if (stored.length === 0) return seed.bytes.slice();
  const content = blockContent({ head, stored, offset });
  for (let i = random.below(3); i >= 0; i--) {
    content[random.below(content.length)] = random.below(2) ? random.below(256) : 255;
  }
  const block = sealBlock(head, content);
  return join([seed.bytes.subarray(0, offset), block, seed.bytes.subarray(end)]);
}

/** Makes the checksums of a mutant right again, where there is still something to sum. */
function mend(bytes: Uint8Array): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (bytes.length > HEADER_SIZE) {
    view.setUint32(PREFIX.crc, crc32(bytes.subarray(0, PREFIX.crc)), true);
    const end = HEADER_SIZE + view.getUint32(36, true);
    if (end + 4 <= bytes.length) view.setUint32(end, crc32(bytes.subarray(0, end)), true);
  }
  for (let at = 0; at + BLOCK_HEADER_SIZE <= bytes.length; at++) {
    if (bytes[at] !== 0x76 || view.getUint32(at, true) !== BLOCK_MARK) continue;
    const start = at + BLOCK_HEADER_SIZE;
    const end = start + view.getUint32(at + AT.stored_size, true);
    if (end <= bytes.length) {
      view.setUint32(at + AT.content_crc, crc32(bytes.subarray(start, end)), true);
    }
    const head = bytes.subarray(at, at + AT.crc);
    view.setUint32(at + AT.crc, crc32(head), true);
  }
}

/** Reads one mutant in every way there is. */
async function tryOne(bytes: Uint8Array, mended: boolean, report: FuzzReport): Promise<void> {
  let accepted = false;
  await typed(async () => {
    const trace = await readTrace([bytes]);
    const lines = SEEDS[trace.header.id[0]!]?.lines ?? [];
    let count = 0;
    for await (const block of trace.blocks()) {
      for (const [number, event] of block.entries()) {
        if (!mended && formatEvent(number, event) !== lines[number]) {
          throw new FuzzFailure(`Event ${number} was not written so`);
        }
        count++;
      }
    }
    if (!mended && count !== lines.length) throw new FuzzFailure("Events are gone without a word");
    accepted = true;
  }, report);
  if (accepted) report.accepted++;
  await typed(async () => {
    const trace = await TraceFile.open(memorySource(bytes));
    const lines = SEEDS[trace.header.id[0]!]?.lines ?? [];
    let count = 0;
    for await (const block of trace.blocks({ from: 2 })) {
      for (const [number, event] of block.entries()) {
        if (!mended && formatEvent(number, event) !== lines[number]) {
          throw new FuzzFailure(`Event ${number} was not written so`);
        }
        count++;
      }
    }
    if (!mended && count !== Math.max(0, lines.length - 2)) {
      throw new FuzzFailure("Events of a range are gone without a word");
    }
    await trace.checkpoint(Infinity);
  });
  await typed(async () => {
    const found = await verifyTrace([bytes]);
    if (!mended && found.intact !== accepted) throw new FuzzFailure("Reading and verifying differ");
  });
  // Compressing anew takes longer than all the rest.
  if (report.inputs % 8 === 0) {
    await typed(async () => {
      await recoverTrace(memorySource(bytes), (meta) => {
        return new TraceWriter({ write: () => {} }, { meta, flushInterval: 0 });
      });
    });
  }
}

/** Lets typed errors pass, and no others. */
async function typed(act: () => Promise<void>, report?: FuzzReport): Promise<void> {
  try {
    await act();
  } catch (error) {
    if (!(error instanceof TraceError)) throw error;
    if (error.offset < 0 && error.code !== "event") {
      throw new FuzzFailure(`An error without a place: ${error.message}`);
    }
    if (report) report.errors[error.code] = (report.errors[error.code] ?? 0) + 1;
  }
}

/** What no mutant may take, in milliseconds. */
const SLOW_MS = 2000;

/**
 * Time that this process has computed for, in milliseconds: a busy machine does not slow it, but
 * other tests in the process count too.
 */
function cpuTime(): number {
  const { user, system } = cpuUsage();
  return (user + system) / 1000;
}

/**
 * Reads mutants.
 *
 * @param count How many.
 * @param seed Chooses them.
 * @returns What came of it.
 * @throws {Error} What a mutant did wrong, with the number to try it again by.
 */
export async function fuzz(count: number, seed = 1): Promise<FuzzReport> {
  const report: FuzzReport = { inputs: 0, accepted: 0, errors: {}, slowest: 0 };
  for (let i = 0; i < count; i++) {
    const random = new Random(seed + i);
    const origin = SEEDS[random.below(SEEDS.length)]!;
    const how = random.below(4);
    const bytes = how === 0 ? mutateContent(origin, random) : mutate(origin, random);
    if (how === 1) mend(bytes);
    // What else the process did meanwhile is not the mutant's: slow is who is slow each time.
    let took = Infinity;
    for (let attempt = 0; attempt < 3 && took > SLOW_MS; attempt++) {
      const start = cpuTime();
      try {
        await tryOne(bytes, how < 2, attempt === 0 ? report : { ...report, errors: {} });
      } catch (cause) {
        throw new Error(`Mutant ${seed + i} failed: ${cause}`, { cause });
      }
      took = Math.min(took, cpuTime() - start);
    }
    if (took > SLOW_MS) throw new FuzzFailure(`Mutant ${seed + i} took ${took} ms`);
    report.slowest = Math.max(report.slowest, took);
    report.inputs++;
  }
  return report;
}

/**
 * Tries mutants of other things than the container.
 *
 * @param kind Name of the kind.
 * @param count How many.
 * @param seed Chooses them.
 * @returns What came of it.
 * @throws {Error} What a mutant did wrong, with the number to try it again by.
 */
export async function fuzzKind(kind: string, count: number, seed = 1): Promise<FuzzReport> {
  const attempt = KINDS[kind];
  if (attempt === undefined) throw new Error(`No kind ${kind}: ${Object.keys(KINDS).join(", ")}`);
  const report: FuzzReport = { inputs: 0, accepted: 0, errors: {}, slowest: 0 };
  const folder = await Deno.makeTempDir({ prefix: "vmtape-fuzz-" });
  try {
    for (let i = 0; i < count; i++) {
      try {
        await attempt(new Random(seed + i), folder, report);
      } catch (cause) {
        throw new Error(`Mutant ${seed + i} of ${kind} failed: ${cause}`, { cause });
      }
      report.inputs++;
    }
    return report;
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** Mutants that one process tries: Deno 2.9.6 never frees a zstd decoder that has failed. */
const STEP = 50_000;

/** Of so many mutants, how many are of each kind. */
const SHARES: Readonly<Record<string, number>> = {
  container: 0.68,
  events: 0.1,
  records: 0.06,
  logs: 0.06,
  shards: 0.02,
  policies: 0.03,
  lines: 0.02,
  scenarios: 0.02,
  pairs: 0.01,
};

async function part(kind: string, count: number, seed: number): Promise<void> {
  const start = performance.now();
  const report = kind === "container" ? await fuzz(count, seed) : await fuzzKind(kind, count, seed);
  const seconds = Math.round((performance.now() - start) / 1000);
  const rss = Math.round(Deno.memoryUsage().rss / 2 ** 20);
  const line = `${kind}: ${count} mutants from ${seed} in ${seconds} s, ${rss} MiB: ${
    JSON.stringify(report)
  }\n`;
  await Deno.stdout.write(new TextEncoder().encode(line));
}

/** Tries mutants of one kind or, with `all`, of each its share, in processes of their own. */
async function main(count: number, seed: number, kind: string): Promise<void> {
  if (kind !== "all" && count <= STEP) return await part(kind, count, seed);
  const shares = kind === "all" ? Object.entries(SHARES) : [[kind, 1] as const];
  for (const [name, share] of shares) {
    const all = Math.ceil(count * share);
    for (let done = 0; done < all; done += STEP) {
      const args = [String(Math.min(STEP, all - done)), String(seed + done), name];
      const child = new Deno.Command(Deno.execPath(), {
        args: [
          "run",
          "-q",
          "--no-prompt",
          "--allow-read",
          "--allow-write",
          import.meta.filename!,
          ...args,
        ],
      }).spawn();
      const { code } = await child.status;
      if (code !== 0) Deno.exit(code);
    }
  }
}

if (import.meta.main) {
  const [count = "1000000", seed = "1", kind = "all"] = Deno.args;
  await main(Number(count), Number(seed), kind);
}
