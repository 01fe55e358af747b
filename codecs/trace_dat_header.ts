/**
 * What a trace.dat says before and around its ring-buffer pages: byte order,
 * format files, thread names, options, and where the pages are. Versions 6 and
 * 7 (trace-cmd.dat.v6(5), trace-cmd.dat.v7(5)).
 *
 * @module
 */
import { type EventFormat, formatFields, parseEventFormat } from "./trace_dat_format.ts";
import { DatReader, numberAt, type TraceDatCompression, unpack } from "./trace_dat_reader.ts";
import { salvage } from "./trace_dat_salvage.ts";
import { memorySource, type TraceSource } from "./trace_file.ts";
import { TracepointError } from "./tracepoint_error.ts";

/** The pages of one CPU. */
export interface CpuData {
  /** The CPU. */
  readonly cpu: number;
  /** Where they begin in the file. */
  readonly offset: number;
  /** Their size in the file. */
  readonly size: number;
  /** Size of a page. */
  readonly pageSize: number;
}

/** A trace.dat without its records. */
export interface TraceDatHeader {
  /** 6 or 7. */
  readonly version: number;
  /** Whether numbers have their low byte first. */
  readonly little: boolean;
  /** How its parts are compressed. */
  readonly compression: TraceDatCompression;
  /** Size of the traced machine's pages. */
  readonly pageSize: number;
  /** Where a ring-buffer page has the length of its events. */
  readonly commitOffset: number;
  /** Size of that length: the kernel's long. */
  readonly commitSize: number;
  /** Where a ring-buffer page's events begin. */
  readonly dataOffset: number;
  /** The tracepoints it describes. */
  readonly formats: readonly EventFormat[];
  /** Names of threads. */
  readonly tasks: ReadonlyMap<number, string>;
  /** The pages, by CPU; a CPU may come more than once (several instances). */
  readonly cpus: readonly CpuData[];
  /** Where the text begins, when the file holds a text instead of pages. */
  readonly textOffset: number | undefined;
  /** Nanoseconds per unit of time stamps. */
  readonly scale: number;
  /** Nanoseconds to add to every time. */
  readonly shift: number;
  /** What else it says of itself, in its own words. */
  readonly origin: Readonly<Record<string, string | number>>;
  /** What is there and not taken into account. */
  readonly ignored: readonly string[];
  /** Why the table of CPUs could not be read, when their pages were found without it. */
  readonly cut: TracepointError | undefined;
}

const decoder = new TextDecoder();

/** What is found on the way. */
interface Found {
  version: number;
  compression: TraceDatCompression;
  pageSize: number;
  headerPage: string;
  formats: EventFormat[];
  tasks: Map<number, string>;
  cpus: CpuData[];
  textOffset: number | undefined;
  scale: number;
  shift: number;
  origin: Record<string, string | number>;
  ignored: string[];
  cut: TracepointError | undefined;
}

/**
 * Reads all of a trace.dat but its pages.
 *
 * @param access The file.
 * @throws {TracepointError} `truncated`, `corrupt`, `endianness`, `unsupported` or `compression`.
 */
export async function readTraceDatHeader(access: TraceSource): Promise<TraceDatHeader> {
  const reader = new DatReader(access);
  reader.at = 10;
  const version = Number(await reader.string(16, "the version"));
  const orderAt = reader.at;
  const order = await reader.number(1, "the byte order");
  if (order > 1) {
    throw new TracepointError("corrupt", `The byte order is ${order}, not 0 or 1`, {
      offset: orderAt,
    });
  }
  reader.little = order === 0;
  await reader.number(1, "the size of a long");
  const found: Found = {
    version,
    compression: "none",
    pageSize: await reader.number(4, "the page size"),
    headerPage: "",
    formats: [],
    tasks: new Map(),
    cpus: [],
    textOffset: undefined,
    scale: 1,
    shift: 0,
    origin: { version, endian: reader.little ? "little" : "big" },
    ignored: [],
    cut: undefined,
  };
  checkPageSize(found.pageSize, orderAt);
  if (version === 6) await readVersion6(reader, found);
  else if (version === 7) await readVersion7(reader, found);
  else {
    throw new TracepointError(
      "unsupported",
      `trace.dat version ${Number.isNaN(version) ? "that is no number" : version}: versions 6 ` +
        "and 7 can be read; `trace-cmd convert --file-version 7` may make one of it",
      { offset: 10 },
    );
  }
  const { headerPage, ...rest } = found;
  return { little: reader.little, ...rest, ...pageLayout(headerPage) };
}

