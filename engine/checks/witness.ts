/**
 * Looking for bits of a vmcb12, among those that are not known, with which a consistency check ends as
 * asked.
 *
 * @module
 */
import type { Image } from "../event.ts";
import { fieldNamed, readBigint } from "../image/fields.ts";
import type { Field } from "../layout.ts";
import type { Cpuid } from "../svm/cpuid.ts";
import { type Capabilities, Machine, VMCB12_AT } from "../svm/machine.ts";
import { VMCB_LAYOUT, VMCB_SIZE } from "../svm/vmcb_fields.ts";
import type { Check } from "./check.ts";

/** Numbers of 64 bits, as many as there are: the low half of each, then its high half. */
class Candidates {
  readonly words: number[] = [];

  get length(): number {
    return this.words.length / 2;
  }

  add(low: number, high: number): void {
    this.words.push(low, high);
  }
}

/** A row's value and what is known of it, in halves. */
export interface Halves {
  readonly low: number;
  readonly high: number;
  readonly knownLow: number;
  readonly knownHigh: number;
}

/** A field of an image in halves. */
export function halvesOf(image: Image, { offset, size }: Field): Halves {
  const { bytes, known } = image;
  const lower = Math.min(size, 4);
  const half = (from: Uint8Array, at: number, count: number) => {
    let value = 0;
    for (let i = count - 1; i >= 0; i--) value = value << 8 | (from[at + i] as number);
    return value;
  };
  const ones = (count: number) => count === 4 ? -1 : (1 << 8 * count) - 1;
  // Beyond the end of an image nothing is known.
  if (offset + size > bytes.length) return { low: 0, high: 0, knownLow: 0, knownHigh: 0 };
  return {
    low: half(bytes, offset, lower),
    high: half(bytes, offset + 4, size - lower),
    knownLow: known === undefined ? ones(lower) : half(known, offset, lower),
    knownHigh: known === undefined ? ones(size - lower) : half(known, offset + 4, size - lower),
  };
}

/**
 * Values of a field that differ in its unknown bits, so chosen that a predicate
 * on bits holds for one of them if it holds for any. The first ones stay close
 * to what is there, so that other checks keep their answer.
 */
function candidatesOf(image: Image, row: Field): Candidates {
  const { low, high, knownLow, knownHigh } = halvesOf(image, row);
  const list = new Candidates();
  const bits = 8 * row.size;
  const unknownLow = bits >= 32 ? ~knownLow : ~knownLow & (1 << bits) - 1;
  const unknownHigh = bits === 64 ? ~knownHigh : 0;
  list.add(low, high);
  if ((unknownLow | unknownHigh) === 0) return list;
  const baseLow = low & knownLow, baseHigh = high & knownHigh;
  list.add(baseLow, baseHigh);
  list.add(baseLow | unknownLow, baseHigh | unknownHigh);
  const each = (take: (low: number, high: number) => void) => {
    for (let i = 0; i < 32; i++) if ((unknownLow >>> i & 1) !== 0) take(1 << i, 0);
    for (let i = 0; i < 32; i++) if ((unknownHigh >>> i & 1) !== 0) take(0, 1 << i);
  };
  each((bitLow, bitHigh) => list.add(low ^ bitLow, high ^ bitHigh));
  each((bitLow, bitHigh) => {
    list.add(baseLow | bitLow, baseHigh | bitHigh);
    list.add(baseLow | unknownLow & ~bitLow, baseHigh | unknownHigh & ~bitHigh);
  });
  return list;
}

/** Writes a value of up to 64 bits. */
function put({ view }: Machine, at: number, size: number, low: number, high: number): void {
  if (size === 1) view.setUint8(at, low);
  else if (size === 2) view.setUint16(at, low, true);
  else view.setUint32(at, low, true);
  if (size === 8) view.setUint32(at + 4, high, true);
}

/** How many of a field's candidates are tried while another field goes through all of its own. */
const EXTREMES = 3;

/** The fields that a check reads, in pieces of 1, 2, 4 or 8 bytes. */
export function rowsOf(check: Check): readonly Field[] {
  let rows = rowsRead.get(check);
  if (rows === undefined) {
    rows = check.reads.flatMap((name) => piecesOf(fieldNamed(VMCB_LAYOUT, name)));
    rowsRead.set(check, rows);
  }
  return rows;
}

function piecesOf(row: Field): Field[] {
  const { offset, size } = row;
  const most = [8, 4, 2, 1].find((bytes) => bytes <= size) ?? 1;
  if (most === size) return [row];
  return [
    { ...row, size: most },
    ...piecesOf({ ...row, offset: offset + most, size: size - most }),
  ];
}

const rowsRead = new WeakMap<Check, readonly Field[]>();

/** Processors that checks are asked for at the same time. */
const MOST_MACHINES = 64;

