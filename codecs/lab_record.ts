/**
 * The lab's records: one JSON object a line, what a real kernel did with one
 * case. Types, a validating reader and a printer in the lab's key order.
 *
 * @module
 */

/** Non-zero 8-byte words by offset: three hexadecimal digits to sixteen. */
export type WordMap = Readonly<Record<string, string>>;

/** Keys of `nested` in the lab's order. */
export const NESTED_KEYS = [
  "ret",
  "guest_mode",
  "active",
  "vmcb12_gpa",
  "last_vmcb12_gpa",
  "ctl_ncr3",
  "run_pending",
  "gif",
  "mmu",
  "walk",
  "msrpm01",
  "msrpm02",
  "msrpm_recalc",
] as const;

/** Keys of `cpu` in the lab's order. */
export const CPU_KEYS = [
  "cr0",
  "cr3",
  "cr4",
  "efer",
  "rip",
  "rax",
  "rsp",
  "rflags",
  "cpu_role",
  "root_role",
  "gcpu_role",
  "groot_role",
  "ncpu_role",
  "req",
  "exc_pend",
  "exc_inj",
  "exc_vec",
  "int_inj",
  "nmi_inj",
  "nmi_l1l2",
  "soft",
  "hflags",
] as const;

/** Word maps of an inner state in the lab's order: control and save areas of vmcb01 and vmcb02. */
export const AREA_KEYS = ["ctl01", "sav01", "ctl02", "sav02"] as const;

/** Keys of `pre`, `mid`, `smm` and `post` that hold hexadecimal numbers, in the lab's order. */
export const STATE_HEX_KEYS = [
  "rip",
  "rax",
  "rsp",
  "rflags",
  "cr0",
  "cr2",
  "cr3",
  "cr4",
  "efer",
  "dr6",
  "dr7",
] as const;

/** Keys of the same that hold plain numbers. */
export const STATE_FLAG_KEYS = ["gif", "guest_mode", "run_pending", "smm", "trip"] as const;

/** The points of a case at which userspace looked, in order. */
export const PHASES = ["pre", "mid", "smm", "post"] as const;

/** One of {@linkcode PHASES}. */
export type Phase = typeof PHASES[number];

/** What userspace saw at one point of a case. Numbers in text are hexadecimal unless said otherwise. */
export interface LabState
  extends
    Partial<Readonly<Record<typeof STATE_HEX_KEYS[number], string>>>,
    Partial<Readonly<Record<typeof STATE_FLAG_KEYS[number], number>>> {
  /** CS: selector (hexadecimal), L, DB. */
  readonly cs?: string;
  /** SS selector. */
  readonly ss?: string;
  /** Address of vmcb12 while in guest mode. */
  readonly vmcb_pa?: string;
  /** Exception: injected, pending, vector (hexadecimal), error code (hexadecimal). */
  readonly ev_exc?: string;
  /** Interrupt: injected, vector (decimal). */
  readonly ev_int?: string;
  /** NMI: injected, pending, masked. */
  readonly ev_nmi?: string;
  /** Return value of KVM_RUN. */
  readonly rc?: number;
  /** errno of KVM_RUN. */
  readonly errno?: number;
  /** KVM_EXIT_* reason. */
  readonly exit?: number;
  /** I/O port of a KVM_EXIT_IO. */
  readonly port?: string;
  /** vmcb12 in memory. */
  readonly vmcb12?: WordMap;
  /** Host save area in memory. */
  readonly hsave?: WordMap;
  /** SMRAM state save area. */
  readonly smram?: WordMap;
  /** Names of ioctls that failed while the case was set up, with their errno (decimal). */
  readonly setup_errors?: Readonly<Record<string, string>>;
}

/** State inside the kernel as one of its functions returned. */
export interface LabInner {
  /** The function: vmrun, vmexit, rsm or setstate. */
  readonly at: string;
  /** Nested bookkeeping. */
  readonly nested: Readonly<Partial<Record<typeof NESTED_KEYS[number], string>>>;
  /** vCPU state. */
  readonly cpu?: Readonly<Partial<Record<typeof CPU_KEYS[number], string>>>;
  /** vmcb01's control area. */
  readonly ctl01?: WordMap;
  /** vmcb01's save area, offsets within it. */
  readonly sav01?: WordMap;
  /** vmcb02's control area. */
  readonly ctl02?: WordMap;
  /** vmcb02's save area, offsets within it. */
  readonly sav02?: WordMap;
}

