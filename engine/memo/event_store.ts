/**
 * Events that were met before, to tell when one is met again.
 *
 * @module
 */
import { Buffer } from "node:buffer";
import { crc32 } from "node:zlib";
import { isDeepStrictEqual } from "node:util";
import { EVENTS, type FieldType, type Image, type TraceEvent } from "../event.ts";
import type { PageStore } from "./page_store.ts";

/** An image, and which object showed it last. */
class KeptImage implements Image {
  readonly bytes: Uint8Array;
  readonly known?: Uint8Array;
  /** Numbers of both in the store. */
  readonly ids: string;
  #seen: Image | undefined;
  #revision: number | undefined;

  constructor(image: Image, store: PageStore) {
    const bytes = store.intern(image.bytes);
    const known = image.known === undefined ? 0 : store.intern(image.known);
    this.bytes = store.get(bytes);
    if (known !== 0) this.known = store.get(known);
    this.ids = `${bytes},${known}`;
  }

  /** Whether an image is the same. One that was compared and has not changed since is not compared again. */
  is(image: Image): boolean {
    if (image === this.#seen && image.revision === this.#revision) return true;
    if (Buffer.compare(image.bytes, this.bytes) !== 0) return false;
    if (image.known === undefined || this.known === undefined) {
      if (image.known !== this.known) return false;
    } else if (Buffer.compare(image.known, this.known) !== 0) return false;
    if (image.revision !== undefined) {
      this.#seen = image;
      this.#revision = image.revision;
    }
    return true;
  }
}

const IMAGE = 1, MAP = 2, PLAIN = 0;

function shapeOf(type: FieldType): number {
  return type === "map" ? MAP : ["u32", "i32", "u64", "text"].includes(type) ? PLAIN : IMAGE;
}

/** Fields of one kind of event. */
interface Fields {
  readonly names: readonly string[];
  /** How each compares. */
  readonly shapes: readonly number[];
}

const NO_FIELDS: Fields = { names: [], shapes: [] };
const FIELDS: ReadonlyMap<string, Fields> = new Map(
  EVENTS.map(({ kind, fields }) => [kind, {
    names: fields.map(({ name }) => name),
    shapes: fields.map(({ type }) => shapeOf(type)),
  }]),
);

/** An event that was met before. Its time does not count: nothing that is replayed depends on it. */
export class KeptEvent {
  /** A copy of it, without its time. */
  readonly event: TraceEvent;
  readonly #fields: Fields;
  readonly #values: unknown[] = [];
  /** Text that is the same for the same events. */
  readonly key: string;

  /**
   * Copies an event.
   *
   * @param event The event.
   * @param store Where its images are kept.
   */
  constructor(event: TraceEvent, store: PageStore) {
    const { kind, vcpu } = event;
    const copy: Record<string, unknown> = { kind, vcpu };
    const key: unknown[] = [kind, vcpu];
    const { names, shapes } = this.#fields = FIELDS.get(kind) ?? NO_FIELDS;
    names.forEach((name, i) => {
      const shape = shapes[i];
      const given = (event as unknown as Record<string, unknown>)[name];
      const value = given !== undefined && shape === IMAGE
        ? new KeptImage(given as Image, store)
        : given;
      this.#values.push(value);
      if (value === undefined) return;
      copy[name] = value;
      key.push(name, shape === IMAGE ? (value as KeptImage).ids : text(value));
    });
    this.event = copy as unknown as TraceEvent;
    this.key = key.join("\0");
  }

  /** Whether an event is the same but for its time. */
  is(event: TraceEvent): boolean {
    const own = this.event;
    if (event.kind !== own.kind || event.vcpu !== own.vcpu) return false;
    const { names, shapes } = this.#fields;
    const values = this.#values;
    for (let i = 0; i < names.length; i++) {
      const value = (event as unknown as Record<string, unknown>)[names[i] as string];
      const kept = values[i];
      if (value === kept) continue;
      if (value === undefined || kept === undefined || shapes[i] === PLAIN) return false;
      if (shapes[i] === MAP) {
        if (!isDeepStrictEqual(value, kept)) return false;
        values[i] = value;
      } else if (!(kept as KeptImage).is(value as Image)) return false;
    }
    return true;
  }
}

function text(value: unknown): string {
  return typeof value === "object"
    ? JSON.stringify(value, (_, part) => typeof part === "bigint" ? `${part}n` : part)
    : String(value);
}

/** Keeps events; equal ones are one object. */
export class EventStore {
  readonly #store: PageStore;
  readonly #events = new Map<string, KeptEvent>();

  /** @param store Where images are kept. */
  constructor(store: PageStore) {
    this.#store = store;
  }

  /** Events that are kept. */
  get size(): number {
    return this.#events.size;
  }

  /** The kept event that is the same; a copy is kept when there is none. */
  intern(event: TraceEvent): KeptEvent {
    const made = new KeptEvent(event, this.#store);
    const found = this.#events.get(made.key);
    if (found !== undefined) return found;
    this.#events.set(made.key, made);
    return made;
  }

  /** Forgets everything. */
  clear(): void {
    this.#events.clear();
  }
}

/**
 * A checksum of the events that a stretch was given, to guess whether it was met before.
 *
 * @param event The next event; those that a run brings forth do not count.
 * @param sum Of the events before it; 0 for none.
 */
export function inputSum(event: TraceEvent, sum: number): number {
  switch (event.kind) {
    case "vmrun":
      if (event.regs !== undefined) sum = crc32(event.regs.bytes, sum);
      return event.vmcb12 === undefined ? sum + 1 : crc32(event.vmcb12.bytes, sum);
    case "setstate":
      if (event.regs !== undefined) sum = crc32(event.regs.bytes, sum);
      return event.state === undefined ? sum + 2 : crc32(event.state.bytes, sum);
    case "memory":
      return event.data === undefined ? sum : crc32(event.data.bytes, sum);
    case "case":
      return event.name === undefined ? sum + 3 : crc32(event.name, sum);
    default:
      return sum;
  }
}