const machines = new Map<string, Machine>();
// The same by the object: making the text takes longer than most checks.
const machinesByCaps = new WeakMap<Capabilities, Machine>();

/** A machine to ask checks on: the same for the same capabilities. */
export function machineOf(caps: Capabilities): Machine {
  let machine = machinesByCaps.get(caps);
  if (machine === undefined) {
    const key = `${caps.physicalBits} ${caps.npt} ${caps.cpuid?.key}`;
    machine = machines.get(key);
    if (machine === undefined) {
      if (machines.size >= MOST_MACHINES) machines.clear();
      machine = new Machine({ ...caps, memory: 1 << 16 });
      machines.set(key, machine);
    }
    machinesByCaps.set(caps, machine);
  }
  return machine;
}

/** The least width of addresses that a processor has. */
export const LEAST_BITS = 32;
/** The most. */
const MOST_BITS = 52;

/**
 * A machine with all of L1's CPUID decided that is unknown: with as little, or as much, as may be.
 * More never makes a check fail that would pass with less.
 */
export function decided(caps: Capabilities, most: boolean): Capabilities {
  const { cpuid } = caps;
  if (cpuid === undefined || cpuid.whole) return caps;
  const known = most ? decidedMost : decidedLeast;
  let answer = known.get(caps);
  if (answer === undefined) known.set(caps, answer = decide(caps, cpuid, most));
  return answer;
}

const decidedMost = new WeakMap<Capabilities, Capabilities>();
const decidedLeast = new WeakMap<Capabilities, Capabilities>();

function decide(caps: Capabilities, cpuid: Cpuid, most: boolean): Capabilities {
  const width = cpuid.physicalBits ?? (most ? MOST_BITS : LEAST_BITS);
  return { ...caps, cpuid: cpuid.decided(most, width), physicalBits: width };
}

/** An image of a VMCB's size: what a short one lacks is unknown. */
function whole(image: Image): Image {
  const { size } = VMCB_LAYOUT;
  if (image.bytes.length === size) return image;
  const bytes = new Uint8Array(size), known = new Uint8Array(size);
  bytes.set(image.bytes.subarray(0, size));
  known.set((image.known ?? new Uint8Array(image.bytes.length).fill(0xff)).subarray(0, size));
  return { bytes, known };
}

/** A check's fields and what is known of them. */
export class Question {
  readonly #check: Check;
  readonly #caps: Capabilities;
  readonly #image: Image;
  readonly #rows: readonly Field[];
  readonly #candidates: readonly Candidates[];
  #m: Machine;

  constructor(check: Check, caps: Capabilities, image: Image) {
    this.#check = check;
    this.#caps = caps;
    this.#image = whole(image);
    this.#m = machineOf(caps);
    this.#rows = rowsOf(check);
    this.#candidates = this.#rows.map((row) => candidatesOf(this.#image, row));
  }

  /**
   * Looks for unknown bits, of the image and of L1's CPUID, with which the check ends as asked.
   *
   * @returns The fields' values, or undefined when there are none.
   */
  witness(fails: boolean): ReadonlyMap<string, bigint> | undefined {
    this.#m = machineOf(decided(this.#caps, !fails));
    const page = this.#m.bytes.subarray(VMCB12_AT, VMCB12_AT + VMCB_SIZE);
    page.set(this.#image.bytes);
    // One field goes through all candidates, the others through the extremes.
    for (let turn = 0; turn < Math.max(1, this.#rows.length); turn++) {
      if (this.#search(0, turn, fails)) {
        const { reads } = this.#check;
        return new Map(
          reads.map((name) => [name, readBigint(page, fieldNamed(VMCB_LAYOUT, name))]),
        );
      }
    }
    return undefined;
  }

  #search(index: number, turn: number, fails: boolean): boolean {
    const row = this.#rows[index];
    if (row === undefined) return this.#check.fails(this.#m, VMCB12_AT) === fails;
    const { words, length } = this.#candidates[index] as Candidates;
    const end = index === turn ? length : Math.min(length, EXTREMES);
    const at = VMCB12_AT + row.offset;
    for (let i = 0; i < end; i++) {
      put(this.#m, at, row.size, words[2 * i] as number, words[2 * i + 1] as number);
      if (this.#search(index + 1, turn, fails)) return true;
    }
    return false;
  }
}

/**
 * Unknown bits with which a check fails, or passes.
 *
 * @param check The check.
 * @param caps What the processor and the hypervisor can do.
 * @param image vmcb12, as far as it is known.
 * @param fails Whether it shall fail.
 * @returns Values of the fields that the check reads, or undefined when there are none.
 */
export function witness(
  check: Check,
  caps: Capabilities,
  image: Image,
  fails: boolean,
): ReadonlyMap<string, bigint> | undefined {
  return new Question(check, caps, image).witness(fails);
}
