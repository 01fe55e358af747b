/**
 * What consistency checks would say of a vmcb12 of which only a part is known.
 *
 * An answer has three values. A check fails or passes only if it does so
 * whatever the unknown bits are.
 *
 * @module
 */
import { ContentNumbers } from "../content_numbers.ts";
import type { Image } from "../event.ts";
import type { Field } from "../layout.ts";
import { fieldMask, fieldNamed, readBigint, readField } from "../image/fields.ts";
import type { Check } from "./sets.ts";
import type { Cpuid } from "../svm/cpuid.ts";
import { type Capabilities, Machine, VMCB12_AT } from "../svm/machine.ts";
import { VMCB_LAYOUT, VMCB_SIZE } from "../svm/vmcb_fields.ts";

/** What a check, or a set of checks, says: `unknown` when what is known does not settle it. */
export type CheckVerdict = "passes" | "fails" | "unknown";

/** What a recording says of the checks themselves, beyond the bits it shows. */
export interface Evidence {
  /** Ids of checks that passed. */
  readonly passed?: ReadonlySet<string>;
  /** Id of the check that failed. */
  readonly failed?: string | undefined;
  /** VMRUN was refused with no check failing: the MSR permission map could not be read. */
  readonly unreadable?: boolean;
}

/** What a set of checks says of one vmcb12. */
export interface SetVerdict {
  /** What it says. */
  readonly verdict: CheckVerdict;
  /** The first check that certainly fails, when one does. */
  readonly check: string | undefined;
  /**
   * What would have to be known to tell: names of fields, of what L1's CPUID says (`cpu.la57`; `cpu.pa`,
   * its address width), and of what lies outside the VMCB.
   */
  readonly needs: readonly string[];
}

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
interface Halves {
  readonly low: number;
  readonly high: number;
  readonly knownLow: number;
  readonly knownHigh: number;
}

