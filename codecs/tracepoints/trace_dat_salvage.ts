/**
 * Finds the records of a trace.dat of version 7 that is cut off before the
 * table that says where they are: they stand before it, in a section that can
 * be found by going from section to section.
 *
 * @module
 */
import type { DatReader, TraceDatCompression } from "./trace_dat_reader.ts";
import { TracepointError } from "./error.ts";

/** Where a CPU's records are, or seem to be. */
export interface Salvaged {
  /** The CPU, counted from 0: its number was in the table. */
  readonly cpu: number;
  /** Where its pages begin. */
  readonly offset: number;
  /** Their size; those that are cut off counted in. */
  readonly size: number;
}

const BUFFER_SECTION = 3;

/**
 * Looks for records.
 *
 * @param reader The file.
 * @param from Where a section begins.
 * @param pageSize Size of a page.
 * @param compression How the records are compressed.
 * @returns What was found; nothing when the file ends before any records.
 */
export async function salvage(
  reader: DatReader,
  from: number,
  pageSize: number,
  compression: TraceDatCompression,
): Promise<Salvaged[]> {
  const found: Salvaged[] = [];
  try {
    for (let at = from;;) {
      reader.at = at;
      const id = await reader.number(2, "a section");
      reader.at += 6;
      const size = await reader.number(8, "a section");
      const start = at + 16;
      if (id === BUFFER_SECTION) {
        const end = Math.min(start + size, reader.access.size);
        const first = aligned(start, pageSize);
        if (compression === "none") await byTime(reader, first, end, pageSize, found);
        else await byChunks(reader, first, end, pageSize, found);
      }
      at = start + size;
    }
  } catch (error) {
    if (!(error instanceof TracepointError)) throw error;
    return found;
  }
}

function aligned(at: number, pageSize: number): number {
  return Math.ceil(at / pageSize) * pageSize;
}

/** Plain pages: where time goes back, another CPU begins. */
async function byTime(
  reader: DatReader,
  first: number,
  end: number,
  pageSize: number,
  found: Salvaged[],
): Promise<void> {
  let begin = first, before = -1;
  const close = (at: number) => {
    if (at > begin) found.push({ cpu: found.length, offset: begin, size: at - begin });
    begin = at;
  };
  for (let at = first; at + 8 <= end; at += pageSize) {
    reader.at = at;
    const time = await reader.number(8, "a page");
    if (time < before) close(at);
    before = time;
  }
  // The last page may be cut off: the records before the cut are whole.
  close(begin + Math.ceil((end - begin) / pageSize) * pageSize);
}

/** Compressed pages: each CPU's chunks are counted. */
async function byChunks(
  reader: DatReader,
  first: number,
  end: number,
  pageSize: number,
  found: Salvaged[],
): Promise<void> {
  for (let at = first; at + 4 <= end;) {
    const begin = at;
    reader.at = at;
    const count = await reader.number(4, "the number of chunks");
    at += 4;
    for (let i = 0; i < count && at + 8 <= end; i++) {
      reader.at = at;
      at += 8 + await reader.number(4, "the size of a chunk");
    }
    found.push({ cpu: found.length, offset: begin, size: at - begin });
    at = aligned(at, pageSize);
  }
}
