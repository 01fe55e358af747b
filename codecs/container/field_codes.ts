/**
 * The codes in an events block: field operations, image descriptors, flags.
 *
 * @module
 */

/** Field operations, 2 bits each in an event's head. */
export const OP = {
  /** The field is absent. */
  absent: 0,
  /** Value: as the last time. Image: same base and places as the last time, differences follow. */
  again: 1,
  /** Number: difference of the low word. Text, map: number in the table. Image: described. */
  changed: 2,
  /** u64: differences of both words. Text, map: new in the table. Image: equal to this channel's last. */
  other: 3,
} as const;

/** Bits of an image's descriptor. */
export const SHAPE = {
  /** The base is the slot's last image, not the channel's. */
  fromLast: 1,
  /** The image's size follows, and the channel begins anew with zeros. */
  size: 2,
  /** The mask of known bits follows. */
  known: 4,
  /** How the places are told: two bits from here. */
  places: 8,
} as const;

/** How an image's places are told. */
export const PLACES = { none: 0, table: 1, list: 2, raw: 3 } as const;

/** Bit of an event's head: it has no time. */
export const HEAD_NO_TIME = 64;

/** Bit of an event's head: another vCPU than the event before. */
export const HEAD_VCPU = 128;
