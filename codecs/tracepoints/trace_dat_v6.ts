/**
 * Version 6 of trace.dat (trace-cmd.dat.v6(5)): its parts follow each other,
 * and a table at their end says where the pages are.
 *
 * @module
 */
import {
  checkCpus,
  type Found,
  readEventFormats,
  readFtraceFormats,
  readHeaderInfo,
  readOption,
  readTasks,
} from "./trace_dat_parts.ts";
import { type DatReader, numberAt } from "./trace_dat_reader.ts";
import { TracepointError } from "./error.ts";

/** The option that another instance comes with. */
const BUFFER = 3;

const decoder = new TextDecoder();

/** Reads what follows the page size in version 6: one part after another. */
export async function readVersion6(reader: DatReader, found: Found): Promise<void> {
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
      const data = await reader.bytes(size, "an option");
      if (id === BUFFER) await readInstance(reader, found, data, cpus);
      else readOption(reader, found, id, data);
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
