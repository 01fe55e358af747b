/**
 * The last image of one kind of event's view of a place, and how it was coded: what the next one is
 * a change of.
 *
 * @module
 */
import { Buffer } from "node:buffer";
import { knownWordsOf } from "../../engine/image/fields.ts";
import type { Image } from "../../engine/event.ts";
import type { EventObjects } from "./event_objects.ts";

/** No places in an image. */
export const NO_PLACES: Uint16Array = new Uint16Array(0);

const NO_BYTES = new Uint8Array(0);
const NO_WORDS = new Uint32Array(0);

/** Words of a change that a channel remembers; of one with more, none. */
const REMEMBERED = 64;

/** How often a channel's image is held against another's word by word, so that it is known where they differ. */
const SEARCHES = 4;

/** Where an image lives. */
export class Slot {
  /** The channel that was coded last. */
  last: Channel | undefined;
}

/** An image that is handed out again and again, with other content. */
class SharedImage implements Image {
  static #count = 0;
  readonly bytes: Uint8Array;
  readonly known?: Uint8Array;
  // Not properties of its own: who prints or compares an image sees its content alone.
  readonly #number = ++SharedImage.#count;
  #revision = 0;
  #knownWords: Uint16Array | undefined;

  constructor(bytes: Uint8Array, known?: Uint8Array) {
    this.bytes = bytes;
    if (known) this.known = known;
  }

  get revision(): number {
    return this.#revision;
  }

  get knownWords(): Uint16Array {
    return this.#knownWords ??= knownWordsOf(this.known ?? NO_BYTES);
  }

  /** A number that no other image has. */
  get number(): number {
    return this.#number;
  }

  /** Its content is another now. */
  changed(): void {
    this.#revision++;
  }
}

/** One kind of event's view of a slot: its last image, and how that was coded. */
export class Channel {
  /** Where it belongs. */
  readonly slot: Slot;
  /** Number of the kind of event. */
  readonly kind: number;
  /** Size of the image in bytes; 0 before the first. */
  length = 0;
  /** The image's bytes. */
  bytes: Uint8Array = NO_BYTES;
  /** The same, as words, the last one filled up with zeros. */
  words: Uint32Array = NO_WORDS;
  /** Mask of the bits known, or undefined for all. */
  known: Uint8Array | undefined;
  /** Whether the last change was against the slot's last image, not this channel's. */
  fromLast = false;
  /** Whether the last image was equal to the one before; an encoder's guess for the next. */
  calm = false;
  /** How often an encoder told it against another channel's image. */
  turns = 0;
  /** Which words the last change named. */
  places: Uint16Array = NO_PLACES;
  /** What a decoder hands out. */
  image: SharedImage = new SharedImage(NO_BYTES);
  /** The events that it hands out with it as their first image. */
  events: EventObjects | undefined;
  /** How often a decoder changed the content. */
  #changes = 0;
  /** Which words the last change changed. */
  #changed: Uint16Array = NO_PLACES;
  /** How many of them; -1 where it is not known. */
  #count = -1;
  /** The channel whose image this one's was made from, by a change that named `#apart`. */
  #base: Channel | undefined;
  #apart: Uint16Array = NO_PLACES;
  /** What `#changes` were then, of that channel and of this. */
  #baseChanges = 0;
  #ownChanges = 0;
  #searches = 0;

  constructor(slot: Slot, kind: number) {
    this.slot = slot;
    this.kind = kind;
  }

  /** Begins anew with an image of zeros of another size. */
  resize(length: number): void {
    const words = new Uint32Array((length + 3) >> 2);
    this.length = length;
    this.words = words;
    this.bytes = new Uint8Array(words.buffer, 0, length);
    this.known = undefined;
    this.fromLast = false;
    this.places = NO_PLACES;
    this.image = new SharedImage(this.bytes);
    this.#changes++;
    this.#count = -1;
  }

  /** Sets the mask, and the image handed out with it. */
  setKnown(known: Uint8Array | undefined): void {
    this.known = known;
    this.image = new SharedImage(this.bytes, known);
  }

  /** Takes an image as it is. */
  replace(bytes: Uint8Array): void {
    this.places = NO_PLACES;
    this.bytes.set(bytes);
    this.#changedAt(-1);
  }

  /**
   * Changes the image at its places.
   *
   * @param differences What to add to each word, modulo 2^32.
   */
  change(differences: Int32Array): void {
    const places = this.places;
    const words = this.words;
    let count = 0;
    for (let i = 0; i < places.length; i++) {
      const difference = differences[i]!;
      if (difference === 0) continue;
      const place = places[i]!;
      words[place]! += difference;
      count = this.#note(place, count);
    }
    if (count > 0) this.#changedAt(count);
  }

  /**
   * Makes the image from another channel's of the same size, changed at this one's places. Where
   * it was made from that one before, only what changed since is copied.
   *
   * @param base The other channel.
   * @param differences What to add to each word, modulo 2^32; overwritten.
   */
  changeFrom(base: Channel, differences: Int32Array): void {
    const places = this.places;
    const words = this.words;
    const from = base.words;
    const related = this.#base === base && this.#ownChanges === this.#changes;
    let count = 0;
    for (let i = 0; i < places.length; i++) {
      const place = places[i]!;
      const word = from[place]!;
      const made = differences[i] = (word + differences[i]!) | 0;
      if (made !== (words[place]! | 0)) count = this.#note(place, count);
      words[place] = word;
    }
    if (related && base.#changes === this.#baseChanges) {
      count = this.#take(from, this.#apart, this.#apart.length, count);
    } else if (related && base.#count >= 0 && base.#changes === this.#baseChanges + 1) {
      count = this.#take(from, this.#apart, this.#apart.length, count);
      count = this.#take(from, base.#changed, base.#count, count);
    } else if (this.#base === base && this.#searches < SEARCHES) {
      this.#searches++;
      for (let i = 0; i < words.length; i++) {
        if (words[i] === from[i]) continue;
        words[i] = from[i]!;
        count = this.#note(i, count);
      }
    } else if (count > 0 || Buffer.compare(this.bytes, base.bytes) !== 0) {
      words.set(from);
      count = -1;
    }
    for (let i = 0; i < places.length; i++) words[places[i]!] = differences[i]!;
    if (count !== 0) this.#changedAt(count);
    this.#base = base;
    this.#apart = places;
    this.#baseChanges = base.#changes;
    this.#ownChanges = this.#changes;
  }

  /** Takes words from another image; returns how many changes that makes. */
  #take(from: Uint32Array, places: Uint16Array, length: number, already: number): number {
    const words = this.words;
    let count = already;
    for (let i = 0; i < length; i++) {
      const place = places[i]!;
      const word = from[place]!;
      if (words[place] === word) continue;
      words[place] = word;
      count = this.#note(place, count);
    }
    return count;
  }

  /** Notes that a word is another; returns how many are. */
  #note(place: number, already: number): number {
    if (already < REMEMBERED) {
      if (this.#changed.length === 0) this.#changed = new Uint16Array(REMEMBERED);
      this.#changed[already] = place;
    }
    return already + 1;
  }

  /** The content is another, in so many words that were noted; -1: nobody counted. */
  #changedAt(count: number): void {
    this.#changes++;
    this.#count = count > REMEMBERED ? -1 : count;
    this.image.changed();
  }
}
