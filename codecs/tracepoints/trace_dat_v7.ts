/**
 * Version 7 of trace.dat (trace-cmd.dat.v7(5)): chains of options say where its
 * sections and its pages are.
 *
 * @module
 */
import {
  checkCpus,
  checkPageSize,
  type Found,
  readEventFormats,
  readFtraceFormats,
  readHeaderInfo,
  readOption,
  readTasks,
} from "./trace_dat_parts.ts";
import { DatReader, numberAt, unpack } from "./trace_dat_reader.ts";
import { salvage } from "./trace_dat_salvage.ts";
import { memorySource } from "../container/trace_file.ts";
import { TracepointError } from "./error.ts";

const decoder = new TextDecoder();

const SECTION = {
  options: 0,
  buffer: 3,
  headerInfo: 16,
  ftraceFormats: 17,
  eventFormats: 18,
  kallsyms: 19,
  printk: 20,
  tasks: 21,
  bufferText: 22,
} as const;

const SECTION_NAMES: Readonly<Record<number, string>> = {
  0: "the options",
  16: "the ring buffer's headers",
  17: "the formats of ftrace's own events",
  18: "the formats of the events",
  21: "the thread names",
};

/** Reads what follows the page size in version 7: options, which say where the sections are. */
export async function readVersion7(reader: DatReader, found: Found): Promise<void> {
  const nameAt = reader.at;
  const name = await reader.string(64, "the name of the compression");
  const version = await reader.string(64, "the version of the compression");
  if (name !== "none" && name !== "zstd" && name !== "zlib") {
    throw new TracepointError(
      "compression",
      `Compressed with \`${
        name.slice(0, 40)
      }\`, which is not known here (none, zstd and zlib are); ` +
        "`trace-cmd convert --compression none` may undo it",
      { offset: nameAt },
    );
  }
  found.compression = name;
  found.origin.compression = name === "none" ? name : `${name} ${version}`;
  const offsetAt = reader.at;
  let next = await reader.number(8, "the place of the options");
  if (next === 0) {
    throw new TracepointError(
      "truncated",
      "The file has no options: its writer was stopped before it was complete",
      { offset: offsetAt },
    );
  }
  const seen = new Set<number>();
  let behind = 0;
  try {
    while (next !== 0) {
      if (seen.has(next)) {
        throw new TracepointError("corrupt", "The options go round in a circle", { offset: next });
      }
      seen.add(next);
      next = await readOptions(reader, found, next);
      behind = reader.at;
    }
  } catch (error) {
    if (!(error instanceof TracepointError) || error.code !== "truncated") throw error;
    if (behind === 0 || found.cpus.length > 0) throw error;
    const { pageSize, compression } = found;
    const cpus = await salvage(reader, behind, pageSize, compression);
    if (cpus.length === 0) throw error;
    found.cpus.push(...cpus.map((cpu) => ({ ...cpu, pageSize })));
    found.cut = error;
  }
}

/** One options section of version 7; returns where the next one is. */
async function readOptions(reader: DatReader, found: Found, offset: number): Promise<number> {
  const body = await readSection(reader, found, offset, SECTION.options);
  let next = 0;
  for (let at = 0; at < body.length;) {
    if (at + 6 > body.length) {
      throw new TracepointError("corrupt", "An option without its size", { offset });
    }
    const id = numberAt(body, at, 2, reader.little);
    const size = numberAt(body, at + 2, 4, reader.little);
    const data = body.subarray(at + 6, at + 6 + size);
    if (data.length < size) {
      throw new TracepointError("corrupt", `Option ${id} is longer than its section`, { offset });
    }
    at += 6 + size;
    if (id === 0) {
      next = size >= 8 ? numberAt(data, 0, 8, reader.little) : 0;
      break;
    }
    await readPart(reader, found, id, data);
  }
  return next;
}

/** The contents of a section of version 7, decompressed. */
async function readSection(
  reader: DatReader,
  found: Found,
  offset: number,
  wanted: number,
): Promise<Uint8Array> {
  reader.at = offset;
  const what = SECTION_NAMES[wanted] ?? `section ${wanted}`;
  const id = await reader.number(2, what);
  const flags = await reader.number(2, what);
  await reader.number(4, what);
  const size = await reader.number(8, what);
  if (id !== wanted) {
    throw new TracepointError(
      "corrupt",
      `A section of ${what.replace(/^the /, "")} (${wanted}) expected, one numbered ${id} found`,
      { offset },
    );
  }
  if ((flags & 1) === 0) return await reader.bytes(size, what);
  const packed = await reader.number(4, what);
  const unpacked = await reader.number(4, what);
  const at = reader.at;
  return unpack(await reader.bytes(packed, what), unpacked, found.compression, at);
}

/** An option of version 7, and the section that it says the place of. */
async function readPart(
  reader: DatReader,
  found: Found,
  id: number,
  data: Uint8Array,
): Promise<void> {
  if (id === SECTION.buffer) return readBuffer(reader, found, data);
  readOption(reader, found, id, data);
  if (data.length < 8) return;
  const offset = numberAt(data, 0, 8, reader.little);
  switch (id) {
    case SECTION.headerInfo:
      return await within(reader, found, offset, id, readHeaderInfo);
    case SECTION.ftraceFormats:
      return await within(reader, found, offset, id, readFtraceFormats);
    case SECTION.eventFormats:
      return await within(reader, found, offset, id, readEventFormats);
    case SECTION.tasks:
      return await within(reader, found, offset, id, readTasks);
    case SECTION.bufferText:
      found.ignored.push("The file also holds a text of the latency tracers, which is passed over");
  }
}

/** Reads a section of version 7 as if it were a file of its own. */
async function within(
  reader: DatReader,
  found: Found,
  offset: number,
  id: number,
  read: (reader: DatReader, found: Found) => Promise<void>,
): Promise<void> {
  const body = await readSection(reader, found, offset, id);
  const inner = new DatReader(memorySource(body));
  inner.little = reader.little;
  await read(inner, found);
}

/** The BUFFER option of version 7: the pages of one instance. */
function readBuffer(reader: DatReader, found: Found, data: Uint8Array): void {
  const broken = () =>
    new TracepointError("corrupt", "The description of the records is cut off", {
      offset: reader.at,
    });
  let at = 8;
  const name = data.subarray(at, data.indexOf(0, at));
  at += name.length + 1;
  const clockEnd = data.indexOf(0, at);
  if (at > data.length || clockEnd < 0) throw broken();
  if (name.length === 0) found.origin.clock = decoder.decode(data.subarray(at, clockEnd));
  at = clockEnd + 1;
  // Later writers put the page size before the number of CPUs; each CPU takes 20 bytes.
  let { pageSize } = found;
  if ((data.length - at) % 20 === 8) {
    pageSize = numberAt(data, at, 4, reader.little);
    checkPageSize(pageSize, reader.at);
    at += 4;
  }
  if (at + 4 > data.length) throw broken();
  const cpus = numberAt(data, at, 4, reader.little);
  at += 4;
  checkCpus(cpus, reader.at);
  if (at + cpus * 20 > data.length) throw broken();
  for (let i = 0; i < cpus; i++, at += 20) {
    found.cpus.push({
      cpu: numberAt(data, at, 4, reader.little),
      offset: numberAt(data, at + 4, 8, reader.little),
      size: numberAt(data, at + 12, 8, reader.little),
      pageSize,
    });
  }
}
