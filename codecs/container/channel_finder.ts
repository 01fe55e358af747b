/**
 * Which channel an image belongs to, by the other fields of its event.
 *
 * @module
 */
import { Channel, type Slot } from "./channel.ts";
import type { KindPlan } from "./schema.ts";

/** Chains that entries are spread over by their address. */
const CHAINS = 64;

/** Number of the text of a moment where there is none. */
const NO_MOMENT = -2;

/** What an event tells in a field that comes before an image. */
export interface Told {
  /** Low 32 bits of a number; of a text, its number in the table, -1 for the one before any is told. */
  readonly lo: number;
  /** High 32 bits of a number. */
  readonly hi: number;
  /** Value as the event holds it. */
  readonly value: unknown;
}

/** A channel that was used, and what it was found by. */
interface Entry {
  /** Halves of the address, or -1 both. */
  readonly low: number;
  readonly high: number;
  /** Text that tells the moment, and the number that it had last. */
  readonly text: unknown;
  moment: number;
  readonly channel: Channel;
  /** The next one of its chain. */
  readonly next: Entry | undefined;
}

/** Finds the channels of one image field of one kind of event on one vCPU. */
export class ChannelFinder {
  readonly #kind: number;
  readonly #family: string;
  readonly #at: Told | undefined;
  readonly #by: Told | undefined;
  /** Bits of those fields among an event's; 0 where there is none. */
  readonly #atBit: number;
  readonly #byBit: number;
  readonly #chains: (Entry | undefined)[] = [];
  #recent: Entry | undefined;

  /**
   * Knows none yet.
   *
   * @param plan What the event is of.
   * @param index Number of the image's field.
   * @param before States of the fields before it.
   */
  constructor(plan: KindPlan, index: number, before: readonly Told[]) {
    const { at, by, family } = plan.fields[index]!;
    this.#kind = plan.id;
    this.#family = family;
    this.#at = before[at];
    this.#by = before[by];
    this.#atBit = at < 0 ? 0 : 1 << 2 * at;
    this.#byBit = by < 0 ? 0 : 1 << 2 * by;
  }

  /**
   * The channel of the event's address and moment.
   *
   * @param present Which fields the event has: the lower bit of each operation that tells one.
   * @returns The channel; undefined when there was no image there yet.
   */
  find(present: number): Channel | undefined {
    const at = (present & this.#atBit) === 0 ? undefined : this.#at;
    const low = at === undefined ? -1 : at.lo;
    const high = at === undefined ? -1 : at.hi;
    const moment = (present & this.#byBit) === 0 ? NO_MOMENT : this.#by!.lo;
    let entry = this.#recent;
    if (
      entry !== undefined && entry.low === low && entry.high === high && entry.moment === moment
    ) return entry.channel;
    entry = this.#chains[chainOf(low)];
    while (entry !== undefined) {
      if (entry.low === low && entry.high === high && entry.moment === moment) {
        this.#recent = entry;
        return entry.channel;
      }
      entry = entry.next;
    }
    return moment === NO_MOMENT ? undefined : this.#findText(low, high, moment);
  }

  /** The channel of a moment whose text is in the table once more, under this number. */
  #findText(low: number, high: number, moment: number): Channel | undefined {
    const text = this.#by!.value;
    let entry = this.#chains[chainOf(low)];
    while (entry !== undefined) {
      if (entry.low === low && entry.high === high && entry.text === text) {
        entry.moment = moment;
        return entry.channel;
      }
      entry = entry.next;
    }
    return undefined;
  }

  /**
   * Adds the channel that {@linkcode ChannelFinder.find} did not find.
   *
   * @param present Which fields the event has.
   * @param slot Gives the slot of a family and an address.
   */
  add(present: number, slot: (family: string, low: number, high: number) => Slot): Channel {
    const at = (present & this.#atBit) === 0 ? undefined : this.#at;
    const by = (present & this.#byBit) === 0 ? undefined : this.#by;
    const low = at === undefined ? -1 : at.lo;
    const high = at === undefined ? -1 : at.hi;
    const channel = new Channel(slot(this.#family, low, high), this.#kind);
    const chain = chainOf(low);
    this.#chains[chain] = this.#recent = {
      low,
      high,
      text: by?.value,
      moment: by === undefined ? NO_MOMENT : by.lo,
      channel,
      next: this.#chains[chain],
    };
    return channel;
  }
}

/** Pages next to each other are in different chains. */
function chainOf(low: number): number {
  return (low ^ low >>> 12) & (CHAINS - 1);
}
