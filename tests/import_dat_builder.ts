/**
 * Builds small trace.dat files of every shape that the reader has to take.
 *
 * @module
 */
import { deflateSync, zstdCompressSync } from "node:zlib";

/** One record to be written. */
export interface BuiltRecord {
  /** Name of the tracepoint, one of {@linkcode FORMATS}. */
  readonly name: string;
  /** Nanoseconds. */
  readonly time: number;
  /** Thread. */
  readonly pid: number;
  /** Values by field name. */
  readonly values: Readonly<Record<string, number | bigint | string>>;
}

/** Records of one CPU, and what was lost before some of them. */
export interface BuiltCpu {
  readonly cpu: number;
  readonly records: readonly BuiltRecord[];
  /** Lost before the record of that index, which then begins a page; -1 for an unknown number. */
  readonly lost?: Readonly<Record<number, number>>;
}

/** The file to be built. */
export interface BuiltFile {
  readonly version: 6 | 7;
  readonly little: boolean;
  readonly longSize: 4 | 8;
  readonly compression: "none" | "zstd" | "zlib";
  readonly cpus: readonly BuiltCpu[];
  /** How the time between two records is told. */
  readonly stamps?: "extend" | "absolute";
  /** Where the fields of a record begin: real kernels have moved them. */
  readonly shuffle?: boolean;
}

type Kind = readonly [name: string, type: string, size: 1 | 2 | 4 | 8];

/** Fields of the tracepoints, in the order of Linux 6.12. */
export const FORMATS: Readonly<Record<string, readonly Kind[]>> = {
  kvm_nested_vmenter: [
    ["rip", "__u64", 8],
    ["vmcb", "__u64", 8],
    ["nested_rip", "__u64", 8],
    ["int_ctl", "__u32", 4],
    ["event_inj", "__u32", 4],
    ["tdp_enabled", "bool", 1],
    ["guest_pgd", "__u64", 8],
    ["isa", "__u32", 4],
  ],
  kvm_nested_intercepts: [
    ["cr_read", "__u16", 2],
    ["cr_write", "__u16", 2],
    ["exceptions", "__u32", 4],
    ["intercept1", "__u32", 4],
    ["intercept2", "__u32", 4],
    ["intercept3", "__u32", 4],
  ],
  kvm_nested_vmexit: [
    ["exit_reason", "unsigned int", 4],
    ["guest_rip", "unsigned long", 8],
    ["isa", "u32", 4],
    ["info1", "u64", 8],
    ["info2", "u64", 8],
    ["intr_info", "u32", 4],
    ["error_code", "u32", 4],
    ["vcpu_id", "unsigned int", 4],
  ],
  kvm_nested_vmexit_inject: [
    ["exit_code", "__u32", 4],
    ["exit_info1", "__u64", 8],
    ["exit_info2", "__u64", 8],
    ["exit_int_info", "__u32", 4],
    ["exit_int_info_err", "__u32", 4],
    ["isa", "__u32", 4],
  ],
  kvm_nested_vmenter_failed: [["msg", "__data_loc char[]", 4], ["err", "u32", 4]],
  kvm_nested_intr_vmexit: [["rip", "__u64", 8]],
  sched_wakeup: [["comm", "char", 8], ["target_cpu", "int", 4]],
};

const NAMES = Object.keys(FORMATS);
const encoder = new TextEncoder();

class Bytes {
  readonly little: boolean;
  #bytes = new Uint8Array(1 << 16);
  length = 0;

  constructor(little: boolean) {
    this.little = little;
  }

