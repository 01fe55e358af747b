/**
 * Perfetto's own format: packets of protocol buffers, in which every text stands once, compressed
 * as the tracing service compresses them.
 *
 * Numbers of fields are those of Perfetto's documented schema: TracePacket, TrackDescriptor,
 * TrackEvent, InternedData and DebugAnnotation.
 *
 * @module
 */
import { deflateSync } from "node:zlib";
import type { TraceEvent } from "../../engine/event.ts";
import { ProtobufMessage } from "../protobuf.ts";
import { type PerfettoEvent, PerfettoExport, type PerfettoNotes } from "./rows.ts";

/** Fields of messages, by number. */
const TRACE = { packet: 1 } as const;
const PACKET = {
  timestamp: 8,
  sequence: 10,
  trackEvent: 11,
  internedData: 12,
  sequenceFlags: 13,
  compressed: 50,
  trackDescriptor: 60,
} as const;
const DESCRIPTOR = { uuid: 1, name: 2, process: 3, parent: 5 } as const;
const PROCESS = { pid: 1, name: 6 } as const;
const EVENT = { categories: 3, annotations: 4, type: 9, name: 10, track: 11 } as const;
const ANNOTATION = { name: 1, uint: 3, pointer: 7, text: 17 } as const;
/** Of the index of interned texts: which field, and where each text stands in its entry. */
const INTERNED = { categories: 1, names: 2, annotationNames: 3, annotationTexts: 29 } as const;
const ENTRY = { id: 1, text: 2 } as const;

/** Kinds of track events. */
const TYPE = { begin: 1, end: 2, instant: 3 } as const;
/** What a packet says of interned texts: forget all before, and that it refers to some. */
const CLEARED = 1, NEEDS = 2;

/** All packets are one writer's. */
const SEQUENCE = 1;
/** The track of the process; those of threads have their number behind it. */
const PROCESS_TRACK = 1;
/** Bytes of packets that are compressed together. */
const CHUNK = 1 << 19;

/** A number of 64 bits as texts have it. */
const HEX = /^0x(0|[1-9a-f][0-9a-f]{0,15})$/;

/** Nanoseconds of microseconds. */
function nanoseconds(us: number): number {
  return Math.round(us * 1000);
}

