/**
 * The event objects that a decoder hands out again and again.
 *
 * @module
 */
import type { KindPlan } from "./schema.ts";

/** An event object, and what its fields hold. */
export class EventObject {
  /** The object. */
  readonly event: Record<string, unknown>;
  /** By field: the number of the value that was stored; NaN when none ever was. */
  readonly stored: number[];

  constructor(event: Record<string, unknown>, fields: number) {
    this.event = event;
    this.stored = new Array(fields).fill(NaN);
  }
}

/** Event objects of one kind, vCPU and place: one for each set of fields. */
export class EventObjects {
  readonly #plan: KindPlan;
  readonly #vcpu: number;
  readonly #objects = new Map<number, EventObject>();
  #key = -1;
  #last: EventObject | undefined;

  constructor(plan: KindPlan, vcpu: number) {
    this.#plan = plan;
    this.#vcpu = vcpu;
  }

  /**
   * The object with a set of fields.
   *
   * @param key A bit for each field, the first's being 2, the next one's 8; the lowest bit stands
   * for the time.
   */
  get(key: number): EventObject {
    const last = this.#last;
    if (last !== undefined && key === this.#key) return last;
    this.#key = key;
    return this.#last = this.#objects.get(key) ?? this.#add(key);
  }

  #add(key: number): EventObject {
    const { kind, fields } = this.#plan;
    const event: Record<string, unknown> = { kind, vcpu: this.#vcpu };
    if (key & 1) event.time = 0;
    for (const [i, { name }] of fields.entries()) if (key & (2 << (2 * i))) event[name] = undefined;
    const object = new EventObject(event, fields.length);
    this.#objects.set(key, object);
    return object;
  }
}