  #room(size: number): void {
    if (this.length + size <= this.#bytes.length) return;
    const larger = new Uint8Array(Math.max(this.#bytes.length * 2, this.length + size));
    larger.set(this.#bytes);
    this.#bytes = larger;
  }

  uint(value: number | bigint, size: number): this {
    this.#room(size);
    this.put(this.length, value, size);
    this.length += size;
    return this;
  }

  put(at: number, value: number | bigint, size: number): void {
    let rest = BigInt(value);
    for (let i = 0; i < size; i++, rest >>= 8n) {
      this.#bytes[at + (this.little ? i : size - 1 - i)] = Number(rest & 0xffn);
    }
  }

  raw(bytes: Uint8Array): this {
    this.#room(bytes.length);
    this.#bytes.set(bytes, this.length);
    this.length += bytes.length;
    return this;
  }

  text(text: string): this {
    return this.raw(encoder.encode(text));
  }

  pad(to: number): this {
    this.#room(to);
    while (this.length < to) this.uint(0, 1);
    return this;
  }

  align(size: number): this {
    return this.pad(Math.ceil(this.length / size) * size);
  }

  done(): Uint8Array<ArrayBuffer> {
    return this.#bytes.slice(0, this.length);
  }
}

interface Placed {
  readonly name: string;
  readonly type: string;
  readonly size: number;
  readonly offset: number;
}

function placed(kinds: readonly Kind[], shuffle: boolean): { fields: Placed[]; size: number } {
  let at = 8;
  const fields = (shuffle ? kinds.toReversed() : kinds).map(([name, type, size]) => {
    at = Math.ceil(at / size) * size;
    const field = { name, type, size, offset: at };
    at += type === "char" ? 16 : size;
    return field;
  });
  return { fields, size: at };
}

const COMMON = [
  "\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;",
  "\tfield:unsigned char common_flags;\toffset:2;\tsize:1;\tsigned:0;",
  "\tfield:unsigned char common_preempt_count;\toffset:3;\tsize:1;\tsigned:0;",
  "\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;",
  "",
];

function formatText(name: string, shuffle: boolean): string {
  const lines = placed(FORMATS[name]!, shuffle).fields.map(({ name, type, offset, size }) =>
    type === "char"
      ? `\tfield:char ${name}[16];\toffset:${offset};\tsize:16;\tsigned:0;`
      : `\tfield:${type} ${name};\toffset:${offset};\tsize:${size};\tsigned:0;`
  );
  return [
    `name: ${name}`,
    `ID: ${100 + NAMES.indexOf(name)}`,
    "format:",
    ...COMMON,
    ...lines,
    "",
    "",
  ]
    .join("\n") + `print fmt: "..."\n`;
}

function recordBytes(record: BuiltRecord, little: boolean, shuffle: boolean): Uint8Array {
  const { fields, size } = placed(FORMATS[record.name]!, shuffle);
  const out = new Bytes(little);
  out.uint(100 + NAMES.indexOf(record.name), 2).uint(0, 2).uint(record.pid, 4).pad(size);
  for (const { name, type, size, offset } of fields) {
    const value = record.values[name] ?? 0;
    if (typeof value !== "string") out.put(offset, value, size);
    else if (type === "char") {
      [...encoder.encode(value)].forEach((byte, i) => out.put(offset + i, byte, 1));
    } else {
      const text = encoder.encode(value + "\0");
      out.put(offset, out.length | text.length << 16, 4);
      out.raw(text);
    }
  }
  return out.align(4).done();
}

const PAGE = 4096;

/** The ring-buffer pages of one CPU. */
function pages(file: BuiltFile, { records, lost = {} }: BuiltCpu): Uint8Array {
  const { little, longSize } = file;
  const all = new Bytes(little);
  const start = 8 + longSize;
  let page = new Bytes(little);
  let stamp = 0, first = 0, missed: number | undefined;
  const event = (type: number, delta: number) =>
    page.uint(little ? delta << 5 >>> 0 | type : type * 2 ** 27 + delta, 4);
  const flush = () => {
    if (page.length === 0) return;
    const length = page.length;
    // The number has to fit behind the events.
    const counted = missed !== undefined && missed >= 0 && start + length + longSize <= PAGE;
    let commit = BigInt(length);
    if (missed !== undefined) commit |= 0x80000000n;
    if (counted) commit |= 0x40000000n;
    const at = all.length;
    all.uint(first, 8).uint(commit, longSize).raw(page.done());
    if (counted) all.uint(missed!, longSize);
    all.pad(at + PAGE);
    page = new Bytes(little);
    missed = undefined;
  };
  records.forEach((record, index) => {
    const data = recordBytes(record, little, file.shuffle ?? false);
    if (lost[index] !== undefined || start + page.length + data.length + 16 + longSize > PAGE) {
      flush();
      missed = lost[index];
    }
    if (page.length === 0) {
      stamp = first = record.time;
      // Something that was discarded, and must be passed over.
      event(29, 0x10).uint(12, 4).uint(0, 8);
      stamp += 0x10;
    }
    let delta = record.time - stamp;
    if (delta < 0 || delta >= 2 ** 27) {
      if (file.stamps === "absolute" || delta < 0) {
        event(31, record.time % 2 ** 27).uint(Math.floor(record.time / 2 ** 27), 4);
      } else event(30, delta % 2 ** 27).uint(Math.floor(delta / 2 ** 27), 4);
      delta = 0;
    }
    stamp = record.time;
    if (data.length / 4 <= 28) event(data.length / 4, delta).raw(data);
    else event(0, delta).uint(data.length + 4, 4).raw(data);
  });
  flush();
  return all.done();
}

function pack(bytes: Uint8Array, how: BuiltFile["compression"]): Uint8Array {
  return how === "zlib" ? deflateSync(bytes) : zstdCompressSync(bytes);
}

/** Chunks of two pages, as the compressed form of a CPU's pages. */
function chunks(bytes: Uint8Array, file: BuiltFile): Uint8Array {
  if (file.compression === "none") return bytes;
  const out = new Bytes(file.little);
  const size = 2 * PAGE;
  out.uint(Math.ceil(bytes.length / size), 4);
  for (let at = 0; at < bytes.length; at += size) {
    const part = bytes.subarray(at, at + size);
    const packed = pack(part, file.compression);
    out.uint(packed.length, 4).uint(part.length, 4).raw(packed);
  }
  return out.done();
}

const TASKS = "7 qemu-system-x86\n8 CPU 0/KVM\n";

function headerInfo(file: BuiltFile): Uint8Array {
  const { longSize } = file;
  const page = "\tfield: u64 timestamp;\toffset:0;\tsize:8;\tsigned:0;\n" +
    `\tfield: local_t commit;\toffset:8;\tsize:${longSize};\tsigned:1;\n` +
    "\tfield: int overwrite;\toffset:8;\tsize:1;\tsigned:1;\n" +
    `\tfield: char data;\toffset:${8 + longSize};\tsize:${PAGE - 8 - longSize};\tsigned:0;\n`;
  const event = "# compressed entry header\n";
  return new Bytes(file.little).text("header_page\0").uint(page.length, 8).text(page)
    .text("header_event\0").uint(event.length, 8).text(event).done();
}

function formats(file: BuiltFile): Uint8Array {
  const out = new Bytes(file.little).uint(1, 4).text("kvm\0").uint(NAMES.length, 4);
  for (const name of NAMES) {
    const text = formatText(name, file.shuffle ?? false);
    out.uint(text.length, 8).text(text);
  }
  return out.done();
}

/** The bytes of a trace.dat. */
export function buildTraceDat(file: BuiltFile): Uint8Array<ArrayBuffer> {
  const out = new Bytes(file.little);
  out.raw(Uint8Array.of(0x17, 0x08, 0x44)).text(`tracing${file.version}\0`);
  out.uint(file.little ? 0 : 1, 1).uint(file.longSize, 1).uint(PAGE, 4);
  const data = file.cpus.map((cpu) => chunks(pages(file, cpu), file));
  if (file.version === 6) {
    out.raw(headerInfo(file)).uint(0, 4).raw(formats(file));
    out.uint(3, 4).text("abc").uint(2, 4).text("de").uint(TASKS.length, 8).text(TASKS);
    out.uint(file.cpus.length, 4).text("options  \0");
    out.uint(5, 2).uint(6, 4).text("Linux\0").uint(0, 2).text("flyrecord\0");
    const table = out.length;
    out.pad(table + 16 * file.cpus.length);
    data.forEach((bytes, i) => {
      out.align(PAGE);
      out.put(table + i * 16, out.length, 8);
      out.put(table + i * 16 + 8, bytes.length, 8);
      out.raw(bytes);
    });
    return out.done();
  }
  out.text(file.compression === "none" ? "none\0\0" : `${file.compression}\x001.0\0`);
  const optionsAt = out.length;
  out.uint(0, 8);
  const section = (id: number, body: Uint8Array, packed = file.compression !== "none") => {
    const at = out.length;
    const bytes = packed ? pack(body, file.compression) : body;
    out.uint(id, 2).uint(packed ? 1 : 0, 2).uint(0, 4).uint(bytes.length + (packed ? 8 : 0), 8);
    if (packed) out.uint(bytes.length, 4).uint(body.length, 4);
    out.raw(bytes);
    return at;
  };
  const sections = [
    [16, section(16, headerInfo(file))],
    [18, section(18, formats(file))],
    [21, section(21, new Bytes(file.little).uint(TASKS.length, 8).text(TASKS).done())],
  ] as const;
  const options = new Bytes(file.little);
  for (const [id, at] of sections) options.uint(id, 2).uint(8, 4).uint(at, 8);
  options.uint(5, 2).uint(6, 4).text("Linux\0").uint(0, 2).uint(8, 4);
  const nextAt = options.length;
  options.uint(0, 8);
  out.put(optionsAt, out.length, 8);
  const first = section(0, options.done(), false);
  const cpus = new Bytes(file.little);
  const bufferAt = out.length;
  out.uint(3, 2).uint(file.compression === "none" ? 0 : 1, 2).uint(0, 4).uint(0, 8);
  data.forEach((bytes, i) => {
    out.align(PAGE);
    cpus.uint(file.cpus[i]!.cpu, 4).uint(out.length, 8).uint(bytes.length, 8);
    out.raw(bytes);
  });
  out.put(bufferAt + 8, out.length - bufferAt - 16, 8);
  const buffer = new Bytes(file.little).uint(bufferAt, 8).text("\0local\0").uint(PAGE, 4)
    .uint(data.length, 4).raw(cpus.done()).done();
  const last = new Bytes(file.little).uint(3, 2).uint(buffer.length, 4).raw(buffer)
    .uint(0, 2).uint(8, 4).uint(0, 8).done();
  out.put(first + 16 + nextAt, out.length, 8);
  section(0, last, false);
  return out.done();
}
