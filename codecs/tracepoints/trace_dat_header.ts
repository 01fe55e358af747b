/**
 * What a trace.dat says before and around its ring-buffer pages: byte order,
 * format files, thread names, options, and where the pages are. Versions 6 and
 * 7 (trace-cmd.dat.v6(5), trace-cmd.dat.v7(5)).
 *
 * @module
 */
import { type EventFormat, formatFields } from "./trace_dat_format.ts";
import { checkPageSize, type CpuData, type Found } from "./trace_dat_parts.ts";
import { DatReader, type TraceDatCompression } from "./trace_dat_reader.ts";
import { readVersion6 } from "./trace_dat_v6.ts";
import { readVersion7 } from "./trace_dat_v7.ts";
import type { TraceSource } from "../container/trace_file.ts";
import { TracepointError } from "./error.ts";

export type { CpuData } from "./trace_dat_parts.ts";

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
