/**
 * A reader of Perfetto's format, written from its documented schema alone: what a trace processor
 * would make of a file.
 *
 * @module
 */
import { assert } from "@std/assert";
import { inflateSync } from "node:zlib";

/** A slice or, without an end, an instant, on a track. */
export interface ReadSlice {
  readonly track: string;
  readonly name: string;
  readonly category: string;
  /** Nanoseconds. */
  readonly from: number;
  readonly to: number | undefined;
  readonly args: Readonly<Record<string, string | number>>;
}

type Field = readonly [number: number, value: bigint | Uint8Array];

function* fieldsOf(bytes: Uint8Array): Generator<Field> {
  let at = 0;
  const varint = () => {
    let value = 0n;
    for (let shift = 0n;; shift += 7n) {
      assert(at < bytes.length && shift < 70n, "a varint ends within its message");
      const byte = bytes[at++]!;
      value |= BigInt(byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
  };
  while (at < bytes.length) {
    const tag = varint();
    assert((tag & 7n) === 0n || (tag & 7n) === 2n, `wire type ${tag & 7n}`);
    if ((tag & 7n) === 0n) yield [Number(tag >> 3n), varint()];
    else {
      const length = Number(varint());
      assert(at + length <= bytes.length, "a field ends within its message");
      yield [Number(tag >> 3n), bytes.subarray(at, at += length)];
    }
  }
}

class Message {
  readonly #fields: readonly Field[];
  constructor(bytes: Uint8Array) {
    this.#fields = [...fieldsOf(bytes)];
  }
  numbers(field: number): number[] {
    return this.#all(field).map(Number);
  }
  number(field: number): number | undefined {
    return this.numbers(field)[0];
  }
  big(field: number): bigint | undefined {
    return this.#all(field)[0] as bigint | undefined;
  }
  bytes(field: number): Uint8Array[] {
    return this.#all(field) as Uint8Array[];
  }
  messages(field: number): Message[] {
    return this.bytes(field).map((bytes) => new Message(bytes));
  }
  text(field: number): string | undefined {
    const [bytes] = this.bytes(field);
    return bytes && new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  }
  #all(field: number) {
    return this.#fields.filter(([number]) => number === field).map(([, value]) => value);
  }
}

/** Packets of a file, those that are compressed among them. */
function packetsOf(bytes: Uint8Array): Message[] {
  return new Message(bytes).messages(1).flatMap((packet) => {
    const [compressed] = packet.bytes(50);
    return compressed === undefined ? [packet] : packetsOf(new Uint8Array(inflateSync(compressed)));
  });
}

/** Texts by number, for each index: categories, names, names of annotations, their texts. */
class Interned {
  readonly #texts = new Map<string, string>();
  add(data: Message): void {
    for (const index of [1, 2, 3, 29]) {
      for (const entry of data.messages(index)) {
        const key = `${index} ${entry.number(1)}`;
        assert(!this.#texts.has(key), `${key} is there twice`);
        this.#texts.set(key, entry.text(2)!);
      }
    }
  }
  get(index: number, id: number | undefined): string {
    const text = this.#texts.get(`${index} ${id}`);
    assert(text !== undefined, `no text ${id} in ${index}`);
    return text;
  }
}

function argsOf(event: Message, interned: Interned): Record<string, string | number> {
  return Object.fromEntries(
    event.messages(4).map((one) => {
      const pointer = one.big(7), text = one.number(17);
      const value = pointer !== undefined
        ? `0x${pointer.toString(16)}`
        : text === undefined
        ? one.number(3)!
        : interned.get(29, text);
      return [interned.get(3, one.number(1)), value];
    }),
  );
}

/** Reads a file as a trace processor does: packets by time, slices of a track as a stack. */
export function readPackets(bytes: Uint8Array): ReadSlice[] {
  const interned = new Interned();
  const tracks = new Map<number, string>();
  const events: { readonly ns: number; readonly event: Message }[] = [];
  let cleared = false;
  for (const packet of packetsOf(bytes)) {
    assert(packet.number(10) === 1, "a packet has its sequence");
    const flags = packet.number(13) ?? 0;
    cleared ||= (flags & 1) !== 0;
    for (const data of packet.messages(12)) interned.add(data);
    for (const track of packet.messages(60)) {
      const [process] = track.messages(3);
      assert(
        process !== undefined || tracks.has(track.number(5)!),
        "a track has its parent before",
      );
      tracks.set(track.number(1)!, process?.text(6) ?? track.text(2)!);
    }
    for (const event of packet.messages(11)) {
      assert(cleared, "nothing is to be remembered from before");
      assert(event.number(10) === undefined || (flags & 2) !== 0, "it needs texts, and says so");
      events.push({ ns: packet.number(8)!, event });
    }
  }
  const stacks = new Map<number, ReadSlice[]>();
  const read: ReadSlice[] = [];
  for (const { ns, event } of events.toSorted((a, b) => a.ns - b.ns)) {
    const uuid = event.number(11)!;
    const track = tracks.get(uuid);
    assert(track !== undefined, `no track ${uuid}`);
    const stack = stacks.get(uuid) ?? [];
    stacks.set(uuid, stack);
    if (event.number(9) === 2) {
      const slice = stack.pop();
      assert(slice !== undefined, "what ends has begun");
      read.push({ ...slice, to: ns });
      continue;
    }
    const slice: ReadSlice = {
      track,
      name: interned.get(2, event.number(10)),
      category: interned.get(1, event.number(3)),
      from: ns,
      to: undefined,
      args: argsOf(event, interned),
    };
    if (event.number(9) === 3) read.push(slice);
    else stack.push(slice);
  }
  for (const stack of stacks.values()) assert(stack.length === 0, "what begins ends");
  return read;
}
