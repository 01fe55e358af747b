/**
 * Records that wait for one of the same name in the other stream.
 *
 * @module
 */
import { Buffer } from "node:buffer";
import { deflateRawSync, inflateRawSync } from "node:zlib";
import { formatLabRecord, type LabRecord } from "../../codecs/lab/record.ts";
import type { Holding } from "./holding.ts";

/** What a record takes besides its bytes. */
const EACH = 400;
/** Texts that are shorter are kept as they are. */
const SHORT = 1024;

/** A record that waits: its text, or that text compressed. */
type Kept = string | Uint8Array;

/** Keeps records, compressed, by the names of their cases; of one name in order. */
export class Waiting {
  readonly #records = new Map<string, Kept[]>();
  readonly #holding: Holding;

  /** @param holding Counts what is kept. */
  constructor(holding: Holding) {
    this.#holding = holding;
  }

  /** Whether a record of a name waits. */
  has(name: string): boolean {
    return this.#records.has(name);
  }

  /** Keeps a record. */
  put(record: LabRecord): void {
    const text = formatLabRecord(record);
    const kept = text.length < SHORT ? text : packed(text);
    this.#holding.take(weight(record.case, kept));
    const list = this.#records.get(record.case);
    if (list) list.push(kept);
    else this.#records.set(record.case, [kept]);
  }

  /** The first record of a name, which waits no longer. */
  take(name: string): LabRecord | undefined {
    const list = this.#records.get(name);
    const kept = list?.shift();
    if (kept === undefined) return undefined;
    if (list?.length === 0) this.#records.delete(name);
    this.#holding.give(weight(name, kept));
    const text = typeof kept === "string" ? kept : inflateRawSync(kept).toString();
    return JSON.parse(text) as LabRecord;
  }

  /** The names of those that still wait, once for each. */
  names(): string[] {
    return [...this.#records].flatMap(([name, list]) => list.map(() => name));
  }
}

function packed(text: string): Uint8Array {
  // What zlib returns is a part of something larger.
  return new Uint8Array(deflateRawSync(Buffer.from(text), { level: 1 }));
}

function weight(name: string, kept: Kept): number {
  return EACH + 2 * name.length + kept.length;
}