/** One of the things a kernel reported during a case. */
export type LabEvent =
  | { readonly check_failed: string }
  | { readonly warn: string }
  | { readonly tracepoint: string; readonly text: string }
  | LabInner;

/** What one kernel did with one case. */
export interface LabRecord {
  /** Name of the case. */
  readonly case: string;
  /** Its changes, as written. */
  readonly spec: string;
  /** The kernel, or the policy of a prediction. */
  readonly kernel: string;
  /** 1 with nested paging, 0 with shadow paging. */
  readonly npt: number;
  /** True when the source sees less than the lab does: what is absent is then unknown, and `events` is empty for that. */
  readonly partial?: boolean;
  /** What of `events` the source can see: check, warn, inner; all of them when left out, unless `partial`. */
  readonly sees?: readonly string[];
  /** With `entry=rsm`, of a source that knows it: how many of `events` came before userspace looked. */
  readonly looked?: { readonly mid?: number; readonly smm?: number };
  /** What was reported, in order. */
  readonly events: readonly LabEvent[];
  /** Before the run. */
  readonly pre?: LabState;
  /** With `entry=rsm`: when L2 stopped at its port write. */
  readonly mid?: LabState;
  /** With `entry=rsm`: in the SMI handler. */
  readonly smm?: LabState;
  /** With `entry=setstate`: errno of the ioctls. */
  readonly setstate?: { readonly sregs_errno: number; readonly errno: number };
  /** After the run. */
  readonly post?: LabState;
  /** Lines of the console that look like a kernel warning. */
  readonly warnings?: readonly string[];
}

/**
 * A record that is not one, or holds what cannot be.
 *
 * @example
 * ```ts
 * import { LabRecordError, parseLabRecord } from "@vmtape/vmtape/codecs";
 * try {
 *   parseLabRecord('{"case": 1}', { line: 7 });
 * } catch (error) {
 *   if (!(error instanceof LabRecordError) || error.line !== 7) throw error;
 * }
 * ```
 */
export class LabRecordError extends Error {
  /** `LabRecordError`. */
  override readonly name = "LabRecordError";
  /** Name of the file, when there is one. */
  readonly file: string | undefined;
  /** Line, from 1. */
  readonly line: number;
  /** Path of the field within the record, such as `post.rip`; empty when it is the whole line. */
  readonly field: string;

  /**
   * Says what is wrong, and where.
   *
   * @param what What is wrong.
   * @param where The file, the line and the field.
   * @param options The cause.
   */
  constructor(
    what: string,
    where: { readonly file?: string | undefined; readonly line: number; readonly field?: string },
    options?: ErrorOptions,
  ) {
    const place = where.file === undefined ? `Line ${where.line}` : `${where.file}:${where.line}`;
    super(`${place}: ${what}`, options);
    this.file = where.file;
    this.line = where.line;
    this.field = where.field ?? "";
  }
}

/** Where a line comes from, for messages. */
export interface LabSource {
  /** Name of the file. */
  readonly file?: string;
  /** Line in it, from 1. */
  readonly line?: number;
}

type Json = Readonly<Record<string, unknown>>;
type Bad = (field: string, expected: string) => never;

/**
 * Reads one record.
 *
 * Fields that the lab does not print are kept as they are.
 *
 * @param text One line of NDJSON.
 * @param source Where it comes from, for messages.
 * @returns The record.
 * @throws {LabRecordError} When the line is not JSON, a field is missing or has the wrong form.
 * @example
 * ```ts
 * import { parseLabRecord } from "@vmtape/vmtape/codecs";
 * const record = parseLabRecord('{"case":"ok","spec":"","kernel":"unified","npt":1,"events":[]}');
 * if (record.kernel !== "unified") throw new Error();
 * ```
 */
export function parseLabRecord(text: string, source: LabSource = {}): LabRecord {
  const where = { file: source.file, line: source.line ?? 1 };
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new LabRecordError(`Not JSON (${why}); expected one of the lab's records a line`, where, {
      cause,
    });
  }
  const bad: Bad = (field, expected) => {
    throw new LabRecordError(
      field === ""
        ? `Not a record of the lab; expected ${expected}`
        : `Field ${field}: expected ${expected}`,
      { ...where, field },
    );
  };
  checkRecord(value, bad);
  const record = value as LabRecord;
  sources.set(record, where);
  return record;
}

const sources = new WeakMap<LabRecord, { file: string | undefined; line: number }>();