function halvesOf(image: Image, { offset, size }: Field): Halves {
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
function rowsOf(check: Check): readonly Field[] {
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

/** A processor that checks are asked for. */
interface Asked {
  readonly machine: Machine;
  /** What is known of each check, by the content of the fields that it reads. */
  readonly answers: Map<Check, Map<number, Answer>>;
}

/** Processors of which answers are kept. */
const MOST_ASKED = 64;

const asked = new Map<string, Asked>();
// The same by the object: making the text takes longer than most checks.
const askedByCaps = new WeakMap<Capabilities, Asked>();

function askedOf(caps: Capabilities): Asked {
  let one = askedByCaps.get(caps);
  if (one === undefined) {
    const key = `${caps.physicalBits} ${caps.npt} ${caps.cpuid?.key}`;
    one = asked.get(key);
    if (one === undefined) {
      if (asked.size >= MOST_ASKED) asked.clear();
      one = { machine: new Machine({ ...caps, memory: 1 << 16 }), answers: new Map() };
      asked.set(key, one);
    }
    askedByCaps.set(caps, one);
  }
  return one;
}

function machineOf(caps: Capabilities): Machine {
  return askedOf(caps).machine;
}

/** Widths that processors have: the least and the most. */
const LEAST_BITS = 32, MOST_BITS = 52;

/**
 * A machine with all of L1's CPUID decided that is unknown: with as little, or as much, as may be.
 * More never makes a check fail that would pass with less.
 */
function decided(caps: Capabilities, most: boolean): Capabilities {
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
class Question {
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

/**
 * What one check says of a vmcb12.
 *
 * @param check The check.
 * @param caps What the processor and the hypervisor can do.
 * @param image vmcb12, as far as it is known.
 * @returns Whether it fails whatever the unknown bits are, passes, or neither is certain.
 * @example
 * ```ts
 * import { checkByText, checkVerdict, VMCB_SIZE } from "@vmtape/vmtape/engine";
 * const caps = { physicalBits: 48, npt: true, memory: 1 << 24 };
 * const unseen = { bytes: new Uint8Array(VMCB_SIZE), known: new Uint8Array(VMCB_SIZE) };
 * const check = checkByText("control->asid == 0")!;
 * if (checkVerdict(check, caps, unseen) !== "unknown") throw new Error();
 * unseen.known.fill(0xff);
 * if (checkVerdict(check, caps, unseen) !== "fails") throw new Error();
 * ```
 */
export function checkVerdict(check: Check, caps: Capabilities, image: Image): CheckVerdict {
  const question = new Question(check, caps, image);
  if (question.witness(true) === undefined) return "passes";
  if (check.beyond !== undefined) return "unknown";
  return question.witness(false) === undefined ? "fails" : "unknown";
}

/**
 * What checks say of a vmcb12 of which all is known, as {@linkcode checkVerdict} does, without looking
 * for values.
 *
 * @param caps What the processor and the hypervisor can do.
 * @param bytes vmcb12, of a VMCB's size.
 * @returns Answers for a check at a time, until something else asks about checks.
 */
export function wholeVerdicts(
  caps: Capabilities,
  bytes: Uint8Array,
): (check: Check) => CheckVerdict {
  const least = machineOf(decided(caps, false)), most = machineOf(decided(caps, true));
  least.bytes.set(bytes, VMCB12_AT);
  most.bytes.set(bytes, VMCB12_AT);
  return (check) => {
    if (!check.fails(least, VMCB12_AT)) return "passes";
    if (check.beyond !== undefined) return "unknown";
    return check.fails(most, VMCB12_AT) ? "fails" : "unknown";
  };
}

/** What is known of one check and the fields it reads. */
interface Answer {
  readonly verdict: CheckVerdict;
  /** What would have to be known to tell, once somebody asked. */
  needs: readonly string[] | undefined;
}

/** Answers about one check that are kept at most; most VMRUNs of a log agree in what a check reads. */
const MOST_ANSWERS = 4096;

const contents = new ContentNumbers();
const content = new Int32Array(VMCB_SIZE);

function answerOf(check: Check, caps: Capabilities, image: Image): Answer {
  const { answers } = askedOf(caps);
  let known = answers.get(check);
  if (known === undefined) answers.set(check, known = new Map());
  const key = contentOf(check, image);
  let answer = known.get(key);
  if (answer === undefined) {
    if (known.size >= MOST_ANSWERS) known.clear();
    known.set(key, answer = { verdict: checkVerdict(check, caps, image), needs: undefined });
  }
  return answer;
}

/** The number of what the fields that a check reads hold, and of what is known of them. */
function contentOf(check: Check, image: Image): number {
  let at = 0;
  for (const row of rowsOf(check)) {
    const { low, high, knownLow, knownHigh } = halvesOf(image, row);
    content[at++] = low & knownLow;
    content[at++] = high & knownHigh;
    content[at++] = knownLow;
    content[at++] = knownHigh;
  }
  return contents.of(content, at);
}

/** Names of the fields of a check that are not wholly known. */
function unknownFields(check: Check, image: Image): string[] {
  return check.reads.filter((name) => {
    const row = fieldNamed(VMCB_LAYOUT, name);
    return readField(image, row).known !== fieldMask(row);
  });
}

/** What of L1's CPUID would settle a check: `cpu.NAME` for each feature without which it would fail, `cpu.pa`. */
function unknownCpuid(check: Check, caps: Capabilities, image: Image): string[] {
  const { cpuid } = caps;
  if (cpuid === undefined) return [];
  const most = decided(caps, true);
  const fails = (changed: Capabilities) => checkVerdict(check, changed, image) !== "passes";
  const names = (check.cpuid ?? []).filter((name) =>
    !cpuid.knows(name) &&
    fails({ ...most, cpuid: most.cpuid!.set(name, !most.cpuid!.has(name)) })
  ).map((name) => `cpu.${name}`);
  if (cpuid.physicalBits === undefined) {
    const narrow = most.cpuid!.withPhysicalBits(LEAST_BITS);
    if (fails({ ...most, cpuid: narrow, physicalBits: LEAST_BITS })) names.push("cpu.pa");
  }
  return names;
}

/**
 * What a set of checks says of a vmcb12.
 *
 * @param checks The set, in order.
 * @param caps What the processor and the hypervisor can do.
 * @param image vmcb12, as far as it is known.
 * @param evidence What is known of the checks from elsewhere.
 * @returns What it says, and what it would take to know more.
 * @example
 * ```ts
 * import { CHECKS_6_12, setVerdict, VMCB_SIZE } from "@vmtape/vmtape/engine";
 * const caps = { physicalBits: 48, npt: true, memory: 1 << 24 };
 * const unseen = { bytes: new Uint8Array(VMCB_SIZE), known: new Uint8Array(VMCB_SIZE) };
 * const { verdict, needs } = setVerdict(CHECKS_6_12.checks, caps, unseen);
 * if (verdict !== "unknown" || !needs.includes("save.cr4")) throw new Error();
 * ```
 */
export function setVerdict(
  checks: readonly Check[],
  caps: Capabilities,
  image: Image,
  evidence: Evidence = {},
): SetVerdict {
  const needs = new Set<string>();
  let known = true;
  for (const check of checks) {
    if (check.id === evidence.failed) return { verdict: "fails", check: check.id, needs: [] };
    if (evidence.passed?.has(check.id)) continue;
    const answer = answerOf(check, caps, image);
    const { verdict } = answer;
    if (verdict === "fails") return { verdict, check: check.id, needs: [] };
    if (verdict === "passes") continue;
    known = false;
    answer.needs ??= [
      ...unknownFields(check, image),
      ...unknownCpuid(check, caps, image),
      ...(check.beyond === undefined ? [] : [check.beyond]),
    ];
    for (const name of answer.needs) needs.add(name);
  }
  return { verdict: known ? "passes" : "unknown", check: undefined, needs: [...needs] };
}