/** Writes rows as packets. */
class PacketWriter {
  readonly #out = new ProtobufMessage();
  readonly #packet = new ProtobufMessage();
  readonly #event = new ProtobufMessage();
  readonly #part = new ProtobufMessage();
  readonly #interned = new ProtobufMessage();
  readonly #ids = Object.fromEntries(
    Object.keys(INTERNED).map((index) => [index, new Map<string, number>()]),
  ) as { readonly [index in keyof typeof INTERNED]: Map<string, number> };
  /** For each track, when the slices end that are open there, the innermost last. */
  readonly #open = new Map<number, number[]>();
  #first = true;

  /** The packets so far in one, compressed, when they are enough to be handed on, or all of them. */
  take(all: boolean): Uint8Array<ArrayBuffer> | undefined {
    const { bytes } = this.#out;
    if (bytes.length === 0 || !all && bytes.length < CHUNK) return undefined;
    const packet = new ProtobufMessage().raw(PACKET.compressed, deflateSync(bytes));
    this.#out.clear();
    return new ProtobufMessage().raw(TRACE.packet, packet.bytes).bytes;
  }

  /** Writes a row. */
  row(row: PerfettoEvent): void {
    switch (row.ph) {
      case "M":
        this.#track(row);
        break;
      case "i":
        this.#trackEvent(TYPE.instant, row, nanoseconds(row.ts));
        break;
      case "X": {
        const from = nanoseconds(row.ts);
        this.#close(row.tid, from);
        this.#trackEvent(TYPE.begin, row, from);
        this.#openOn(row.tid).push(nanoseconds(row.ts + (row.dur ?? 0)));
        break;
      }
    }
  }

  /** Ends all slices. */
  finish(): void {
    for (const tid of this.#open.keys()) this.#close(tid, Infinity);
  }

  #openOn(tid: number): number[] {
    let open = this.#open.get(tid);
    if (open === undefined) this.#open.set(tid, open = []);
    return open;
  }

  /** Ends the slices of a track that are over at a time: what is at one time stands in order. */
  #close(tid: number, ns: number): void {
    const open = this.#openOn(tid);
    for (let end = open.at(-1); end !== undefined && end <= ns; end = open.at(-1)) {
      open.pop();
      this.#event.clear();
      this.#event.uint(EVENT.type, TYPE.end).uint(EVENT.track, trackOf(tid));
      this.#put(end);
    }
  }

  #track({ name, tid, pid, args }: PerfettoEvent): void {
    const part = this.#part, text = String(args?.["name"] ?? "");
    part.clear();
    if (name === "process_name") {
      const process = new ProtobufMessage().uint(PROCESS.pid, pid).text(PROCESS.name, text);
      part.uint(DESCRIPTOR.uuid, PROCESS_TRACK).raw(DESCRIPTOR.process, process.bytes);
    } else {
      part.uint(DESCRIPTOR.uuid, trackOf(tid)).text(DESCRIPTOR.name, text);
      part.uint(DESCRIPTOR.parent, PROCESS_TRACK);
    }
    const packet = this.#packet;
    packet.clear();
    packet.uint(PACKET.sequence, SEQUENCE);
    if (this.#first) packet.uint(PACKET.sequenceFlags, CLEARED);
    this.#first = false;
    this.#out.raw(TRACE.packet, packet.raw(PACKET.trackDescriptor, part.bytes).bytes);
  }

  #trackEvent(type: number, row: PerfettoEvent, ns: number): void {
    const event = this.#event;
    event.clear();
    if (row.cat !== undefined) event.uint(EVENT.categories, this.#intern("categories", row.cat));
    event.uint(EVENT.type, type).uint(EVENT.name, this.#intern("names", row.name));
    event.uint(EVENT.track, trackOf(row.tid));
    for (const [name, value] of Object.entries(row.args ?? {})) {
      const part = this.#part;
      part.clear();
      part.uint(ANNOTATION.name, this.#intern("annotationNames", name));
      if (typeof value === "string") {
        // A pointer is shown in hexadecimal.
        if (HEX.test(value)) part.uint(ANNOTATION.pointer, BigInt(value));
        else part.uint(ANNOTATION.text, this.#intern("annotationTexts", value));
      } else if (Number.isSafeInteger(value) && value >= 0) part.uint(ANNOTATION.uint, value);
      else part.uint(ANNOTATION.text, this.#intern("annotationTexts", String(value)));
      event.raw(EVENT.annotations, part.bytes);
    }
    this.#put(ns, NEEDS);
  }

  /** Writes the packet of the track event, with the texts that are new in it. */
  #put(ns: number, flags = 0): void {
    const packet = this.#packet;
    packet.clear();
    packet.uint(PACKET.timestamp, ns).uint(PACKET.sequence, SEQUENCE);
    if (this.#interned.bytes.length > 0) packet.raw(PACKET.internedData, this.#interned.bytes);
    this.#interned.clear();
    if (flags !== 0) packet.uint(PACKET.sequenceFlags, flags);
    this.#out.raw(TRACE.packet, packet.raw(PACKET.trackEvent, this.#event.bytes).bytes);
  }

  /** The number of a text. */
  #intern(index: keyof typeof INTERNED, text: string): number {
    const ids = this.#ids[index];
    let id = ids.get(text);
    if (id === undefined) {
      ids.set(text, id = ids.size + 1);
      const entry = new ProtobufMessage().uint(ENTRY.id, id).text(ENTRY.text, text);
      this.#interned.raw(INTERNED[index], entry.bytes);
    }
    return id;
  }
}

function trackOf(tid: number): number {
  return PROCESS_TRACK + tid;
}

/**
 * A trace as a file of Perfetto's own format, which ui.perfetto.dev and its trace processor open.
 *
 * @param events The events; their images need to be valid only until the next is asked for.
 * @param notes What to say of events, on a track of its own for each vCPU.
 * @returns The file's bytes, piece by piece.
 * @example
 * ```ts
 * import { perfettoPackets } from "@vmtape/vmtape/codecs";
 * const events = [{ kind: "case", vcpu: 0, name: "ok", time: 5000 }] as const;
 * const pieces = await Array.fromAsync(perfettoPackets(events));
 * // A trace is a list of packets: field 1, bytes.
 * if (pieces[0]?.[0] !== 0x0a) throw new Error();
 * ```
 */
export async function* perfettoPackets(
  events: Iterable<TraceEvent> | AsyncIterable<TraceEvent>,
  notes?: PerfettoNotes,
): AsyncGenerator<Uint8Array<ArrayBuffer>> {
  const rows = new PerfettoExport(notes);
  const writer = new PacketWriter();
  for await (const event of events) {
    for (const row of rows.feed(event)) writer.row(row);
    const chunk = writer.take(false);
    if (chunk !== undefined) yield chunk;
  }
  for (const row of rows.finish()) writer.row(row);
  writer.finish();
  const rest = writer.take(true);
  if (rest !== undefined) yield rest;
}