/**
 * Where a record was read from.
 *
 * @param record A record.
 * @returns Its file and line; `undefined` when it was not read by {@linkcode parseLabRecord}.
 * @example
 * ```ts
 * import { parseLabRecord, sourceOf } from "@vmtape/vmtape/codecs";
 * const text = '{"case":"ok","spec":"","kernel":"unified","npt":1,"events":[]}';
 * if (sourceOf(parseLabRecord(text, { line: 7 }))?.line !== 7) throw new Error();
 * ```
 */
export function sourceOf(
  record: LabRecord,
): { readonly file: string | undefined; readonly line: number } | undefined {
  return sources.get(record);
}

function checkRecord(value: unknown, bad: Bad): void {
  if (!isMap(value)) return bad("", "a JSON object");
  for (const key of ["case", "spec", "kernel"]) {
    if (typeof value[key] !== "string") bad(key, "text");
  }
  if (value.npt !== 0 && value.npt !== 1) bad("npt", "0 or 1");
  if (value.partial !== undefined && typeof value.partial !== "boolean") bad("partial", "true");
  if (value.sees !== undefined && !isTexts(value.sees)) bad("sees", "a list of texts");
  if (value.looked !== undefined) {
    if (!isMap(value.looked)) return bad("looked", "an object");
    checkInts(value.looked, ["mid", "smm"], "looked", bad);
  }
  if (!Array.isArray(value.events)) return bad("events", "a list");
  value.events.forEach((event: unknown, i) => checkEvent(event, `events[${i}]`, bad));
  for (const phase of PHASES) {
    if (value[phase] !== undefined) checkState(value[phase], phase, bad);
  }
  if (value.setstate !== undefined) {
    if (!isMap(value.setstate)) return bad("setstate", "an object");
    checkInts(value.setstate, ["sregs_errno", "errno"], "setstate", bad, true);
  }
  if (value.warnings !== undefined && !isTexts(value.warnings)) bad("warnings", "a list of texts");
}

function checkEvent(event: unknown, path: string, bad: Bad): void {
  if (!isMap(event)) return bad(path, "an object");
  if ("at" in event) return checkInner(event, path, bad);
  const key = ["check_failed", "warn", "tracepoint"].find((k) => k in event);
  if (key === undefined) return bad(path, "check_failed, warn, tracepoint or at");
  if (typeof event[key] !== "string") bad(`${path}.${key}`, "text");
  if (key === "tracepoint" && typeof event.text !== "string") bad(`${path}.text`, "text");
}

const NAME = [/^[0-9a-z]{1,16}$/, "a name such as root"] as const;

/** Keys of inner states that are not lower-case hexadecimal numbers. */
const INNER_FORMS: Readonly<Record<string, readonly [RegExp, string]>> = {
  ret: [/^(0|-?[1-9]\d{0,9})$/, "a decimal number"],
  active: NAME,
  mmu: NAME,
  walk: NAME,
  msrpm01: NAME,
  msrpm02: NAME,
  exc_vec: [/^(0|[1-9]\d{0,2})$/, "a decimal vector"],
};

const HEX = /^(0|[1-9a-f][0-9a-f]{0,15})$/;
const HEX_FORM = "a lower-case hexadecimal number in text, without leading zeros";

function checkInner(event: Json, path: string, bad: Bad): void {
  if (typeof event.at !== "string") bad(`${path}.at`, "text");
  const part = (name: string, keys: readonly string[]) => {
    const map = event[name];
    if (!isMap(map)) return bad(`${path}.${name}`, "an object");
    for (const key of keys) {
      const text = map[key];
      if (text === undefined) continue;
      const [form, expected] = INNER_FORMS[key] ?? [HEX, HEX_FORM];
      if (typeof text !== "string" || !form.test(text)) bad(`${path}.${name}.${key}`, expected);
    }
  };
  part("nested", NESTED_KEYS);
  if (event.cpu !== undefined) part("cpu", CPU_KEYS);
  for (const key of AREA_KEYS) {
    if (event[key] !== undefined) {
      checkWords(event[key], key.startsWith("ctl") ? 0x400 : 0xc00, `${path}.${key}`, bad);
    }
  }
}