function checkPageSize(size: number, orderAt: number): void {
  const sane = (n: number) => n >= 1024 && n <= 1 << 19 && (n & n - 1) === 0;
  if (sane(size)) return;
  const swapped = (size >>> 24 | size >>> 8 & 0xff00 | size << 8 & 0xff0000 | size << 24) >>> 0;
  throw sane(swapped)
    ? new TracepointError(
      "endianness",
      `The page size is ${size} in the byte order that the file claims, and ${swapped} in the ` +
        "other: the byte at this offset is wrong",
      { offset: orderAt },
    )
    : new TracepointError("corrupt", `A page size of ${size} cannot be`, { offset: orderAt + 2 });
}

function pageLayout(
  text: string,
): Pick<TraceDatHeader, "commitOffset" | "commitSize" | "dataOffset"> {
  const fields = formatFields(text);
  const commit = fields.find(({ name }) => name === "commit");
  const data = fields.find(({ name }) => name === "data");
  const commitOffset = commit?.offset ?? 8;
  const commitSize = commit?.size === 4 ? 4 : 8;
  const dataOffset = data?.offset ?? 16;
  if (commitOffset < 8 || commitOffset + commitSize > dataOffset || dataOffset > 256) {
    throw new TracepointError(
      "corrupt",
      `A ring-buffer page with its length at ${commitOffset} and its events at ${dataOffset} ` +
        "cannot be: the file's `header_page` is damaged",
      { offset: 0 },
    );
  }
  return { commitOffset, commitSize, dataOffset };
}

async function readVersion6(reader: DatReader, found: Found): Promise<void> {
  await readHeaderInfo(reader, found);
  await readFtraceFormats(reader, found);
  await readEventFormats(reader, found);
  await skipPart(reader, "kallsyms");
  await skipPart(reader, "the printk formats");
  await readTasks(reader, found);
  const cpus = await reader.number(4, "the number of CPUs");
  let mark = await fixedString(reader, 10);
  if (mark === "options") {
    for (;;) {
      const id = await reader.number(2, "an option");
      if (id === 0) break;
      const size = await reader.number(4, "the size of an option");
      await readOption(reader, found, id, await reader.bytes(size, "an option"), cpus);
    }
    mark = await fixedString(reader, 10);
  }
  if (mark === "latency") {
    found.textOffset = reader.at;
    return;
  }
  if (mark !== "flyrecord") {
    throw new TracepointError("corrupt", `\`flyrecord\` expected, \`${mark}\` found`, {
      offset: reader.at - 10,
    });
  }
  await readCpuTable(reader, found, cpus);
}

async function skipPart(reader: DatReader, what: string): Promise<void> {
  const size = await reader.number(4, `the size of ${what}`);
  reader.at += size;
}

async function fixedString(reader: DatReader, size: number): Promise<string> {
  const text = decoder.decode(await reader.bytes(size, "the mark before the records"));
  return text.replace(/[ \0]+$/, "");
}

async function readCpuTable(reader: DatReader, found: Found, cpus: number): Promise<void> {
  checkCpus(cpus, reader.at);
  for (let cpu = 0; cpu < cpus; cpu++) {
    const offset = await reader.number(8, "the place of a CPU's records");
    const size = await reader.number(8, "the size of a CPU's records");
    found.cpus.push({ cpu, offset, size, pageSize: found.pageSize });
  }
}

function checkCpus(cpus: number, offset: number): void {
  if (cpus > 0x10000) throw new TracepointError("corrupt", `${cpus} CPUs cannot be`, { offset });
}

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

