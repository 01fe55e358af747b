/**
 * A block of events, ready to be stepped through.
 *
 * @module
 */
import type { TraceEvent } from "../../engine/event.ts";
import { blockContent, type BlockHead, type RawBlock } from "./block.ts";
import { EventDecoder } from "./decoder.ts";
import { damaged } from "../errors.ts";
import { copyEvent } from "../../engine/image/fields.ts";
import { BLOCK } from "./format.ts";
import type { KindPlan } from "./schema.ts";

/**
 * Events of one block. Each iteration decodes anew, from the first.
 *
 * @example
 * ```ts
 * import { readTrace, TraceWriter } from "@vmtape/vmtape/codecs";
 * const chunks: Uint8Array[] = [];
 * const writer = new TraceWriter({ write: (chunk) => void chunks.push(chunk) });
 * for (let to = 1; to <= 2; to++) writer.write({ kind: "switch", vcpu: 0, to });
 * writer.close();
 * for await (const block of (await readTrace(chunks)).blocks()) {
 *   let sum = 0;
 *   for (const event of block.shared()) if (event.kind === "switch") sum += event.to ?? 0;
 *   if (sum !== 3 || block.head.events !== 2) throw new Error("Not as written");
 * }
 * ```
 */
export class EventBlock implements Iterable<TraceEvent> {
  /** The block as it is in the file. */
  readonly raw: RawBlock;
  readonly #content: Uint8Array;
  readonly #plans: readonly (KindPlan | undefined)[];
  readonly #from: number;
  readonly #to: number;

  /**
   * Decompresses the block; its events are decoded as they are asked for.
   *
   * @param raw An events block.
   * @param plans The trace's event table.
   * @param from Number of the first event to give, counted over the trace.
   * @param to Number of the first event not to give.
   * @throws {TraceError} `damaged` or `feature` when its content cannot be had.
   */
  constructor(
    raw: RawBlock,
    plans: readonly (KindPlan | undefined)[],
    from = 0,
    to: number = Infinity,
  ) {
    this.raw = raw;
    this.#content = blockContent(raw);
    this.#plans = plans;
    this.#from = from;
    this.#to = to;
  }

  /** What its header says. */
  get head(): BlockHead {
    return this.raw.head;
  }

  /**
   * A decoder that stands before the block's first event, whatever range was asked for.
   *
   * @returns The decoder.
   * @throws {TraceError} `damaged` when the block holds no events.
   */
  decoder(): EventDecoder {
    const { head, offset } = this.raw;
    if (head.type !== BLOCK.events) throw damaged(offset, "A block holds no events");
    return new EventDecoder(this.#content, head.events, this.#plans, offset);
  }

  /**
   * The events, each valid until the next step only: objects and images are used again.
   *
   * @returns The events.
   * @throws {TraceError} `damaged` when an event cannot be decoded.
   */
  shared(): IterableIterator<TraceEvent> {
    return new SharedEvents(this, this.#from, this.#to);
  }

  /**
   * The events with their numbers in the trace, each its own copy.
   *
   * @throws {TraceError} `damaged` when an event cannot be decoded.
   */
  *entries(): Generator<[number, TraceEvent], void, undefined> {
    const events = new SharedEvents(this, this.#from, this.#to);
    for (const event of events) yield [events.number, copyEvent(event)];
  }

  /**
   * The events, each its own copy.
   *
   * @throws {TraceError} `damaged` when an event cannot be decoded.
   */
  *[Symbol.iterator](): Generator<TraceEvent, void, undefined> {
    for (const event of this.shared()) yield copyEvent(event);
  }
}

const NO_EVENT: TraceEvent = { kind: "lost", vcpu: 0 };

/** Steps over the events of a range. */
class SharedEvents implements IterableIterator<TraceEvent> {
  readonly #decoder: EventDecoder;
  readonly #first: number;
  readonly #from: number;
  readonly #to: number;
  // Handed out at every step: whoever iterates has read it by the next.
  readonly #given: { done: false; value: TraceEvent } = { done: false, value: NO_EVENT };

  constructor(block: EventBlock, from: number, to: number) {
    const { firstEvent, events } = block.head;
    this.#decoder = block.decoder();
    this.#first = firstEvent;
    this.#from = Math.max(0, from - firstEvent);
    // At the end there is a step more, which finds that nothing is left over.
    this.#to = Math.min(events + 1, to - firstEvent);
  }

  /** Number of the event given last. */
  get number(): number {
    return this.#first + this.#decoder.done - 1;
  }

  next(): IteratorResult<TraceEvent, undefined> {
    const decoder = this.#decoder;
    while (decoder.done < this.#to) {
      const event = decoder.next();
      if (event === undefined) break;
      if (decoder.done > this.#from) {
        const given = this.#given;
        given.value = event;
        return given;
      }
    }
    return { done: true, value: undefined };
  }

  [Symbol.iterator](): this {
    return this;
  }
}