const STATE_FORMS: Readonly<Record<string, readonly [RegExp, string]>> = {
  cs: [/^(0|[1-9a-f][0-9a-f]{0,3})\/[01]\/[01]$/, "selector/L/DB"],
  ss: [HEX, HEX_FORM],
  port: [HEX, HEX_FORM],
  vmcb_pa: [HEX, HEX_FORM],
  ev_exc: [
    /^(0|[1-9]\d{0,2})\/(0|[1-9]\d{0,2})\/(0|[1-9a-f][0-9a-f]?)\/(0|[1-9a-f][0-9a-f]{0,7})$/,
    "injected/pending/vector/error",
  ],
  ev_int: [/^(0|[1-9]\d{0,2})\/(0|[1-9]\d{0,2})$/, "injected/vector"],
  ev_nmi: [/^(0|[1-9]\d{0,2})\/(0|[1-9]\d{0,2})\/(0|[1-9]\d{0,2})$/, "injected/pending/masked"],
};

function checkState(state: unknown, path: string, bad: Bad): void {
  if (!isMap(state)) return bad(path, "an object");
  for (const key of STATE_HEX_KEYS) {
    const text = state[key];
    if (text !== undefined && (typeof text !== "string" || !HEX.test(text))) {
      bad(`${path}.${key}`, HEX_FORM);
    }
  }
  for (const [key, [form, expected]] of Object.entries(STATE_FORMS)) {
    const text = state[key];
    if (text !== undefined && (typeof text !== "string" || !form.test(text))) {
      bad(`${path}.${key}`, expected);
    }
  }
  checkInts(state, [...STATE_FLAG_KEYS, "rc", "errno", "exit"], path, bad);
  for (const key of ["vmcb12", "hsave", "smram"]) {
    if (state[key] !== undefined) {
      checkWords(state[key], key === "smram" ? 0x200 : 0x1000, `${path}.${key}`, bad);
    }
  }
  const errors = state.setup_errors;
  if (errors !== undefined && !(isMap(errors) && isTexts(Object.values(errors)))) {
    bad(`${path}.setup_errors`, "texts by name");
  }
}

const MAX_INT = 0x7fffffff;

function checkInts(
  map: Json,
  keys: readonly string[],
  path: string,
  bad: Bad,
  required = false,
): void {
  for (const key of keys) {
    const value = map[key];
    if (value === undefined && !required) continue;
    const least = key === "rc" ? -0x80000000 : 0;
    if (typeof value !== "number" || !Number.isInteger(value) || value < least || value > MAX_INT) {
      bad(`${path}.${key}`, least < 0 ? "an integer" : "an integer that is not negative");
    }
  }
}

function checkWords(words: unknown, size: number, path: string, bad: Bad): void {
  if (!isMap(words)) return bad(path, "words by offset");
  for (const [key, word] of Object.entries(words)) {
    const offset = /^[0-9a-f]{3}$/.test(key) ? parseInt(key, 16) : NaN;
    if (!(offset < size && offset % 8 === 0)) {
      bad(`${path}.${key}`, `an offset below ${size.toString(16)}, three digits, a multiple of 8`);
    }
    if (typeof word !== "string" || !/^[0-9a-f]{16}$/.test(word)) {
      bad(`${path}.${key}`, "sixteen lower-case hexadecimal digits");
    }
  }
}

