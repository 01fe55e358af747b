/**
 * Reads the records of a trace.dat, all CPUs merged by time. Memory does not
 * grow with the file: of each CPU a few pages are held.
 *
 * @module
 */
import { KvmRecord, type RecordSink } from "./kvm_record.ts";
import { RecordPlan } from "./trace_dat_format.ts";
import { type CpuData, readTraceDatHeader, type TraceDatHeader } from "./trace_dat_header.ts";
import { unpack } from "./trace_dat_reader.ts";
import { CpuRecords, type NextPages } from "./trace_dat_ring.ts";
import type { TraceSource } from "../container/trace_file.ts";
import { TracepointError } from "./error.ts";
import { noteIssue, type TracepointStats } from "./stats.ts";

/** Bytes of pages held of one CPU, with few CPUs and with many. */
const FEW_CPUS = 16, HELD = 1 << 18, HELD_OF_MANY = 1 << 15;

/** Records handed on between two pauses. */
const RECORDS_A_STEP = 4096;

/** Reads one file. */
export class TraceDat {
  /** What the file says before its records. */
  readonly header: TraceDatHeader;
  readonly #access: TraceSource;
  readonly #stats: TracepointStats;
  readonly #sink: RecordSink;
  readonly #every: boolean;
  readonly #plans: (RecordPlan | undefined)[] = [];
  readonly #counts = new Float64Array(0x10000);
  readonly #record = new KvmRecord();
  #broken: { offset?: number; what: string } | undefined;
  #cut: { offset: number; cpu: number } | undefined;
  #records = 0;

  private constructor(
    access: TraceSource,
    header: TraceDatHeader,
    sink: RecordSink,
    stats: TracepointStats,
    every: boolean,
  ) {
    this.#access = access;
    this.header = header;
    this.#sink = sink;
    this.#stats = stats;
    this.#every = every;
    stats.form = "trace.dat";
    Object.assign(stats.origin, header.origin);
    stats.resolution = Math.max(1, header.scale);
    for (const what of header.ignored) noteIssue(stats, { what });
    this.#plan();
  }

  /**
   * Reads all but the records.
   *
   * @param access The file.
   * @param sink Receives the records.
   * @param stats Counts them.
   * @param every Whether tracepoints that KVM's table does not have are wanted too.
   * @throws {TracepointError} When its header cannot be read.
   */
  static async open(
    access: TraceSource,
    sink: RecordSink,
    stats: TracepointStats,
    every: boolean,
  ): Promise<TraceDat> {
    return new TraceDat(access, await readTraceDatHeader(access), sink, stats, every);
  }

  #plan(): void {
    for (const format of this.header.formats) {
      const plan = new RecordPlan(format);
      if (plan.tracepoint === undefined && !this.#every) continue;
      if (plan.missing.length > 0) {
        const what = `The format of ${plan.name} has no field for ${plan.missing.join(", ")}`;
        noteIssue(this.#stats, { what });
      } else this.#plans[format.id] = plan;
    }
  }

  /**
   * Hands all records to the sink, a few thousand between two pauses.
   *
   * @throws {TracepointError} `truncated` or `corrupt`, after all records that could be read.
   */
  async *steps(): AsyncGenerator<void> {
    const held = this.header.cpus.length <= FEW_CPUS ? HELD : HELD_OF_MANY;
    let all: CpuRecords[] = [];
    for (const data of this.header.cpus) {
      const cpu = this.#open(data, held);
      if (await advance(cpu)) all.push(cpu);
    }
    let budget = RECORDS_A_STEP;
    while (all.length > 0) {
      // The earliest goes on until another one is earlier.
      let first = all[0]!, limit = Infinity;
      for (let i = 1; i < all.length; i++) {
        const cpu = all[i]!;
        if (cpu.time < first.time) {
          limit = first.time;
          first = cpu;
        } else if (cpu.time < limit) limit = cpu.time;
      }
      let more = true;
      do {
        this.#handOn(first);
        more = first.next();
      } while (more && --budget > 0 && first.time <= limit);
      if (!more && !await advance(first)) all = all.filter((cpu) => cpu !== first);
      if (!more || budget <= 0) {
        yield;
        budget = RECORDS_A_STEP;
      }
    }
    this.#finish();
  }

  #open(data: CpuData, held: number): CpuRecords {
    const { header } = this;
    const layout = {
      little: header.little,
      pageSize: data.pageSize,
      commitOffset: header.commitOffset,
      commitSize: header.commitSize,
      dataOffset: header.dataOffset,
      scale: header.scale,
      shift: header.shift,
    };
    const pages = header.compression === "none" ? this.#plain(data, held) : this.#packed(data);
    return new CpuRecords(data.cpu, layout, this.#plans, this.#counts, pages, (issue) => {
      this.#broken ??= issue;
      this.#stats.malformed++;
      noteIssue(this.#stats, issue);
    });
  }

