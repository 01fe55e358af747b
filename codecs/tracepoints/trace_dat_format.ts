/**
 * The format files that a trace.dat carries: one text per tracepoint that says
 * which bytes of a record are which field.
 *
 * @module
 */
import { hexOf } from "../../engine/hex.ts";
import type { KvmRecord, RecordSource } from "./kvm_record.ts";
import {
  type Slot,
  SLOTS,
  tellRoots,
  type Tracepoint,
  TRACEPOINT_BY_NAME,
} from "./kvm_tracepoints.ts";

/** One field of a record. */
export interface FormatField {
  /** Its name. */
  readonly name: string;
  /** Its C type. */
  readonly type: string;
  /** Byte offset within the record. */
  readonly offset: number;
  /** Size in bytes. */
  readonly size: number;
  /** Whether it has a sign. */
  readonly signed: boolean;
}

/** One tracepoint as a format file describes it. */
export interface EventFormat {
  /** Name, without the subsystem. */
  readonly name: string;
  /** The number that records carry. */
  readonly id: number;
  /** Its fields, those that all tracepoints have among them. */
  readonly fields: readonly FormatField[];
}

const FIELD =
  /^\s*field\s*:\s*(.*?)\s*([A-Za-z_]\w*)\s*(\[[^\]]*\])?\s*;\s*offset\s*:\s*(\d+)\s*;\s*size\s*:\s*(\d+)\s*;(?:\s*signed\s*:\s*(\d+)\s*;)?/gm;

/**
 * Reads the fields of a format file.
 *
 * @param text The file.
 * @returns Its fields in order.
 */
export function formatFields(text: string): FormatField[] {
  return [...text.matchAll(FIELD)].map((m) => ({
    name: m[2]!,
    type: m[1]! + (m[3] ?? ""),
    offset: Number(m[4]),
    size: Number(m[5]),
    signed: m[6] === "1",
  }));
}

/**
 * Reads a format file.
 *
 * @param text The file.
 * @returns What it says, or nothing when it is no format file.
 * @example
 * ```ts
 * import { parseEventFormat } from "@vmtape/vmtape/codecs";
 * const format = parseEventFormat(
 *   "name: kvm_skinit\nID: 85\nformat:\n\tfield:__u64 rip;\toffset:8;\tsize:8;\tsigned:0;\n",
 * );
 * if (format?.id !== 85 || format.fields[0]?.name !== "rip") throw new Error();
 * ```
 */
export function parseEventFormat(text: string): EventFormat | undefined {
  const head = /^name: (\S+)\s+ID: (\d+)\s/.exec(text);
  if (head === null) return undefined;
  return { name: head[1]!, id: Number(head[2]), fields: formatFields(text) };
}

/** Bytes of one record, and how to read them. */
export interface RecordBytes {
  /** All bytes there are. */
  readonly bytes: Uint8Array;
  /** The same, for numbers. */
  readonly view: DataView;
  /** Whether numbers have their low byte first. */
  readonly little: boolean;
}

const decoder = new TextDecoder();

/** How records of one tracepoint fill in a {@linkcode KvmRecord}; made once from its format. */
export class RecordPlan implements RecordSource {
  /** Name of the tracepoint. */
  readonly name: string;
  /** Its row, if the table has one. */
  readonly tracepoint: Tracepoint | undefined;
  readonly #fields: readonly FormatField[];
  readonly #slots: readonly number[];
  readonly #offsets: readonly number[];
  readonly #sizes: readonly number[];
  readonly #string: FormatField | undefined;
  readonly #longest: number;
  #source: RecordBytes | undefined;