function isMap(value: unknown): value is Json {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isTexts(value: unknown): boolean {
  return Array.isArray(value) && value.every((text) => typeof text === "string");
}

/** Keys of a record in the lab's order; of the rest the order is kept. */
const RECORD_KEYS = [
  "case",
  "spec",
  "kernel",
  "npt",
  "partial",
  "sees",
  "looked",
  "events",
  "pre",
  "mid",
  "smm",
  "setstate",
  "post",
  "warnings",
];
const STATE_KEYS = [
  ...STATE_HEX_KEYS,
  "cs",
  "ss",
  ...STATE_FLAG_KEYS,
  "vmcb_pa",
  "ev_exc",
  "ev_int",
  "ev_nmi",
  "rc",
  "errno",
  "exit",
  "port",
  "vmcb12",
  "hsave",
  "smram",
  "setup_errors",
];
const INNER_KEYS = ["at", "nested", "cpu", ...AREA_KEYS];

/**
 * Prints a record as one line, keys in the lab's order.
 *
 * @param record The record.
 * @returns JSON without a line break.
 * @example
 * ```ts
 * import { formatLabRecord } from "@vmtape/vmtape/codecs";
 * const line = formatLabRecord({ events: [], npt: 1, kernel: "unified", spec: "", case: "ok" });
 * if (!line.startsWith('{"case":"ok"')) throw new Error();
 * ```
 */
export function formatLabRecord(record: LabRecord): string {
  const out = inOrder(record, RECORD_KEYS);
  out.events = record.events.map((event) => {
    if (!("at" in event)) return event;
    const inner = inOrder(event, INNER_KEYS);
    inner.nested = inOrder(event.nested, NESTED_KEYS);
    if (event.cpu) inner.cpu = inOrder(event.cpu, CPU_KEYS);
    return inner;
  });
  for (const phase of PHASES) {
    if (record[phase]) out[phase] = inOrder(record[phase], STATE_KEYS);
  }
  return print(out, "");
}

const WORDS_KEYS: ReadonlySet<string> = new Set([...AREA_KEYS, "vmcb12", "hsave", "smram"]);

/** As JSON.stringify, but words by offset: an object would put 148 before 000. */
function print(value: unknown, key: string): string {
  if (Array.isArray(value)) return `[${value.map((item) => print(item, "")).join()}]`;
  if (!isMap(value)) return JSON.stringify(value);
  const keys = Object.keys(value).filter((name) => value[name] !== undefined);
  if (WORDS_KEYS.has(key)) keys.sort();
  return `{${keys.map((name) => `${JSON.stringify(name)}:${print(value[name], name)}`).join()}}`;
}

function inOrder(map: object, keys: readonly string[]): Record<string, unknown> {
  const out: Record<string, unknown> = {};
  const from = map as Json;
  for (const key of keys) if (from[key] !== undefined) out[key] = from[key];
  return Object.assign(out, map);
}

/** Longest line a record may take, in characters. */
const MAX_LINE = 1 << 24;

/**
 * Reads records from a stream of NDJSON, plain or compressed with gzip.
 *
 * @param stream The bytes.
 * @param source Name of the file, for messages.
 * @returns The records in order. Blank lines are skipped; memory does not grow with the file.
 * @throws {LabRecordError} At the first line that is not a record, a line of more than 16 MiB, or damaged compression.
 * @example
 * ```ts
 * import { readLabRecords } from "@vmtape/vmtape/codecs";
 * const text = '{"case":"ok","spec":"","kernel":"unified","npt":1,"events":[]}\n';
 * const names = [];
 * for await (const record of readLabRecords(new Blob([text]).stream())) names.push(record.case);
 * if (names.join() !== "ok") throw new Error();
 * ```
 */
export async function* readLabRecords(
  stream: ReadableStream<Uint8Array>,
  source: { readonly file?: string } = {},
): AsyncGenerator<LabRecord> {
  let line = 0;
  let rest = "";
  const decoder = new TextDecoder();
  try {
    for await (const chunk of await plain(stream)) {
      rest += decoder.decode(chunk, { stream: true });
      const lines = rest.split("\n");
      rest = lines.pop()!;
      for (const text of lines) {
        line++;
        if (text.trim() !== "") yield parseLabRecord(text, { ...source, line });
      }
      if (rest.length > MAX_LINE) {
        throw new LabRecordError("Longer than any record of the lab; expected NDJSON", {
          ...source,
          line: line + 1,
        });
      }
    }
  } catch (cause) {
    if (!(cause instanceof TypeError)) throw cause;
    throw new LabRecordError(`Damaged after this line: ${cause.message}; copy the file again`, {
      ...source,
      line,
    }, { cause });
  }
  rest += decoder.decode();
  if (rest.trim() !== "") yield parseLabRecord(rest, { ...source, line: line + 1 });
}

/** The stream itself, or what it holds when it is compressed. */
async function plain(stream: ReadableStream<Uint8Array>): Promise<ReadableStream<Uint8Array>> {
  const reader = stream.getReader();
  let head: Uint8Array = new Uint8Array(0);
  while (head.length < 2) {
    const { value, done } = await reader.read();
    if (done) break;
    const joined = new Uint8Array(head.length + value.length);
    joined.set(head);
    joined.set(value, head.length);
    head = joined;
  }
  const whole = new ReadableStream<BufferSource>({
    start(controller) {
      if (head.length > 0) controller.enqueue(head.slice());
    },
    async pull(controller) {
      const { value, done } = await reader.read();
      if (done) controller.close();
      else controller.enqueue(value.slice());
    },
    cancel: (reason) => reader.cancel(reason),
  });
  const gzip = head[0] === 0x1f && head[1] === 0x8b;
  return gzip
    ? whole.pipeThrough(new DecompressionStream("gzip"))
    : whole as ReadableStream<Uint8Array>;
}