  #handOn(cpu: CpuRecords): void {
    if (cpu.isLost) {
      this.#sink.lost(cpu.cpu, cpu.lost < 0 ? undefined : cpu.lost, cpu.time);
      cpu.isLost = false;
      cpu.lost = 0;
    }
    const record = this.#record;
    if (!cpu.read(record)) return;
    record.task = this.header.tasks.get(record.pid) ?? (record.pid === 0 ? "<idle>" : "<...>");
    this.#records++;
    this.#sink.record(record);
  }

  /** Pages as they are in the file. */
  #plain({ cpu, offset, size, pageSize }: CpuData, held: number): NextPages {
    const most = Math.max(pageSize, held - held % pageSize);
    let at = offset;
    const end = offset + size;
    return async () => {
      const want = Math.min(most, end - at);
      if (want <= 0) return undefined;
      const bytes = await this.#access.readAt(at, want);
      if (bytes.length < want) this.#cut ??= { offset: at + bytes.length, cpu };
      if (bytes.length === 0) return undefined;
      const found = { bytes, offset: at };
      at = bytes.length < want ? end : at + want;
      this.#stats.bytes += bytes.length;
      return found;
    };
  }

  /** Pages in chunks, each compressed on its own: u32 number of chunks, then u32 size, u32 size before, bytes. */
  #packed({ cpu, offset, size }: CpuData): NextPages {
    let at = offset, left = -1;
    const { little, compression } = this.header;
    const words = async (count: number) => {
      const bytes = await this.#access.readAt(at, count * 4);
      return bytes.length < count * 4 ? undefined : new DataView(bytes.buffer, bytes.byteOffset);
    };
    const cut = (offset: number) => {
      this.#cut ??= { offset, cpu };
      return undefined;
    };
    return async () => {
      if (size === 0) return undefined;
      if (left < 0) {
        const view = await words(1);
        if (view === undefined) return cut(at);
        left = view.getUint32(0, little);
        at += 4;
      }
      if (left-- === 0) return undefined;
      const view = await words(2);
      if (view === undefined) return cut(at);
      const packed = view.getUint32(0, little), unpacked = view.getUint32(4, little);
      if (packed > offset + size - at) {
        left = 0;
        const what = `A compressed chunk of ${packed} bytes is longer than its CPU's part`;
        this.#broken ??= { offset: at, what };
        this.#stats.malformed++;
        noteIssue(this.#stats, { offset: at, what });
        return undefined;
      }
      const from = at + 8;
      const bytes = await this.#access.readAt(from, packed);
      if (bytes.length < packed) return cut(from + bytes.length);
      at = from + packed;
      this.#stats.bytes += packed + 8;
      try {
        return { bytes: unpack(bytes, unpacked, compression, from), offset: from };
      } catch (error) {
        if (!(error instanceof TracepointError)) throw error;
        this.#broken ??= { offset: from, what: error.message };
        this.#stats.malformed++;
        noteIssue(this.#stats, { offset: from, what: error.message });
        return { bytes: new Uint8Array(0), offset: from };
      }
    };
  }

  #finish(): void {
    for (const { id, name } of this.header.formats) {
      const count = this.#counts[id]!;
      if (count > 0 && this.#plans[id] === undefined) {
        this.#stats.others[name] = (this.#stats.others[name] ?? 0) + count;
        this.#stats.skipped += count;
      }
    }
    const { cut } = this.header;
    if (cut !== undefined) {
      throw new TracepointError(
        "truncated",
        "The file ends within its records; what was before the end is imported, its CPUs " +
          "numbered in the order they come, since their table is missing",
        { offset: cut.offset ?? 0, cause: cut },
      );
    }
    if (this.#cut !== undefined) {
      throw new TracepointError(
        "truncated",
        `The file ends within the records of CPU ${this.#cut.cpu}; what was before it is imported`,
        { offset: this.#cut.offset },
      );
    }
    if (this.#records === 0 && this.#broken !== undefined) {
      const { offset, what } = this.#broken;
      throw new TracepointError(
        "corrupt",
        `No record could be read; the first thing wrong: ${what}`,
        offset === undefined ? {} : { offset },
      );
    }
  }
}

/** Goes to the next record, getting pages as needed; whether there is one. */
async function advance(cpu: CpuRecords): Promise<boolean> {
  while (!cpu.next()) {
    await cpu.refill();
    if (cpu.ended) return false;
  }
  return true;
}