async function readVersion7(reader: DatReader, found: Found): Promise<void> {
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
    await readOption(reader, found, id, data, 0);
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

const OPTION_NAMES: Readonly<Record<number, string>> = {
  4: "clock",
  5: "kernel",
  9: "writer",
};

async function readOption(
  reader: DatReader,
  found: Found,
  id: number,
  data: Uint8Array,
  cpus: number,
): Promise<void> {
  const text = () => decoder.decode(data).replace(/\0.*$/s, "").trim();
  switch (id) {
    case 2: {
      const lost = /overrun: (\d+)/.exec(text());
      const dropped = /dropped events: (\d+)/.exec(text());
      for (const [name, match] of [["overrun", lost], ["dropped", dropped]] as const) {
        if (match !== null) found.origin[name] = Number(found.origin[name] ?? 0) + Number(match[1]);
      }
      return;
    }
    case 3:
      return found.version === 6
        ? await readInstance(reader, found, data, cpus)
        : readBuffer(reader, found, data);
    case 4:
      found.origin.clock = /\[([^\]]+)\]/.exec(text())?.[1] ?? text();
      return;
    case 5:
    case 9:
      found.origin[OPTION_NAMES[id]!] = text();
      return;
    case 7:
      found.shift += Number(text()) || 0;
      return;
    case 8:
      if (data.length >= 4) found.origin.cpus = numberAt(data, 0, 4, reader.little);
      return;
    case 12:
      found.ignored.push("The file is of a guest, and its times are the guest's own (TIME_SHIFT)");
      return;
    case 14:
      if (data.length >= 8) {
        const multiplier = numberAt(data, 0, 4, reader.little);
        const shift = numberAt(data, 4, 4, reader.little);
        if (multiplier > 0 && shift < 64) found.scale = multiplier / 2 ** shift;
      }
      return;
  }
  if (found.version === 6 || data.length < 8) return;
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

/** The BUFFER option of version 6: another instance, with a table of its own. */
async function readInstance(
  reader: DatReader,
  found: Found,
  data: Uint8Array,
  cpus: number,
): Promise<void> {
  if (data.length < 8) return;
  const back = reader.at;
  reader.at = numberAt(data, 0, 8, reader.little);
  const mark = await fixedString(reader, 10);
  if (mark === "flyrecord") await readCpuTable(reader, found, cpus);
  else found.ignored.push("An instance whose records are no ring-buffer pages is passed over");
  reader.at = back;
}

async function readHeaderInfo(reader: DatReader, found: Found): Promise<void> {
  for (const wanted of ["header_page", "header_event"]) {
    const offset = reader.at;
    const name = await reader.string(32, "the name of a header");
    if (name !== wanted) {
      throw new TracepointError("corrupt", `\`${wanted}\` expected`, { offset });
    }
    const size = await reader.number(8, `the size of ${wanted}`);
    const text = decoder.decode(await reader.bytes(size, wanted));
    if (wanted === "header_page") found.headerPage = text;
  }
}

async function readFtraceFormats(reader: DatReader, found: Found): Promise<void> {
  const count = await reader.number(4, "the number of formats");
  for (let i = 0; i < count; i++) await readFormat(reader, found);
}

async function readEventFormats(reader: DatReader, found: Found): Promise<void> {
  const systems = await reader.number(4, "the number of subsystems");
  for (let i = 0; i < systems; i++) {
    await reader.string(256, "the name of a subsystem");
    const count = await reader.number(4, "the number of formats");
    for (let j = 0; j < count; j++) await readFormat(reader, found);
  }
}

async function readFormat(reader: DatReader, found: Found): Promise<void> {
  const size = await reader.number(8, "the size of a format");
  const format = parseEventFormat(decoder.decode(await reader.bytes(size, "a format")));
  if (format !== undefined && format.id <= 0xffff) found.formats.push(format);
}

async function readTasks(reader: DatReader, found: Found): Promise<void> {
  const size = await reader.number(8, "the size of the thread names");
  const text = decoder.decode(await reader.bytes(size, "the thread names"));
  for (const line of text.split("\n")) {
    const match = /^(\d+) (.*)$/.exec(line);
    if (match !== null) found.tasks.set(Number(match[1]), match[2]!);
  }
}
