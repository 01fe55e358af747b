/**
 * The parts that the versions 6 and 7 of trace.dat have in common: headers,
 * formats, thread names and options.
 *
 * @module
 */
import { type EventFormat, parseEventFormat } from "./trace_dat_format.ts";
import { type DatReader, numberAt, type TraceDatCompression } from "./trace_dat_reader.ts";
import { TracepointError } from "./error.ts";

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

/** What is found on the way. */
export interface Found {
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

const decoder = new TextDecoder();

/** Refuses a size that no page has; `orderAt` is where the byte order is said. */
export function checkPageSize(size: number, orderAt: number): void {
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

/** Refuses a number of CPUs that cannot be, before there is a loop over them. */
export function checkCpus(cpus: number, offset: number): void {
  if (cpus > 0x10000) throw new TracepointError("corrupt", `${cpus} CPUs cannot be`, { offset });
}

/** Reads the two headers that say what a ring-buffer page looks like. */
export async function readHeaderInfo(reader: DatReader, found: Found): Promise<void> {
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

/** Reads the formats of ftrace's own events. */
export async function readFtraceFormats(reader: DatReader, found: Found): Promise<void> {
  const count = await reader.number(4, "the number of formats");
  for (let i = 0; i < count; i++) await readFormat(reader, found);
}

/** Reads the formats of the tracepoints, by subsystem. */
export async function readEventFormats(reader: DatReader, found: Found): Promise<void> {
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

/** Reads the names of threads. */
export async function readTasks(reader: DatReader, found: Found): Promise<void> {
  const size = await reader.number(8, "the size of the thread names");
  const text = decoder.decode(await reader.bytes(size, "the thread names"));
  for (const line of text.split("\n")) {
    const match = /^(\d+) (.*)$/.exec(line);
    if (match !== null) found.tasks.set(Number(match[1]), match[2]!);
  }
}

const OPTION_NAMES: Readonly<Record<number, string>> = {
  5: "kernel",
  9: "writer",
};

/**
 * Takes in an option that both versions have in one form: those that are a fact by themselves, and
 * tell of no other place in the file.
 */
export function readOption(reader: DatReader, found: Found, id: number, data: Uint8Array): void {
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
  }
}