  /** @param format What the file says. */
  constructor(format: EventFormat) {
    this.name = format.name;
    this.tracepoint = TRACEPOINT_BY_NAME.get(format.name);
    this.#fields = format.fields.filter(({ name }) => !name.startsWith("common_"));
    this.#string = this.#fields.find(({ type }) => /__(data|rel)_loc.*char/.test(type));
    const plan = this.#fields.flatMap(({ name, offset, size }) => {
      const slot = SLOTS.findIndex((row: Slot) => row.fields.includes(name));
      return slot < 0 || ![1, 2, 4, 8].includes(size) ? [] : [{ slot, offset, size }];
    });
    this.#slots = plan.map(({ slot }) => slot);
    this.#offsets = plan.map(({ offset }) => offset);
    this.#sizes = plan.map(({ size }) => size);
    this.#longest = Math.max(8, ...plan.map(({ offset, size }) => offset + size));
  }

  /** Slots that its format lacks, by name; without them no record of it can be imported. */
  get missing(): string[] {
    const needs = this.tracepoint?.needs ?? 0;
    return SLOTS.filter((_, slot) => (needs >>> slot & 1) !== 0 && !this.#slots.includes(slot))
      .map(({ name }) => name);
  }

  /**
   * Reads one record.
   *
   * @param source Where it is.
   * @param at Its first byte.
   * @param length Its length in bytes.
   * @param into Filled in.
   * @returns Whether it is long enough for its format.
   */
  read(source: RecordBytes, at: number, length: number, into: KvmRecord): boolean {
    if (length < this.#longest) return false;
    const { view, little } = source;
    let present = 0, wide = 0;
    for (let i = 0; i < this.#slots.length; i++) {
      const slot = this.#slots[i]!, place = at + this.#offsets[i]!;
      present |= 1 << slot;
      into.hi[slot] = 0;
      switch (this.#sizes[i]) {
        case 4:
          into.lo[slot] = view.getUint32(place, little);
          break;
        case 8:
          into.lo[slot] = view.getUint32(place + (little ? 0 : 4), little);
          into.hi[slot] = view.getUint32(place + (little ? 4 : 0), little);
          wide |= 1 << slot;
          break;
        case 2:
          into.lo[slot] = view.getUint16(place, little);
          break;
        default:
          into.lo[slot] = view.getUint8(place);
      }
    }
    into.tracepoint = this.tracepoint;
    into.name = this.name;
    into.present = present;
    into.wide = wide;
    if (this.tracepoint?.role === "vmrun") tellRoots(into);
    into.source = this;
    into.start = at;
    into.end = at + length;
    this.#source = source;
    return true;
  }

  /** The text of the record that was read last. */
  text(record: KvmRecord): string {
    const { tracepoint } = this;
    if (tracepoint === undefined) {
      return Object.entries(this.fields(record)!).map(([name, value]) =>
        `${name}=${typeof value === "string" ? value : `0x${value.toString(16)}`}`
      ).join(" ");
    }
    if (!tracepoint.free) return tracepoint.print(record);
    return this.#text(this.#source!, record.start, record.end - record.start, this.#string);
  }

  /** The fields of the record that was read last, where the table does not know them. */
  fields(record: KvmRecord): Record<string, number | bigint | string> | undefined {
    if (this.tracepoint !== undefined) return undefined;
    return this.#all(this.#source!, record.start, record.end - record.start);
  }

  #text(source: RecordBytes, at: number, length: number, field: FormatField | undefined): string {
    if (field === undefined || field.offset + 4 > length) return "";
    const place = source.view.getUint32(at + field.offset, source.little);
    let start = place & 0xffff;
    if (field.type.includes("__rel_loc")) start += field.offset + 4;
    let end = Math.min(start + (place >>> 16), length);
    for (let i = start; i < end; i++) if (source.bytes[at + i] === 0) end = i;
    return decoder.decode(source.bytes.subarray(at + start, at + Math.max(start, end)));
  }

  #all(source: RecordBytes, at: number, length: number): Record<string, number | bigint | string> {
    const fields: Record<string, number | bigint | string> = {};
    for (const field of this.#fields) {
      if (field.offset + field.size > length) continue;
      const place = at + field.offset;
      if (/__(data|rel)_loc.*char/.test(field.type)) {
        fields[field.name] = this.#text(source, at, length, field);
      } else if (field.size === 8) {
        const value = field.signed
          ? source.view.getBigInt64(place, source.little)
          : source.view.getBigUint64(place, source.little);
        const plain = Number(value);
        fields[field.name] = Number.isSafeInteger(plain) ? plain : value;
      } else if (field.size === 4) {
        fields[field.name] = field.signed
          ? source.view.getInt32(place, source.little)
          : source.view.getUint32(place, source.little);
      } else if (field.size === 2) {
        fields[field.name] = field.signed
          ? source.view.getInt16(place, source.little)
          : source.view.getUint16(place, source.little);
      } else if (field.size === 1) {
        fields[field.name] = field.signed ? source.view.getInt8(place) : source.bytes[place]!;
      } else {
        const raw = source.bytes.subarray(place, place + field.size);
        const end = raw.indexOf(0);
        fields[field.name] = field.type.includes("char")
          ? decoder.decode(end < 0 ? raw : raw.subarray(0, end))
          : hexOf(raw);
      }
    }
    return fields;
  }
}
